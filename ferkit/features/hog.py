"""Histograms of oriented gradients (HOG) of 48×48 grey faces: of the whole face, and of windows that slide over it.

    windows(faces)  # (N, 48, 48) uint8 -> (N, 2592) float32

The functions take a stack of faces, so that the work is done on many faces at once.
"""

import functools

import numpy as np

from ferkit.constants import IMAGE_SIZE

ORIENTATIONS = 8  # bins over 180 degrees
FACE_CELL = 16  # pixels: the whole face in 3×3 cells
WINDOW_SIZE = 24  # pixels, cut off at the right and bottom edge of the face
WINDOW_STEP = 6
WINDOW_CELL = 8


def face(faces: np.ndarray) -> np.ndarray:
    """HOG of the whole face: (N, 48, 48) uint8 -> (N, 72) float32."""
    return _hog(faces, _face_grid())


def windows(faces: np.ndarray) -> np.ndarray:
    """HOG of each window that slides over the face, row by row: (N, 48, 48) uint8 -> (N, 2592) float32."""
    return _hog(faces, _window_grid())


class _Grid:
    """Windows along one axis of the face, each divided into whole cells; the other axis is divided alike.

    A window is treated as a picture of its own, so the gradient across its border is zero. Each cell's sum therefore
    consists of two sums: over its pixels inside the window, and over its pixels on the window's border.
    """

    def __init__(self, starts: range, window: int, cell: int):
        self.cell = cell
        inside: list[np.ndarray] = []
        border: list[np.ndarray] = []
        cells_of_window: list[range] = []
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
        # All cells are computed as one table. `order` sorts them by window row, window column, cell row, cell column.
        count = len(inside)
        self.order = np.array(
            [row * count + column for r in cells_of_window for c in cells_of_window for row in r for column in c]
        )
        self.size = len(self.order) * ORIENTATIONS


@functools.cache
def _face_grid() -> _Grid:
    return _Grid(range(1), IMAGE_SIZE, FACE_CELL)


@functools.cache
def _window_grid() -> _Grid:
    return _Grid(range(0, IMAGE_SIZE, WINDOW_STEP), WINDOW_SIZE, WINDOW_CELL)


@functools.cache
def _gradient_tables() -> tuple[np.ndarray, np.ndarray]:
    """Magnitude (float32) and orientation bin (uint8) of every gradient, at [row + 255, column + 255].

    Pixels are whole numbers, so there are only 511 × 511 gradients. The formulas are scikit-image's, in float64, so
    that angles on the border of two bins get the same bin as there.
    """
    rows, columns = np.mgrid[-255.0:256.0, -255.0:256.0]
    degrees = np.rad2deg(np.arctan2(rows, columns)) % 180
    edges = np.arange(ORIENTATIONS) * (180 / ORIENTATIONS)
    bins = np.searchsorted(edges, degrees, side="right") - 1
    return np.hypot(columns, rows).astype(np.float32), bins.astype(np.uint8)


def _hog(faces: np.ndarray, grid: _Grid) -> np.ndarray:
    """Histograms of oriented gradients (Dalal and Triggs, CVPR 2005) of each window's cells, in blocks of one cell.

    Equals `skimage.feature.hog(window, 8, cell, (1, 1))` of every window, but computes the gradients once for all
    windows and the sums over cells as matrix products. faces: (N, 48, 48) uint8. Returns (N, grid.size) float32.
    """
    hog = np.empty((len(faces), grid.size), np.float32)
    for start in range(0, len(faces), 16):  # the planes of 16 faces fit into a core's cache
        hog[start : start + 16] = _hog_of_few(faces[start : start + 16], grid)
    return hog


def _hog_of_few(faces: np.ndarray, grid: _Grid) -> np.ndarray:
    pixels = faces.astype(np.int16, order="C")  # BLAS rounds differently for another memory order
    row_gradient = np.zeros_like(pixels)
    row_gradient[:, 1:-1] = pixels[:, 2:] - pixels[:, :-2]
    column_gradient = np.zeros_like(pixels)
    column_gradient[:, :, 1:-1] = pixels[:, :, 2:] - pixels[:, :, :-2]

    magnitudes, bins = _gradient_tables()
    gradient = row_gradient + 255, column_gradient + 255
    magnitude, orientation = magnitudes[gradient], bins[gradient]
    planes = np.where(orientation[:, None] == np.arange(ORIENTATIONS)[:, None, None], magnitude[:, None], np.float32(0))
    sums = grid.inside @ planes @ grid.inside.T  # (N, orientations, cells, cells)
    # The top and bottom borders of a window have only the column gradient, at 0 degrees. The left and right borders
    # have only the row gradient, at 90 degrees. The corners have none.
    sums[:, bins[255, 256]] += grid.border @ np.abs(column_gradient, dtype=np.float32) @ grid.inside.T
    sums[:, bins[256, 255]] += grid.inside @ np.abs(row_gradient, dtype=np.float32) @ grid.border.T

    histograms = sums.reshape(len(faces), ORIENTATIONS, -1)[:, :, grid.order].swapaxes(1, 2) / grid.cell**2
    return _l2_hys(histograms).reshape(len(faces), grid.size)


def _l2_hys(histograms: np.ndarray) -> np.ndarray:
    """L2-Hys: each row (block) is normalized to length 1, clipped at 0.2, and normalized again (Lowe's variant)."""
    for ceiling in (0.2, None):
        length = np.sqrt(np.square(histograms).sum(axis=-1, keepdims=True) + 1e-10)
        histograms = histograms / length
        if ceiling is not None:
            histograms = np.minimum(histograms, ceiling)
    return histograms


FACE_SIZE = _face_grid().size  # how many numbers one face has
WINDOWS_SIZE = _window_grid().size
