"""The features of 48×48 grey faces: the same registry and code for conversion, training and prediction.

    extract(faces, "landmarks_hog_windows")  # (N, 48, 48) uint8 -> (N, 2728) float32

A `Part` is an array that the conversion writes, such as the landmarks. A `Feature` is a choice of `NETWORK.features`: a
list of parts that are concatenated into one vector. To add a feature, add an entry to `FEATURES`, and an entry to
`PARTS` if it needs new values.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ferkit.constants import SHAPE_PREDICTOR
from ferkit.features import hog, landmarks


@dataclass(frozen=True)
class Part:
    """An array with one row for each face.

    flags: flags of the conversion, without the dashes; the first long one is the name in messages.
    extract: (faces (N, 48, 48) uint8, path of the landmark predictor) -> (N, *shape) float32.
    provenance: (path of the landmark predictor) -> all that the values depend on, as JSON values. It is stored with the
    arrays and in saved models, so that features that were computed differently are recognized as different.
    moved: (values (N, *shape) of faces, matrices (N, 2, 3), the moved faces (N, 48, 48)) -> values of the moved faces.
    By default these values are extracted again.
    """

    shape: tuple[int, ...]
    flags: tuple[str, ...]
    help: str
    extract: Callable[[np.ndarray, str], np.ndarray]
    provenance: Callable[[str], dict[str, Any]]
    moved: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None

    @property
    def size(self) -> int:
        """How many numbers one face has."""
        return math.prod(self.shape)

    @property
    def flag(self) -> str:
        """The flag of the conversion that writes this array."""
        return f"--{next(name for name in self.flags if len(name) > 2)}=yes"


@dataclass(frozen=True)
class Feature:
    """A choice of `NETWORK.features`: its parts, in the order of concatenation, and its name in reports."""

    parts: tuple[str, ...]
    label: str


PARTS: dict[str, Part] = {
    "landmarks": Part(
        shape=(landmarks.LANDMARKS, 2),
        flags=("l", "landmarks"),
        help="extract dlib's 68 landmarks",
        extract=landmarks.extract,
        provenance=landmarks.provenance,
        moved=landmarks.moved,
    ),
    "hog_features": Part(
        shape=(hog.FACE_SIZE,),
        flags=("ho", "hog"),
        help="extract HOG of the whole face",
        extract=lambda faces, _: hog.face(faces),
        provenance=lambda _: {"orientations": hog.ORIENTATIONS, "cell": hog.FACE_CELL},
    ),
    "hog_windows": Part(
        shape=(hog.WINDOWS_SIZE,),
        flags=("hw", "hog_windows", "how_windows"),
        help="extract HOG of sliding windows",
        extract=lambda faces, _: hog.windows(faces),
        provenance=lambda _: {
            "orientations": hog.ORIENTATIONS,
            "window": hog.WINDOW_SIZE,
            "step": hog.WINDOW_STEP,
            "cell": hog.WINDOW_CELL,
        },
    ),
}

FEATURES: dict[str, Feature] = {
    "none": Feature((), "raw pixels"),
    "landmarks": Feature(("landmarks",), "+ landmarks"),
    "landmarks_hog": Feature(("landmarks", "hog_features"), "+ landmarks + HOG"),
    "landmarks_hog_windows": Feature(("landmarks", "hog_windows"), "+ landmarks + HOG windows"),
}


def parts_of(feature: str) -> dict[str, Part]:
    """The parts of a feature by name, in the order of concatenation."""
    return {name: PARTS[name] for name in FEATURES[feature].parts}


def size(feature: str) -> int:
    """Length of the vector of a feature."""
    return sum(part.size for part in parts_of(feature).values())


def columns(feature: str) -> dict[str, slice]:
    """The positions of each part's values in the vector of a feature."""
    places, start = {}, 0
    for name, part in parts_of(feature).items():
        places[name] = slice(start, start + part.size)
        start += part.size
    return places


def extract(faces: np.ndarray, feature: str, shape_predictor_path: str = SHAPE_PREDICTOR) -> np.ndarray:
    """The vectors of a feature: (N, 48, 48) uint8 -> (N, size(feature)) float32."""
    parts = {name: part.extract(faces, shape_predictor_path) for name, part in parts_of(feature).items()}
    return join(parts, feature, len(faces))


def join(parts: Mapping[str, np.ndarray], feature: str, count: int) -> np.ndarray:
    """The concatenated arrays of `count` faces: (count, size(feature)) float32."""
    none = np.zeros((count, 0), np.float32)
    rows = (parts[name].reshape(count, part.size) for name, part in parts_of(feature).items())
    return np.concatenate([none, *rows], axis=1)


def provenance(feature: str, shape_predictor_path: str = SHAPE_PREDICTOR) -> dict[str, dict[str, Any]]:
    """All that the values of a feature depend on, for each of its parts."""
    return {name: part.provenance(shape_predictor_path) for name, part in parts_of(feature).items()}


def moved(vectors: np.ndarray, feature: str, matrices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """The vectors of moved faces: landmarks move with the face, HOG is computed again.

    vectors: (N, size) float32 before. matrices: (N, 2, 3), see transforms.affine. faces: (N, 48, 48) uint8 after.
    """
    parts = {}
    for name, where in columns(feature).items():
        part, values = PARTS[name], vectors[:, where]
        if part.moved is None:
            parts[name] = part.extract(faces, SHAPE_PREDICTOR)
        else:
            parts[name] = part.moved(values.reshape(len(values), *part.shape), matrices, faces)
    return join(parts, feature, len(faces))
