"""dlib's 68 facial landmarks of 48×48 grey faces."""

import functools
import hashlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ferkit.constants import IMAGE_SIZE, SHAPE_PREDICTOR
from ferkit.errors import UserError
from ferkit.files import open_file, read_bytes

LANDMARKS = 68  # points of dlib's predictor
LEFT_EYE, RIGHT_EYE = slice(36, 42), slice(42, 48)  # on the left and right of the picture
# Which landmark takes the place of each landmark in a mirrored face: jaw, brows, nose, eyes, outer and inner lips.
MIRRORED = (
    *range(16, -1, -1),
    *range(26, 16, -1),
    *range(27, 31),
    *range(35, 30, -1),
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
    *range(54, 47, -1),
    *range(59, 54, -1),
    *range(64, 59, -1),
    *range(67, 64, -1),
)


def extract(faces: np.ndarray, shape_predictor_path: str = SHAPE_PREDICTOR) -> np.ndarray:
    """dlib's 68 facial landmarks (Kazemi and Sullivan, CVPR 2014), where the whole picture is the face's box.

    faces: (N, 48, 48) uint8. Returns (N, 68, 2) float32, x then y, in pixels.
    Raises UserError when the predictor's file is missing or invalid.
    """
    import dlib  # imported here, because raw pixels do not need it

    predictor = load_shape_predictor(shape_predictor_path)
    whole = dlib.rectangle(0, 0, IMAGE_SIZE - 1, IMAGE_SIZE - 1)  # right and bottom are inclusive
    points = np.empty((len(faces), LANDMARKS, 2), np.float32)
    for face, face_points in zip(faces, points, strict=True):
        face_points[:] = [(point.x, point.y) for point in predictor(np.ascontiguousarray(face), whole).parts()]
    return points


def moved(points: np.ndarray, matrices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Landmarks (N, 68, 2) of faces after the moves `matrices` (N, 2, 3). A mirrored left eye becomes a right eye."""
    moved = points @ matrices[:, :, :2].swapaxes(1, 2) + matrices[:, None, :, 2]
    mirrored = np.linalg.det(matrices[:, :, :2]) < 0
    moved[mirrored] = moved[mirrored][:, MIRRORED]
    return moved.astype(np.float32)


def provenance(shape_predictor_path: str = SHAPE_PREDICTOR) -> dict[str, Any]:
    """All that the landmarks depend on: the predictor."""
    return {"shape_predictor_sha256": _hash_of(find_shape_predictor(shape_predictor_path))}


def load_shape_predictor(path: str = SHAPE_PREDICTOR) -> Callable:
    """dlib's predictor, loaded once. Raises UserError when its file is missing or invalid."""
    return _shape_predictor(find_shape_predictor(path))


def find_shape_predictor(path: str = SHAPE_PREDICTOR) -> str:
    """`path` if there is a file; otherwise, if it has the predictor's usual name, the installed package's file.

    Raises UserError when there is neither.
    """
    if Path(path).is_file():
        return path
    if Path(path) != Path(SHAPE_PREDICTOR):
        raise UserError(
            f"no landmark predictor at {path}: name another with --shape_predictor_path; {SHAPE_PREDICTOR} is the "
            "installed one"
        )
    package = importlib.util.find_spec("face_recognition_models")  # not imported: its import fails
    if package is not None and package.origin is not None:
        carried = Path(package.origin).parent / "models" / SHAPE_PREDICTOR
        if carried.is_file():
            return str(carried)
    raise UserError(
        f"no landmark predictor at {path}: 'pip install face_recognition_models', or unpack "
        f"http://dlib.net/files/{SHAPE_PREDICTOR}.bz2, or name another with --shape_predictor_path"
    )


@functools.cache
def _shape_predictor(path: str) -> Callable:
    import dlib

    open_file(path).close()  # raises UserError if it cannot be read
    try:
        predictor = dlib.shape_predictor(path)
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{path} is not a dlib landmark predictor ({reason}): name another") from error
    blank = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    points = predictor(blank, dlib.rectangle(0, 0, IMAGE_SIZE - 1, IMAGE_SIZE - 1)).num_parts
    if points != LANDMARKS:
        raise UserError(f"{path} predicts {points} landmarks, not {LANDMARKS}: take {SHAPE_PREDICTOR}")
    return predictor


@functools.cache
def _hash_of(path: str) -> str:
    return hashlib.sha256(read_bytes(path)).hexdigest()
