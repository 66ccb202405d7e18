"""The 48×48 grey face inside a box."""

import cv2
import numpy as np

from ferkit.constants import IMAGE_SIZE
from ferkit.vision.boxes import Box, touches
from ferkit.vision.pictures import grey


def crop_face(image: np.ndarray, box: Box, margin: float = 0.0) -> np.ndarray:
    """The square around the box's centre, scaled to a 48×48 grey uint8 face.

    Its side is the longer side of the box times (1 + margin). Outside the image, the border pixels are repeated. A
    48×48 box without margin gives the image's grey values unchanged. Raises ValueError when the square lies wholly
    outside the image.
    """
    side = max(1, round(max(box.width, box.height) * (1 + margin)))
    left = round(box.x + (box.width - side) / 2)
    top = round(box.y + (box.height - side) / 2)
    height, width = image.shape[:2]
    right, bottom = left + side, top + side
    if not touches(Box(left, top, side, side), image):
        raise ValueError(f"{box} lies outside the {width}×{height} image")
    face = grey(image[max(0, top) : bottom, max(0, left) : right])
    over = max(0, -top), max(0, bottom - height), max(0, -left), max(0, right - width)
    if any(over):
        face = cv2.copyMakeBorder(face, *over, cv2.BORDER_REPLICATE)
    if side == IMAGE_SIZE:
        return face.copy()
    interpolation = cv2.INTER_AREA if side > IMAGE_SIZE else cv2.INTER_CUBIC
    return cv2.resize(face, (IMAGE_SIZE, IMAGE_SIZE), interpolation=interpolation)
