"""Affine maps of faces and their features, and the views for test-time augmentation.

probabilities = average_over_views(model.predict, faces, vectors, "landmarks")
"""

from collections.abc import Callable, Iterator

import numpy as np

from ferkit import features
from ferkit.constants import IMAGE_SIZE

# Test-time augmentation averages over these enlargements of a face, each of them plain and mirrored. On PublicTest they
# gave a higher accuracy than shifts by two or three pixels or turns by six degrees. All together gave no more.
VIEWS = (1.0, 1.08, 0.92)


def affine(flip: np.ndarray, shift: np.ndarray, zoom: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """Matrices (N, 2, 3) that map the pixels of a face to those of its moved copy.

    The face is mirrored, turned and enlarged about its centre, then shifted.
    flip: (N,) bool. shift: (N, 2) pixels right and down. zoom: (N,) factors. degrees: (N,).
    """
    angle = np.deg2rad(degrees)
    cosine, sine = zoom * np.cos(angle), zoom * np.sin(angle)
    mirror = np.where(flip, -1.0, 1.0)
    linear = np.stack([cosine * mirror, -sine, sine * mirror, cosine], axis=1).reshape(-1, 2, 2)
    middle = np.full(2, (IMAGE_SIZE - 1) / 2)
    offset = middle + shift - linear @ middle
    return np.concatenate([linear, offset[:, :, None]], axis=2)


def warp(faces: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """The faces (N, 48, 48) uint8 moved by `matrices` (N, 2, 3). Outside the face, the border pixels are repeated."""
    import cv2  # imported here, because evaluation and training without augmentation do not need it

    moved = np.empty_like(faces)
    for face, matrix, target in zip(faces, matrices, moved, strict=True):
        target[:] = cv2.warpAffine(
            face, matrix, (IMAGE_SIZE, IMAGE_SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    return moved


def views(
    faces: np.ndarray, vectors: np.ndarray, feature: str, known: features.Provenance | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The copies of the faces for test-time augmentation, with their vectors of `feature`.

    faces: (N, 48, 48) uint8. vectors: (N, size) float32. known: see features.extract.
    """
    for zoom in VIEWS:
        for flip in (False, True):
            matrix = affine(np.array([flip]), np.zeros((1, 2)), np.array([zoom]), np.zeros(1))
            matrices = np.repeat(matrix, len(faces), axis=0)
            moved = warp(faces, matrices)
            yield moved, features.moved(vectors, feature, matrices, moved, known)


def average_over_views(
    predict: Callable[[np.ndarray, np.ndarray], np.ndarray],
    faces: np.ndarray,
    vectors: np.ndarray,
    feature: str,
    known: features.Provenance | None = None,
) -> np.ndarray:
    """Test-time augmentation: the results of `predict(faces, vectors)`, averaged over the views of the faces."""
    return np.mean([predict(*view) for view in views(faces, vectors, feature, known)], axis=0)
