"""Loads the converted dataset with the settings of parameters.py.

training = load("Training")
training.images, training.features, training.labels
"""

from ferkit.data.dataset import Dataset, Split, open_dataset
from parameters import DATASET, NETWORK

__all__ = ["Dataset", "Split", "load", "open_dataset"]


def load(split: str, features: str = NETWORK.features, folder: str = DATASET.folder) -> Split:
    """The faces of a split, with their features and labels. split: "Training", "PublicTest" or "PrivateTest".

    Raises UserError when the dataset is missing or damaged, or lacks arrays that these features need.
    """
    dataset = open_dataset(folder)
    dataset.check(features, len(dataset.expressions))
    return dataset.load(split, features)
