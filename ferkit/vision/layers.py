"""Face detection in layers: two networks that find different faces, and that confirm what the other one doubts.

BlazeFace finds tilted and large faces, libfacedetection's network small, crowded and covered ones. What only BlazeFace
finds, or only the other one with a low score, the other one must find too, when it looks at that place alone. So
letters, cups and other things that resemble a face to one network are left out. The thresholds were chosen with
benchmarks/benchmark_faces.py.

Rows are faces (N, 6) as `Detector.find` gives them. They are compared as squares to be recognized, so that the boxes of
both networks mean the same.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from ferkit.vision import blazeface, libfacedetection
from ferkit.vision.boxes import Box, inside_any, overlaps
from ferkit.vision.cropping import LEVELLED_FROM, portrait
from ferkit.vision.pictures import shrunk

Squares = Callable[[np.ndarray], np.ndarray]

_SIDE = 1280  # longest side of the image that is searched, in pixels
_SURE_BLAZEFACE = 0.9  # score from which a find of BlazeFace needs no confirmation where only BlazeFace is installed
_SURE_LIBFACEDETECTION = 0.7
_CONFIRMING_CONFIDENCE = 0.6  # score that libfacedetection's network must give to what BlazeFace doubts
_CONFIRMING_ALONE = 0.85  # score from which that is enough; below, BlazeFace's second network must confirm the face too
_SAME = 0.3  # squares whose intersection is more than this share of their union are one face
_LARGE = 0.4  # share of the image's longer side from which a face is searched again, with a border around the image
_BORDER = 0.5  # its width as a share of the longer side
_LOOK, _FACE = 192, 64  # sides of the picture in which libfacedetection confirms a face, and of the face there


def detect(
    image: np.ndarray,
    confidence: float,
    small_faces: bool,
    known: Sequence[Box],
    by_blazeface: Squares,
    by_libfacedetection: Squares,
) -> np.ndarray:
    """The faces in a BGR image (H, W, 3) uint8 as squares: (N, 6). See `detection.find_faces`.

    by_blazeface, by_libfacedetection: make squares of what each network finds. Without the package of
    libfacedetection, BlazeFace's second network confirms.
    """
    small = shrunk(image, _SIDE)
    scale = image.shape[1] / small.shape[1]
    two = libfacedetection.installed()
    faces = by_blazeface(blazeface.detect(small, confidence, small_faces and not two))
    others = np.empty((0, 6))
    if small_faces and two:
        others = by_libfacedetection(libfacedetection.detect(small, confidence))
    longer = max(small.shape[:2])
    if max((*faces[:, 2], *others[:, 2]), default=longer) > _LARGE * longer:
        large = by_blazeface(_with_border(small, confidence))
        faces = _rows([*large, *(row for row in faces if not inside_any(row, large))])
    seen = np.array(known, np.float64).reshape(-1, 4) / scale
    kept = []
    for row in faces:
        same = overlaps(row, others) > _SAME
        if same.any() and abs(row[5]) < LEVELLED_FROM:
            row[:4] = others[same.argmax(), :4]
        row[4] = max((row[4], *others[same, 4]))
        others = others[~same]
        sure = same.any() or (overlaps(row, seen) > _SAME).any() or (row[4] >= _SURE_BLAZEFACE and not two)
        if sure or (_looks_like_a_face(small, row, by_libfacedetection) if two else blazeface.confirms(small, row)):
            kept.append(row)
    kept += [row for row in others if row[4] >= _SURE_LIBFACEDETECTION or blazeface.confirms(small, row)]
    return _rows(kept) * (*[scale] * 4, 1, 1)


def _rows(faces: Sequence[np.ndarray]) -> np.ndarray:
    return np.reshape(np.array(faces, np.float64), (-1, 6))


def _with_border(image: np.ndarray, confidence: float) -> np.ndarray:
    """What BlazeFace finds in the image with a black border: also faces that fill the image."""
    border = round(max(image.shape[:2]) * _BORDER)
    bordered = cv2.copyMakeBorder(image, border, border, border, border, cv2.BORDER_CONSTANT)
    faces = blazeface.detect(bordered, confidence, small_faces=False)
    return faces - (border, border, 0, 0, 0, 0)


def _looks_like_a_face(image: np.ndarray, row: np.ndarray, squares: Squares) -> bool:
    """Whether libfacedetection's network finds a face at `row`, when it looks at that place alone, upright.

    If it is not sure, BlazeFace's second network must find the face too.
    """
    look = portrait(image, row, _LOOK, _FACE / _LOOK)
    start = (_LOOK - _FACE) / 2
    finds = squares(libfacedetection.detect(look, _CONFIRMING_CONFIDENCE))
    score = finds[overlaps(np.array([start, start, _FACE, _FACE]), finds) > _SAME, 4].max(initial=0)
    return bool(score >= _CONFIRMING_ALONE or (score > 0 and blazeface.confirms(image, row)))
