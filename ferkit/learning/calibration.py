"""Calibration: how far confidence and accuracy lie apart, and the temperature that brings them together."""

import numpy as np

from ferkit.saved_model import at_temperature

BINS = 15  # of the expected calibration error


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error (Guo et al., ICML 2017): how far confidence and accuracy lie apart, 0 to 1.

    Faces are grouped by their confidence into bins of equal width; the mean over all faces of their bin's difference.
    """
    confidence, hits = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=hits - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / max(len(labels), 1))


def best_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature, from 0.1 to 10, at which the mean confidence is the accuracy.

    Where a network's confidence is not wrong by a temperature alone, the one at which the labels are likeliest (Guo et
    al., ICML 2017) can leave it too low or too high for all faces together; this one cannot.
    """
    accuracy = float((probabilities.argmax(axis=1) == labels).mean())
    candidates = np.geomspace(0.1, 10, 401)
    confidences = [at_temperature(probabilities, candidate).max(axis=1).mean() for candidate in candidates]
    return float(candidates[int(np.argmin(np.abs(np.array(confidences) - accuracy)))])
