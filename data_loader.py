"""The converted dataset, as parameters.py describes it.

training = load("Training")
training.images, training.features, training.labels
"""

from ferkit.data.dataset import Dataset, Split, open_dataset
from parameters import DATASET, NETWORK

__all__ = ["Dataset", "Split", "load", "open_dataset"]


def load(split: str, features: str = NETWORK.features, folder: str = DATASET.folder) -> Split:
    """The faces of a split: "Training", "PublicTest" or "PrivateTest", with these features beside the pixels.

    Raises UserError when the dataset is missing or damaged, or has other arrays than these features need.
    """
    dataset = open_dataset(folder)
    dataset.check(features, len(dataset.expressions))
    return dataset.load(split, features)
