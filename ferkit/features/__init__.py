"""The features of 48×48 grey faces: one registry and one code for conversion, training and prediction.

    extract(faces, "landmarks_hog_windows")  # (N, 48, 48) uint8 -> (N, 2728) float32

A `Part` is an array that conversion writes, such as the landmarks. A `Feature` is a choice of `NETWORK.features`: the
parts that are joined to one vector. A new feature is one new entry of `FEATURES`, and of `PARTS` where its values are
new.
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

    flags: of the conversion, without the dashes; the first long one is the name in messages.
    extract: (faces (N, 48, 48) uint8, path of the landmark predictor) -> (N, *shape) float32.
    provenance: (path of the landmark predictor) -> what decides the values, as JSON has it. It is kept with the arrays
    and in saved models, so that features which were computed otherwise are not mistaken for these.
    moved: (values (N, *shape) of faces, matrices (N, 2, 3), the moved faces (N, 48, 48)) -> values of the moved faces.
    By default they are extracted anew.
    """

    shape: tuple[int, ...]
    flags: tuple[str, ...]
    help: str
    extract: Callable[[np.ndarray, str], np.ndarray]
    provenance: Callable[[str], dict[str, Any]]
    moved: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None

    @property
    def size(self) -> int:
        """Numbers of one face."""
        return math.prod(self.shape)

    @property
    def flag(self) -> str:
        """The flag of the conversion that writes this array."""
        return f"--{next(name for name in self.flags if len(name) > 2)}=yes"


@dataclass(frozen=True)
class Feature:
    """A choice of `NETWORK.features`: its parts in the order in which they are joined, and its name in reports."""

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
    """The parts of a feature by their names, in the order in which they are joined."""
    return {name: PARTS[name] for name in FEATURES[feature].parts}


def size(feature: str) -> int:
    """Length of the vector of a feature."""
    return sum(part.size for part in parts_of(feature).values())


def columns(feature: str) -> dict[str, slice]:
    """Where each part's values stand in the vector of a feature."""
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
    """The arrays of `count` faces, side by side: (count, size(feature)) float32."""
    none = np.zeros((count, 0), np.float32)
    rows = (parts[name].reshape(count, part.size) for name, part in parts_of(feature).items())
    return np.concatenate([none, *rows], axis=1)


def provenance(feature: str, shape_predictor_path: str = SHAPE_PREDICTOR) -> dict[str, dict[str, Any]]:
    """What decides the values of a feature, for each of its parts."""
    return {name: part.provenance(shape_predictor_path) for name, part in parts_of(feature).items()}


def moved(vectors: np.ndarray, feature: str, matrices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """The vectors of moved faces: landmarks follow the face, HOG is computed anew.

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
