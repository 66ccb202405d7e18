"""Bags of visual words: which words of a vocabulary occur where in 48×48 grey faces.

    vocabulary = learn(faces)                # of the training faces
    extract(faces, vocabulary)               # (N, 48, 48) uint8 -> (N, 2688) float32

A word is a kind of SIFT descriptor (Lowe, IJCV 2004), which describes the gradients in a window. The windows cover the
face densely, and the words are counted in the cells of a spatial pyramid (Lazebnik et al., CVPR 2006). On FER2013:
Ionescu et al., ICML workshop 2013.
"""

import base64
import functools
import warnings
from typing import TYPE_CHECKING

import numpy as np

from ferkit.constants import IMAGE_SIZE

if TYPE_CHECKING:
    import cv2

WINDOW = 16  # pixels
STEP = 4  # pixels between two windows
WORDS = 128
PYRAMID = (1, 2, 4)  # cells along each side of the face
DESCRIPTOR = 128  # numbers, from 0 to 255
SIZE = WORDS * sum(cells**2 for cells in PYRAMID)
LEARNED_FACES = 1000  # the vocabulary is learned from, drawn at random
SEED = 0  # chooses these, and begins the search for the words


def learn(faces: np.ndarray) -> str:
    """The vocabulary of these faces (N, 48, 48) uint8: the centres of the descriptors' clusters, as base64."""
    from sklearn.cluster import KMeans  # imported here, because prediction does not need it
    from threadpoolctl import threadpool_limits

    chosen = np.random.default_rng(SEED).permutation(len(faces))[:LEARNED_FACES]
    samples = descriptors(faces[np.sort(chosen)]).reshape(-1, DESCRIPTOR)
    with warnings.catch_warnings(), threadpool_limits(1):  # the sums of more threads depend on their number
        warnings.simplefilter("ignore")  # a few blank faces have fewer kinds of windows than there are words
        centres = KMeans(WORDS, n_init=1, max_iter=50, random_state=SEED).fit(samples).cluster_centers_
    return base64.b64encode(np.rint(centres).astype(np.uint8).tobytes()).decode()


def extract(faces: np.ndarray, vocabulary: str) -> np.ndarray:
    """The share of each word in each cell: (N, 48, 48) uint8 -> (N, SIZE) float32. Cells by row, the largest first.

    Raises ValueError for a vocabulary that `learn` does not give.
    """
    words = np.frombuffer(base64.b64decode(vocabulary, validate=True), np.uint8).reshape(WORDS, DESCRIPTOR)
    words = words.astype(np.float32)
    middles = _middles()
    shares = np.empty((len(faces), SIZE), np.float32)
    for face, row in zip(faces, shares, strict=True):
        nearest = nearest_words(descriptors(face[None])[0], words)
        start = 0
        for cells in PYRAMID:
            places = (middles * cells // IMAGE_SIZE).astype(int)
            cell = places[:, 1] * cells + places[:, 0]
            counts = np.bincount(cell * WORDS + nearest, minlength=cells**2 * WORDS).reshape(-1, WORDS)
            row[start : start + counts.size] = (counts / counts.sum(axis=1, keepdims=True)).ravel()
            start += counts.size
    return shares


def nearest_words(samples: np.ndarray, words: np.ndarray) -> np.ndarray:
    """The word nearest to each descriptor (M, 128), M a multiple of 16: (M,) from 0. Of equally near words, the first.

    All sums are whole numbers below 2²⁴, so float32 is exact.
    """
    few = samples.reshape(-1, 16, DESCRIPTOR)  # BLAS shares larger products among threads, which takes longer
    return ((words**2).sum(axis=1) - 2 * (few @ words.T)).reshape(-1, WORDS).argmin(axis=1)


def descriptors(faces: np.ndarray) -> np.ndarray:
    """OpenCV's SIFT descriptors of the windows, row by row: (N, 48, 48) uint8 -> (N, windows, 128) float32."""
    import cv2  # imported here, because the other features do not need it

    sift, windows = cv2.SIFT.create(), _windows()
    found = np.empty((len(faces), len(windows), DESCRIPTOR), np.float32)
    for face, rows in zip(faces, found, strict=True):
        rows[:] = sift.compute(np.ascontiguousarray(face), windows)[1]
    return found


def _middles() -> np.ndarray:
    """The middles of the windows, x and y: (windows, 2)."""
    line = np.arange(STEP / 2, IMAGE_SIZE, STEP)
    return np.stack([np.tile(line, len(line)), np.repeat(line, len(line))], axis=1)


@functools.cache
def _windows() -> list["cv2.KeyPoint"]:
    import cv2

    # A descriptor has 4×4 parts, each three times as wide as half of the size of the key point.
    return [cv2.KeyPoint(float(x), float(y), WINDOW / 6, 0) for x, y in _middles()]
