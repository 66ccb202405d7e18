"""Energies of Gabor filters in 48×48 grey faces: how strong the stripes of each width and direction are, and where.

extract(faces)  # (N, 48, 48) uint8 -> (N, 1152) float32
"""

import functools
import math

import numpy as np

from ferkit.constants import IMAGE_SIZE

FREQUENCIES = (1 / 4, 1 / (4 * math.sqrt(2)), 1 / 8, 1 / (8 * math.sqrt(2)))  # stripes in a pixel
DIRECTIONS = 8  # over 180 degrees
BANDWIDTH = 1.0  # octaves
DEVIATIONS = 3  # standard deviations of its bell after which a filter is cut off
CELL = 8  # pixels: the face in 6×6 cells
CELLS = IMAGE_SIZE // CELL
SIZE = len(FREQUENCIES) * DIRECTIONS * CELLS * CELLS


def extract(faces: np.ndarray) -> np.ndarray:
    """The mean magnitude of each filter's answers in each cell: (N, 48, 48) uint8 -> (N, SIZE) float32.

    By frequency, direction, then cell by row. The answers are those of `skimage.filters.gabor(face, frequency, angle)`.
    """
    # Products of real matrices: BLAS would share complex ones of this size among threads, which takes longer.
    down_real, down_imaginary, across_real, across_imaginary = _filters()
    energies = np.empty((len(faces), len(down_real), CELLS, CELLS), np.float32)
    for face, energy in zip(faces, energies, strict=True):
        pixels = face.astype(np.float32, order="C")
        half_real, half_imaginary = down_real @ pixels, down_imaginary @ pixels
        real = half_real @ across_real - half_imaginary @ across_imaginary
        imaginary = half_real @ across_imaginary + half_imaginary @ across_real
        answers = np.sqrt(real**2 + imaginary**2)
        energy[:] = answers.reshape(-1, CELLS, CELL, CELLS, CELL).mean(axis=(2, 4))
    return energies.reshape(len(faces), SIZE)


@functools.cache
def _filters() -> tuple[np.ndarray, ...]:
    """Matrices (filters, 48, 48) float32 that filter a face's columns from the left, and its rows from the right.

    Each as its real and its imaginary part. The bell of a filter is round, so that the filter is a product of one along
    the columns and one along the rows.
    """
    octaves = 2**BANDWIDTH
    down, across = [], []
    for frequency in FREQUENCIES:
        deviation = math.sqrt(math.log(2) / 2) / math.pi * (octaves + 1) / (octaves - 1) / frequency
        for direction in range(DIRECTIONS):
            angle = direction * math.pi / DIRECTIONS
            down.append(_along(frequency, deviation, math.sin(angle), math.cos(angle)))
            across.append(_along(frequency, deviation, math.cos(angle), math.sin(angle)).T)
    parts = (down, np.real), (down, np.imag), (across, np.real), (across, np.imag)
    return tuple(np.ascontiguousarray(part(matrices), np.float32) for matrices, part in parts)


def _along(frequency: float, deviation: float, share: float, other: float) -> np.ndarray:
    """A matrix (48, 48) complex that filters along one axis. Beyond its ends the face is mirrored.

    share: of the filter's direction in this axis. other: in the other axis.
    """
    reach = math.ceil(max(DEVIATIONS * deviation * max(abs(share), abs(other)), 1))
    offsets = np.arange(-reach, reach + 1)
    bell = np.exp(-0.5 * (offsets / deviation) ** 2) / (math.sqrt(2 * math.pi) * deviation)
    answers = bell * np.exp(2j * np.pi * frequency * share * offsets)
    mirrored = np.concatenate([np.arange(IMAGE_SIZE), np.arange(IMAGE_SIZE)[::-1]])
    matrix = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.complex128)
    for place in range(IMAGE_SIZE):
        np.add.at(matrix[place], mirrored[(place - offsets) % (2 * IMAGE_SIZE)], answers)
    return matrix
