"""The geometry of a face: distances and angles between dlib's 68 landmarks, wherever the face lies in its picture.

extract(faces)  # (N, 48, 48) uint8 -> (N, 2394) float32
"""

import functools

import numpy as np

from ferkit.constants import SHAPE_PREDICTOR
from ferkit.features import landmarks
from ferkit.features.landmarks import LANDMARKS, LEFT_EYE, MIRRORED, RIGHT_EYE

# Jaw, brows, ridge of the nose, nose; eyes, outer and inner lips.
OPEN = (range(17), range(17, 22), range(22, 27), range(27, 31), range(31, 36))
CLOSED = (range(36, 42), range(42, 48), range(48, 60), range(60, 68))
PAIRS = np.stack(np.triu_indices(LANDMARKS, 1), axis=1)  # (2278, 2)
# Three landmarks that follow each other along a line: (58, 3).
TURNS = np.array(
    [(line[place - 1], line[place], line[place + 1]) for line in OPEN for place in range(1, len(line) - 1)]
    + [(line[place - 1], line[place], line[(place + 1) % len(line)]) for line in CLOSED for place in range(len(line))]
)
SIZE = len(PAIRS) + 2 * len(TURNS)


def extract(faces: np.ndarray, shape_predictor_path: str = SHAPE_PREDICTOR) -> np.ndarray:
    """The geometry of faces (N, 48, 48) uint8: (N, SIZE) float32. Raises UserError as `landmarks.extract` does."""
    return of_points(landmarks.extract(faces, shape_predictor_path))


def of_points(points: np.ndarray) -> np.ndarray:
    """The geometry of landmarks (N, 68, 2): (N, SIZE) float32.

    First the distance of every two landmarks, in distances between the middles of the eyes; then by how much the lines
    along the jaw, brows, nose, eyes and lips turn at each landmark: the sines, then the cosines, 0 where two neighbours
    lie on one pixel.
    """
    points = points.astype(np.float64)
    eyes = points[:, RIGHT_EYE].mean(axis=1) - points[:, LEFT_EYE].mean(axis=1)
    unit = np.maximum(np.linalg.norm(eyes, axis=1), 1.0)
    distances = np.linalg.norm(points[:, PAIRS[:, 0]] - points[:, PAIRS[:, 1]], axis=2) / unit[:, None]
    before, at, after = (points[:, TURNS[:, place]] for place in range(3))
    come, go = at - before, after - at
    length = np.linalg.norm(come, axis=2) * np.linalg.norm(go, axis=2)
    length[length == 0] = np.inf
    sines = (come[..., 0] * go[..., 1] - come[..., 1] * go[..., 0]) / length
    cosines = (come * go).sum(axis=2) / length
    return np.concatenate([distances, sines, cosines], axis=1).astype(np.float32)


def moved(values: np.ndarray, matrices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """The geometry of moved faces: it changes only when they are mirrored. See landmarks.moved."""
    order, signs = _mirrored()
    mirrored = np.linalg.det(matrices[:, :, :2]) < 0
    result = values.copy()
    result[mirrored] = values[mirrored][:, order] * signs
    return result


@functools.cache
def _mirrored() -> tuple[np.ndarray, np.ndarray]:
    """For each value of a mirrored face: the place of the value of the face that it equals, and their ratio, 1 or -1.

    A line turns to the other side in a mirror, and once more when it is followed from its other end.
    """
    place_of = {tuple(pair): place for place, pair in enumerate(PAIRS.tolist())}
    places = [place_of[min(pair), max(pair)] for pair in ((MIRRORED[a], MIRRORED[b]) for a, b in PAIRS.tolist())]
    turn_of = {tuple(turn): place for place, turn in enumerate(TURNS.tolist())}
    turns, sides = [], []
    for turn in TURNS.tolist():
        there = tuple(MIRRORED[point] for point in turn)
        turns.append(turn_of[there] if there in turn_of else turn_of[there[::-1]])
        sides.append(-1 if there in turn_of else 1)
    order = [*places, *(len(PAIRS) + place for place in turns), *(len(PAIRS) + len(TURNS) + place for place in turns)]
    return np.array(order), np.array([*[1] * len(PAIRS), *sides, *[1] * len(TURNS)], np.float32)
