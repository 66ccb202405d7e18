"""The features of 48×48 grey faces: the same registry and code for conversion, training and prediction.

    extract(faces, "landmarks_hog_windows")  # (N, 48, 48) uint8 -> (N, 2728) float32
    extract(faces, "landmarks+lbp")  # any features together

A `Part` is an array that the conversion writes, such as the landmarks. A `Feature` is a choice of `NETWORK.features`: a
list of parts that are concatenated into one vector. Features joined by a plus have the parts of each, every part once.
To add a feature, add an entry to `FEATURES`, and an entry to `PARTS` if it needs new values.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ferkit.constants import IMAGE_SIZE, SHAPE_PREDICTOR
from ferkit.features import gabor, geometry, hog, landmarks, lbp, sift

JOINED = "+"  # between features that are taken together
Provenance = Mapping[str, Mapping[str, Any]]  # of parts, by name


@dataclass(frozen=True)
class Part:
    """An array with one row for each face.

    flags: flags of the conversion, without the dashes; the first long one is the name in messages.
    extract: (faces (N, 48, 48) uint8, source) -> (N, *shape) float32. The source is the path of the landmark predictor
    or, of a part with `learn`, what that gave.
    provenance: (path of the landmark predictor) -> all that the values depend on, as JSON values. It is stored with the
    arrays and in saved models, so that features that were computed differently are recognized as different.
    moved: (values (N, *shape) of faces, matrices (N, 2, 3), the moved faces (N, 48, 48)) -> values of the moved faces.
    By default these values are extracted again.
    learn: (training faces (N, 48, 48) uint8) -> a JSON value that `extract` needs, such as a vocabulary. It becomes
    "learned" in the provenance, and prediction takes it from there.
    usual: whether the conversion writes the array unless told otherwise.
    needs_landmarks: whether `extract` needs the landmark predictor.
    """

    shape: tuple[int, ...]
    flags: tuple[str, ...]
    help: str
    extract: Callable[[np.ndarray, Any], np.ndarray]
    provenance: Callable[[str], dict[str, Any]]
    moved: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None
    learn: Callable[[np.ndarray], Any] | None = None
    usual: bool = True
    needs_landmarks: bool = False

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
        needs_landmarks=True,
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
    "lbp": Part(
        shape=(lbp.SIZE,),
        flags=("lbp",),
        help="extract histograms of local binary patterns",
        extract=lambda faces, _: lbp.extract(faces),
        provenance=lambda _: {"points": lbp.POINTS, "cell": lbp.CELL},
        usual=False,
    ),
    "gabor": Part(
        shape=(gabor.SIZE,),
        flags=("gabor",),
        help="extract the energies of Gabor filters",
        extract=lambda faces, _: gabor.extract(faces),
        provenance=lambda _: {
            "frequencies": list(gabor.FREQUENCIES),
            "directions": gabor.DIRECTIONS,
            "bandwidth": gabor.BANDWIDTH,
            "deviations": gabor.DEVIATIONS,
            "cell": gabor.CELL,
        },
        usual=False,
    ),
    "sift": Part(
        shape=(sift.SIZE,),
        flags=("sift",),
        help="extract a bag of visual words, which are learned from the SIFT descriptors of Training",
        extract=sift.extract,
        provenance=lambda _: {"window": sift.WINDOW, "step": sift.STEP, "pyramid": list(sift.PYRAMID)},
        learn=sift.learn,
        usual=False,
    ),
    "geometry": Part(
        shape=(geometry.SIZE,),
        flags=("geometry",),
        help="extract distances and angles between the landmarks",
        extract=geometry.extract,
        provenance=lambda path: {"turns": len(geometry.TURNS), **landmarks.provenance(path)},
        moved=geometry.moved,
        usual=False,
        needs_landmarks=True,
    ),
}

FEATURES: dict[str, Feature] = {
    "none": Feature((), "raw pixels"),
    "landmarks": Feature(("landmarks",), "+ landmarks"),
    "landmarks_hog": Feature(("landmarks", "hog_features"), "+ landmarks + HOG"),
    "landmarks_hog_windows": Feature(("landmarks", "hog_windows"), "+ landmarks + HOG windows"),
    "hog": Feature(("hog_features",), "+ HOG"),
    "hog_windows": Feature(("hog_windows",), "+ HOG windows"),
    "lbp": Feature(("lbp",), "+ LBP"),
    "gabor": Feature(("gabor",), "+ Gabor energies"),
    "sift": Feature(("sift",), "+ SIFT words"),
    "geometry": Feature(("geometry",), "+ geometry"),
}


def parts_of(feature: str) -> dict[str, Part]:
    """The parts of a feature, or of several joined by a plus, by name, in the order of concatenation."""
    names = dict.fromkeys(name for one in feature.split(JOINED) for name in FEATURES[one].parts)
    return {name: PARTS[name] for name in names}


def label(feature: str) -> str:
    """The name of a feature in reports: `+ landmarks + LBP`."""
    return " ".join(FEATURES[one].label for one in feature.split(JOINED))


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


def extract(
    faces: np.ndarray, feature: str, shape_predictor_path: str = SHAPE_PREDICTOR, known: Provenance | None = None
) -> np.ndarray:
    """The vectors of a feature: (N, 48, 48) uint8 -> (N, size(feature)) float32.

    known: the provenance of the dataset or saved model, which has what its parts have learned.
    """
    parts = {name: extract_part(name, faces, shape_predictor_path, known) for name in parts_of(feature)}
    return join(parts, feature, len(faces))


def extract_part(
    name: str, faces: np.ndarray, shape_predictor_path: str = SHAPE_PREDICTOR, known: Provenance | None = None
) -> np.ndarray:
    """The values of a part: (N, 48, 48) uint8 -> (N, *shape) float32. known: see `extract`."""
    part = PARTS[name]
    return part.extract(faces, shape_predictor_path if part.learn is None else (known or {})[name]["learned"])


def learn(names: Iterable[str], faces: np.ndarray) -> dict[str, dict[str, Any]]:
    """What the parts of these names, as far as they learn, learn from the training faces, as `known` elsewhere."""
    learning = {name: PARTS[name].learn for name in names}
    return {name: {"learned": part_learns(faces)} for name, part_learns in learning.items() if part_learns is not None}


def join(parts: Mapping[str, np.ndarray], feature: str, count: int) -> np.ndarray:
    """The concatenated arrays of `count` faces: (count, size(feature)) float32."""
    none = np.zeros((count, 0), np.float32)
    rows = (parts[name].reshape(count, part.size) for name, part in parts_of(feature).items())
    return np.concatenate([none, *rows], axis=1)


def provenance(
    feature: str, shape_predictor_path: str = SHAPE_PREDICTOR, known: Provenance | None = None
) -> dict[str, dict[str, Any]]:
    """All that the values of a feature depend on, for each of its parts. known: see `extract`."""
    return provenance_of(parts_of(feature), shape_predictor_path, known)


def provenance_of(
    names: Iterable[str], shape_predictor_path: str = SHAPE_PREDICTOR, known: Provenance | None = None
) -> dict[str, dict[str, Any]]:
    """All that the values of these parts depend on. known: see `extract`."""
    found = {name: PARTS[name].provenance(shape_predictor_path) for name in names}
    for name in found:
        if PARTS[name].learn is not None:
            found[name] = {**found[name], "learned": (known or {}).get(name, {}).get("learned")}
    return found


def check_learned(feature: str, known: Provenance) -> None:
    """Raises an error of any kind when `known` lacks what the parts of a feature have learned, or it is damaged."""
    blank = np.zeros((1, IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    for name, part in parts_of(feature).items():
        if part.learn is not None:
            extract_part(name, blank, known=known)


def moved(
    vectors: np.ndarray, feature: str, matrices: np.ndarray, faces: np.ndarray, known: Provenance | None = None
) -> np.ndarray:
    """The vectors of moved faces: landmarks move with the face, HOG is computed again.

    vectors: (N, size) float32 before. matrices: (N, 2, 3), see transforms.affine. faces: (N, 48, 48) uint8 after.
    known: see `extract`.
    """
    parts = {}
    for name, where in columns(feature).items():
        part, values = PARTS[name], vectors[:, where]
        if part.moved is None:
            parts[name] = extract_part(name, faces, known=known)
        else:
            parts[name] = part.moved(values.reshape(len(values), *part.shape), matrices, faces)
    return join(parts, feature, len(faces))
