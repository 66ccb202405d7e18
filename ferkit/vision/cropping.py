"""The 48×48 grey face inside a box: level, and with enough contrast."""

import cv2
import numpy as np

from ferkit.constants import IMAGE_SIZE
from ferkit.vision.boxes import Box, touches
from ferkit.vision.pictures import grey

LEVELLED_FROM = 15.0  # degrees of tilt from which a face is turned upright
_LOW_CONTRAST = 100  # grey levels between the darkest and the brightest parts of a face that is to be stretched
_PARTS = (2, 98)  # percentiles of the grey levels that count as these parts
_STRETCHED = (20, 220)  # grey levels that they become: about those of FER2013's faces


def crop_face(
    image: np.ndarray, box: Box, margin: float = 0.0, tilt: float = 0.0, size: int = IMAGE_SIZE
) -> np.ndarray:
    """The square around the box's centre, scaled to a 48×48 grey uint8 face, or to another `size`.

    Its side is the longer side of the box times (1 + margin). Outside the image, the border pixels are repeated. tilt:
    degrees by which the face is turned clockwise; from 15 on, the square is turned with it. If the face has low
    contrast, as in the dark, its grey levels are stretched. A 48×48 box without margin and tilt gives the image's grey
    values otherwise unchanged. Raises ValueError when the square lies wholly outside the image.
    """
    side = max(1, round(max(box.width, box.height) * (1 + margin)))
    left = round(box.x + (box.width - side) / 2)
    top = round(box.y + (box.height - side) / 2)
    height, width = image.shape[:2]
    if not touches(Box(left, top, side, side), image):
        raise ValueError(f"{box} lies outside the {width}×{height} image")
    if abs(tilt) < LEVELLED_FROM:
        face = grey(cut(image, left, top, side))
    else:
        around = side // 4 + 1  # a square of √2 sides holds the turned one
        face = grey(cut(image, left - around, top - around, side + 2 * around))
        face = level(face, tilt)[around : around + side, around : around + side]
    small = _scaled(face, size)
    levels = _stretch(small)
    if levels is None:
        return small
    # Not `small` itself: scaling rounded off what few levels a dark face has.
    return _scaled(cv2.LUT(face, levels), size)


def cut(image: np.ndarray, left: int, top: int, side: int) -> np.ndarray:
    """A square of an image. Outside the image, the border pixels are repeated; a square far outside is moved there."""
    height, width = image.shape[:2]
    left, top = min(max(left, 1 - side), width - 1), min(max(top, 1 - side), height - 1)
    right, bottom = left + side, top + side
    part = image[max(0, top) : bottom, max(0, left) : right]
    over = max(0, -top), max(0, bottom - height), max(0, -left), max(0, right - width)
    return cv2.copyMakeBorder(part, *over, cv2.BORDER_REPLICATE) if any(over) else part


def portrait(image: np.ndarray, face: np.ndarray, side: int, share: float) -> np.ndarray:
    """A square picture of a face and what is around it, upright: `side` pixels wide, the face a `share` of that.

    face: (6,): x, y, width and height of its box, its score, and its tilt in degrees clockwise.
    """
    around = max(1, round(face[2] / share))
    left, top = (face[:2] + face[2:4] / 2 - around / 2).round().astype(int)
    square = cut(image, left, top, around)
    square = cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA if around > side else cv2.INTER_LINEAR)
    return level(square, face[5]) if abs(face[5]) >= LEVELLED_FROM else square


def level(square: np.ndarray, tilt: float) -> np.ndarray:
    """The square turned about its centre, so that a face that is turned by `tilt` degrees clockwise is upright."""
    middle = (len(square) - 1) / 2
    turn = cv2.getRotationMatrix2D((middle, middle), tilt, 1.0)
    return cv2.warpAffine(square, turn, square.shape[1::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _scaled(face: np.ndarray, size: int) -> np.ndarray:
    """A copy of a square with sides of `size` pixels."""
    if len(face) == size:
        return face.copy()
    interpolation = cv2.INTER_AREA if len(face) > size else cv2.INTER_CUBIC
    return cv2.resize(face, (size, size), interpolation=interpolation)


def _stretch(face: np.ndarray) -> np.ndarray | None:
    """What each grey level is to become, (256,) uint8, for the contrast of FER2013's faces; None if it is not low."""
    darkest, brightest = np.percentile(face, _PARTS)
    if not 0 < brightest - darkest < _LOW_CONTRAST:
        return None
    gain = (_STRETCHED[1] - _STRETCHED[0]) / (brightest - darkest)
    return np.clip(np.rint((np.arange(256) - darkest) * gain + _STRETCHED[0]), 0, 255).astype(np.uint8)
