"""The means and standard deviations with which a network standardizes its inputs."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scaling:
    """Mean and standard deviation of all pixels together, and of each value of the features."""

    pixel_mean: float
    pixel_deviation: float
    feature_means: np.ndarray  # (size,) float32
    feature_deviations: np.ndarray  # (size,) float32

    @staticmethod
    def of(faces: np.ndarray, vectors: np.ndarray) -> "Scaling":
        """The scaling of a training set: faces (N, 48, 48) uint8, vectors (N, size) float32."""
        deviations = vectors.std(axis=0, dtype=np.float64)
        return Scaling(
            float(faces.mean()),
            max(float(faces.std()), 1.0),
            vectors.mean(axis=0, dtype=np.float64).astype(np.float32),
            np.where(deviations > 1e-6, deviations, 1).astype(np.float32),  # a constant feature stays constant
        )
