"""Training, knowledge distillation, evaluation and calibration of the networks."""
