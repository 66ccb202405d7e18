"""The hyperparameter search, on one machine and across machines."""
