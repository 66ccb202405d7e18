"""Histograms of local binary patterns (LBP) of 48×48 grey faces.

    extract(faces)  # (N, 48, 48) uint8 -> (N, 2124) float32

A pattern says which of eight points on a circle of one pixel are at least as bright as the pixel in its middle (Ojala
et al., PAMI 2002). Patterns with more than two changes around the circle share one code; the others have one each, so
that there are 59 codes (Ahonen et al., PAMI 2006).
"""

import functools

import numpy as np

from ferkit.constants import IMAGE_SIZE

POINTS = 8
CODES = POINTS * (POINTS - 1) + 3
CELL = 8  # pixels: the face in 6×6 cells
CELLS = IMAGE_SIZE // CELL
SIZE = CELLS * CELLS * CODES
# The points between the pixels are interpolated with whole numbers, so that equal brightness is always recognized.
_NEAR, _WHOLE = 70711, 100000  # the sine of 45 degrees
_FEW = 64  # faces computed at a time


def extract(faces: np.ndarray) -> np.ndarray:
    """The share of each code in each cell of the face, row by row: (N, 48, 48) uint8 -> (N, SIZE) float32."""
    places = np.arange(IMAGE_SIZE) // CELL
    cells = (places[:, None] * CELLS + places) * CODES
    shares = np.empty((len(faces), SIZE), np.float32)
    for start in range(0, len(faces), _FEW):
        few = codes(faces[start : start + _FEW])
        bins = few + cells + np.arange(len(few))[:, None, None] * SIZE
        counts = np.bincount(bins.ravel(), minlength=len(few) * SIZE)
        shares[start : start + _FEW] = counts.reshape(-1, SIZE) / CELL**2
    return shares


def codes(faces: np.ndarray) -> np.ndarray:
    """The code of each pixel: (N, 48, 48) uint8 -> (N, 48, 48), 0 to 58.

    They are those of `skimage.feature.local_binary_pattern(face, 8, 1, "nri_uniform")`, where outside of the face is
    black, without its rounding errors: it may take a point for darker than a pixel of the same brightness.
    """
    padded = np.pad(faces.astype(np.int64), ((0, 0), (1, 1), (1, 1)))

    def neighbour(down: int, right: int) -> np.ndarray:
        return padded[:, 1 + down : 1 + down + IMAGE_SIZE, 1 + right : 1 + right + IMAGE_SIZE]

    middle, far = neighbour(0, 0), _WHOLE - _NEAR
    patterns = np.zeros(faces.shape, np.int64)
    for bit, (down, right) in enumerate(_CIRCLE):
        if down and right:
            beside = neighbour(down, 0) + neighbour(0, right)
            point = _NEAR**2 * neighbour(down, right) + _NEAR * far * beside + far**2 * middle
            brighter = point >= _WHOLE**2 * middle
        else:
            brighter = neighbour(down, right) >= middle
        patterns |= brighter.astype(np.int64) << bit
    return _table()[patterns]


_CIRCLE = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))  # from the right, anticlockwise


@functools.cache
def _table() -> np.ndarray:
    """The code of each of the 256 patterns."""
    table = np.full(2**POINTS, CODES - 1)
    table[0], table[-1] = 0, CODES - 2
    for ones in range(1, POINTS):
        for turned in range(POINTS):
            bits = [(place + turned) % POINTS for place in range(ones)]
            table[sum(1 << bit for bit in bits)] = 1 + (ones - 1) * POINTS + (POINTS - turned) % POINTS
    return table
