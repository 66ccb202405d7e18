"""Landmarks, HOG and sliding-window HOG of 48×48 grey faces: the one code for conversion and for prediction.

    extract(faces, "landmarks_hog_windows")  # (N, 48, 48) uint8 -> (N, 2728) float32

Every function takes a stack of faces, so that the work is done on many faces at once where there are many.
"""

import functools
import hashlib
import importlib.util
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from command_line import UserError
from parameters import IMAGE_SIZE, SHAPE_PREDICTOR

LANDMARKS = 68  # points of dlib's predictor
# Which landmark each one becomes in a mirrored face: jaw, brows, nose, eyes, outer and inner lips.
MIRRORED_LANDMARKS = (
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
ORIENTATIONS = 8  # HOG's bins over 180 degrees
HOG_CELL = 16  # pixels: the whole face in 3×3 cells
WINDOW_SIZE = 24  # pixels, cut off at the right and bottom edge of the face
WINDOW_STEP = 6
WINDOW_CELL = 8

# Which of the converted arrays make up each choice of NETWORK.features, in the order they are joined.
PARTS: dict[str, tuple[str, ...]] = {
    "none": (),
    "landmarks": ("landmarks",),
    "landmarks_hog": ("landmarks", "hog_features"),
    "landmarks_hog_windows": ("landmarks", "hog_windows"),
}


def extract(faces: np.ndarray, kind: str, shape_predictor_path: str = SHAPE_PREDICTOR) -> np.ndarray:
    """The feature vectors of `faces` for one of `parameters.FEATURES`.

    faces: (N, 48, 48) uint8. Returns (N, size(kind)) float32.
    """
    parts = {name: extract_part(faces, name, shape_predictor_path) for name in PARTS[kind]}
    return join(parts, kind, len(faces))


def extract_part(faces: np.ndarray, name: str, shape_predictor_path: str = SHAPE_PREDICTOR) -> np.ndarray:
    """One of the arrays that conversion writes: landmarks (N, 68, 2), hog_features (N, 72), hog_windows (N, 2592)."""
    if name == "landmarks":
        return landmarks(faces, shape_predictor_path)
    return {"hog_features": hog_features, "hog_windows": hog_windows}[name](faces)


def join(parts: Mapping[str, np.ndarray], kind: str, count: int) -> np.ndarray:
    """The converted arrays of `count` faces, side by side: (count, size(kind)) float32."""
    return np.concatenate(
        [
            np.zeros((count, 0), np.float32),
            *(parts[name].reshape(count, math.prod(SHAPES[name])) for name in PARTS[kind]),
        ],
        axis=1,
    )


def size(kind: str) -> int:
    """Length of the feature vector of one of `parameters.FEATURES`."""
    return sum(math.prod(SHAPES[name]) for name in PARTS[kind])


def recipe(name: str, shape_predictor_path: str = SHAPE_PREDICTOR) -> dict[str, Any]:
    """What decides the values of an array: it is kept with them, so that no other features pass for them."""
    if name == "landmarks":
        return {"shape_predictor_sha256": _hash_of(find_shape_predictor(shape_predictor_path))}
    windows = {"window": WINDOW_SIZE, "step": WINDOW_STEP, "cell": WINDOW_CELL}
    return {"orientations": ORIENTATIONS, **({"cell": HOG_CELL} if name == "hog_features" else windows)}


# --- landmarks -------------------------------------------------------------------------------------------------------


def landmarks(faces: np.ndarray, shape_predictor_path: str = SHAPE_PREDICTOR) -> np.ndarray:
    """dlib's 68 facial landmarks (Kazemi and Sullivan, CVPR 2014), fitted to the whole picture as the face.

    faces: (N, 48, 48) uint8. Returns (N, 68, 2) float32, x then y, in pixels.
    Raises UserError when the predictor's file is nowhere to be found, or is not one.
    """
    import dlib  # here, because raw-pixel work needs none of it

    predictor = load_shape_predictor(shape_predictor_path)
    whole = dlib.rectangle(0, 0, IMAGE_SIZE - 1, IMAGE_SIZE - 1)  # dlib's right and bottom are inclusive
    points = np.empty((len(faces), LANDMARKS, 2), np.float32)
    for face, face_points in zip(faces, points, strict=True):
        face_points[:] = [(point.x, point.y) for point in predictor(np.ascontiguousarray(face), whole).parts()]
    return points


def load_shape_predictor(path: str = SHAPE_PREDICTOR) -> Callable:
    """dlib's predictor, loaded once. Raises UserError when its file is nowhere to be found, or is not one."""
    return _shape_predictor(find_shape_predictor(path))


def find_shape_predictor(path: str = SHAPE_PREDICTOR) -> str:
    """`path` where there is a file; of the predictor's own name, else the one that the installed package carries.

    Raises UserError when there is none.
    """
    if Path(path).is_file():
        return path
    if Path(path) != Path(SHAPE_PREDICTOR):
        raise UserError(
            f"no landmark predictor at {path}: name another with --shape_predictor_path or "
            f"DATASET.shape_predictor_path; {SHAPE_PREDICTOR} is the installed one"
        )
    package = importlib.util.find_spec("face_recognition_models")  # found, not imported: its import is broken
    if package is not None and package.origin is not None:
        carried = Path(package.origin).parent / "models" / SHAPE_PREDICTOR
        if carried.is_file():
            return str(carried)
    raise UserError(
        f"no landmark predictor at {path}: 'pip install face_recognition_models', or unpack "
        f"http://dlib.net/files/{SHAPE_PREDICTOR}.bz2, or set DATASET.shape_predictor_path"
    )


@functools.cache
def _shape_predictor(path: str) -> Callable:
    import dlib

    try:
        predictor = dlib.shape_predictor(path)
    except RuntimeError as error:
        raise UserError(f"{path} is not a dlib landmark predictor ({error}): name another") from error
    blank = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    points = predictor(blank, dlib.rectangle(0, 0, IMAGE_SIZE - 1, IMAGE_SIZE - 1)).num_parts
    if points != LANDMARKS:
        raise UserError(f"{path} predicts {points} landmarks, not {LANDMARKS}: take {SHAPE_PREDICTOR}")
    return predictor


@functools.cache
def _hash_of(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


# --- HOG -------------------------------------------------------------------------------------------------------------


def hog_features(faces: np.ndarray) -> np.ndarray:
    """HOG of the whole face: (N, 48, 48) uint8 -> (N, 72) float32."""
    return _hog(faces, _face_grid())


def hog_windows(faces: np.ndarray) -> np.ndarray:
    """HOG of each window that slides over the face, row by row: (N, 48, 48) uint8 -> (N, 2592) float32."""
    return _hog(faces, _window_grid())


class _Grid:
    """Windows along one axis of the face, each divided into whole cells; the other axis is divided alike.

    A window knows nothing of the pixels around it, so its gradient across its own border is zero. Each cell's sum
    is therefore two sums: over its pixels inside the window, and over those on the window's border.
    """

    def __init__(self, starts: range, window: int, cell: int):
        self.cell = cell
        inside, border, cells_of_window = [], [], []
        for start in starts:
            stop = min(start + window, IMAGE_SIZE)
            cells = range(start, stop - cell + 1, cell)
            cells_of_window.append(range(len(inside), len(inside) + len(cells)))
            for first in cells:
                pixels = np.zeros(IMAGE_SIZE, np.float32)
                pixels[first : first + cell] = 1
                edge = np.zeros(IMAGE_SIZE, np.float32)
                edge[[start, stop - 1]] = pixels[[start, stop - 1]]
                inside.append(pixels - edge)
                border.append(edge)
        self.inside = np.stack(inside)  # (cells, 48): 1 where the pixel is in the cell, and inside its window
        self.border = np.stack(border)  # (cells, 48): 1 where the pixel is in the cell, on its window's border
        # All cells are computed as one table; this puts them in the order window row, window column, cell row, column.
        count = len(inside)
        self.order = np.array(
            [row * count + column for r in cells_of_window for c in cells_of_window for row in r for column in c]
        )
        self.size = len(self.order) * ORIENTATIONS


@functools.cache
def _face_grid() -> _Grid:
    return _Grid(range(1), IMAGE_SIZE, HOG_CELL)


@functools.cache
def _window_grid() -> _Grid:
    return _Grid(range(0, IMAGE_SIZE, WINDOW_STEP), WINDOW_SIZE, WINDOW_CELL)


@functools.cache
def _gradient_tables() -> tuple[np.ndarray, np.ndarray]:
    """Magnitude (float32) and orientation bin (uint8) of every gradient, at [row + 255, column + 255].

    Pixels are whole numbers, so there are only 511 × 511 gradients. The formulas, in float64, are scikit-image's:
    angles that fall on the border of two bins then fall to the same side.
    """
    rows, columns = np.mgrid[-255.0:256.0, -255.0:256.0]
    degrees = np.rad2deg(np.arctan2(rows, columns)) % 180
    edges = np.arange(ORIENTATIONS) * (180 / ORIENTATIONS)
    bins = np.searchsorted(edges, degrees, side="right") - 1
    return np.hypot(columns, rows).astype(np.float32), bins.astype(np.uint8)


def _hog(faces: np.ndarray, grid: _Grid) -> np.ndarray:
    """Histograms of oriented gradients (Dalal and Triggs, CVPR 2005) of each window's cells, blocks of one cell.

    Equals `skimage.feature.hog(window, 8, cell, (1, 1))` of every window, with the gradients computed once for all
    windows and the sums over cells as matrix products. faces: (N, 48, 48) uint8. Returns (N, grid.size) float32.
    """
    hog = np.empty((len(faces), grid.size), np.float32)
    for start in range(0, len(faces), 16):  # few at a time: the planes of 16 faces fit a core's cache
        hog[start : start + 16] = _hog_of_few(faces[start : start + 16], grid)
    return hog


def _hog_of_few(faces: np.ndarray, grid: _Grid) -> np.ndarray:
    pixels = faces.astype(np.int16, order="C")  # in another order in memory, BLAS rounds otherwise
    row_gradient = np.zeros_like(pixels)
    row_gradient[:, 1:-1] = pixels[:, 2:] - pixels[:, :-2]
    column_gradient = np.zeros_like(pixels)
    column_gradient[:, :, 1:-1] = pixels[:, :, 2:] - pixels[:, :, :-2]

    magnitudes, bins = _gradient_tables()
    gradient = row_gradient + 255, column_gradient + 255
    magnitude, orientation = magnitudes[gradient], bins[gradient]
    planes = np.where(orientation[:, None] == np.arange(ORIENTATIONS)[:, None, None], magnitude[:, None], np.float32(0))
    sums = grid.inside @ planes @ grid.inside.T  # (N, orientations, cells, cells)
    # On a window's top and bottom border only the column gradient is left, at 0 degrees; on the left and right border
    # only the row gradient, at 90; in the corners nothing.
    sums[:, bins[255, 256]] += grid.border @ np.abs(column_gradient, dtype=np.float32) @ grid.inside.T
    sums[:, bins[256, 255]] += grid.inside @ np.abs(row_gradient, dtype=np.float32) @ grid.border.T

    histograms = sums.reshape(len(faces), ORIENTATIONS, -1)[:, :, grid.order].swapaxes(1, 2) / grid.cell**2
    return _l2_hys(histograms).reshape(len(faces), grid.size)


def _l2_hys(histograms: np.ndarray) -> np.ndarray:
    """Blocks normalized to length 1, cut at 0.2, and normalized again (Lowe's variant); each row is a block."""
    for ceiling in (0.2, None):
        length = np.sqrt(np.square(histograms).sum(axis=-1, keepdims=True) + 1e-10)
        histograms = histograms / length
        if ceiling is not None:
            histograms = np.minimum(histograms, ceiling)
    return histograms


# The shape of one face's row in each of the arrays that conversion writes.
SHAPES: dict[str, tuple[int, ...]] = {
    "landmarks": (LANDMARKS, 2),
    "hog_features": (_face_grid().size,),
    "hog_windows": (_window_grid().size,),
}
