"""Calibration: the difference between confidence and accuracy, and the temperature that removes it."""

import numpy as np

from ferkit.saved_model import at_temperature

BINS = 15  # of the expected calibration error


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error (Guo et al., ICML 2017): the difference of confidence and accuracy, 0 to 1.

    Faces are grouped by confidence into bins of equal width. The result is the mean difference of the bins, weighted by
    their numbers of faces.
    """
    confidence, hits = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=hits - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / max(len(labels), 1))


def best_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature, from 0.1 to 10, at which the mean confidence equals the accuracy.

    Guo et al. (ICML 2017) choose the temperature with the greatest likelihood of the labels. With that temperature, the
    mean confidence of some networks is still too low or too high. This method avoids that. The accuracy is estimated by
    Laplace's rule of succession: if all of ten faces are answered correctly, the next one need not be.
    """
    accuracy = (float((probabilities.argmax(axis=1) == labels).sum()) + 1) / (len(labels) + 2)
    candidates = np.geomspace(0.1, 10, 401)
    confidences = [at_temperature(probabilities, candidate).max(axis=1).mean() for candidate in candidates]
    return float(candidates[int(np.argmin(np.abs(np.array(confidences) - accuracy)))])
