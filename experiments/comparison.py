"""Two models compared on the same faces: who is right where the other is wrong.

predictions = predictions_of(model, dataset)
write(predictions, Path("results/rows/A_none.npz"))
difference(read(first), read(second)).chance
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest

from ferkit.data.dataset import Dataset
from ferkit.errors import UserError
from ferkit.files import whole_file
from ferkit.learning.evaluation import Classifier

REPORTED = "PrivateTest"
RESAMPLES = 20_000
INTERVAL = 0.95  # share of the resamples inside the interval
SEED = 0


class Predictions(NamedTuple):
    """What a model says of each face of PrivateTest, one view of it."""

    labels: np.ndarray  # (N,) uint8: the right answers
    predictions: np.ndarray  # (N,) uint8

    @property
    def right(self) -> np.ndarray:
        """(N,) bool"""
        return self.labels == self.predictions


class Difference(NamedTuple):
    """How much more often the second of two models is right."""

    difference: float  # of the accuracies
    low: float  # the ends of its bootstrap interval
    high: float
    first_alone: int  # number of faces that only the first model gets right
    second_alone: int
    chance: float  # McNemar's exact p


def predictions_of(model: Classifier, dataset: Dataset) -> Predictions:
    faces = dataset.load(REPORTED, model.features)
    answers = model.predict(faces.images, faces.features).argmax(axis=1)
    return Predictions(faces.labels.astype(np.uint8), answers.astype(np.uint8))


def write(predictions: Predictions, path: Path) -> None:
    """Writes a compressed file of a few kilobytes."""
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **predictions._asdict())


def read(path: Path) -> Predictions:
    """Raises UserError when the file is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            predictions = Predictions(file["labels"], file["predictions"])
        if predictions.labels.ndim != 1 or predictions.labels.shape != predictions.predictions.shape:
            raise ValueError("its arrays do not belong together")
    except Exception as error:  # a damaged file can raise almost any error
        raise UserError(f"{path} is missing or damaged ({error}): delete the row's line and run it again") from error
    return predictions


def difference(first: Predictions, second: Predictions) -> Difference:
    """Compares two models on the same faces. Raises ValueError when the faces differ.

    The chance is that of McNemar's exact test (McNemar, Psychometrika 1947): how likely so unequal numbers of faces
    that one model alone gets right are, if both models are equally good. The interval is the percentile bootstrap's
    (Efron 1979) over the faces. Neither tells what another seed of the training would change.
    """
    if not np.array_equal(first.labels, second.labels):
        raise ValueError("the models were not evaluated on the same faces")
    first_alone = int((first.right & ~second.right).sum())
    second_alone = int((second.right & ~first.right).sum())
    faces, decided = len(first.labels), first_alone + second_alone
    shares = np.array([first_alone, second_alone, faces - decided]) / faces
    drawn = np.random.default_rng(SEED).multinomial(faces, shares, RESAMPLES)  # equals drawing faces one by one
    differences = (drawn[:, 1] - drawn[:, 0]) / faces
    low, high = np.quantile(differences, [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2])
    chance = float(binomtest(second_alone, decided).pvalue) if decided else 1.0
    return Difference((second_alone - first_alone) / faces, float(low), float(high), first_alone, second_alone, chance)
