"""Rectangles in a picture."""

from typing import NamedTuple

import numpy as np


class Box(NamedTuple):
    """A rectangle in an image, in pixels from its top left corner. It may extend beyond the image's border."""

    x: int
    y: int
    width: int
    height: int


def touches(box: Box, image: np.ndarray) -> bool:
    """Whether a part of the box lies inside the image (H, W, …)."""
    height, width = image.shape[:2]
    return box.x < width and box.y < height and box.x + box.width > 0 and box.y + box.height > 0


def common_area(one: Box, other: Box) -> int:
    """The number of pixels that two boxes share."""
    width = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
    height = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
    return max(0, width) * max(0, height)


def overlaps(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of one box with each of `boxes`: (4+,), (N, 4+) -> (N,). Further columns do not count."""
    starts = np.maximum(box[:2], boxes[:, :2])
    ends = np.minimum(box[:2] + box[2:4], boxes[:, :2] + boxes[:, 2:4])
    intersections = np.clip(ends - starts, 0, None).prod(axis=1)
    return intersections / (box[2:4].prod() + boxes[:, 2:4].prod(axis=1) - intersections)


def inside_any(box: np.ndarray, boxes: np.ndarray) -> bool:
    """Whether the centre of `box` (4+,) lies in one of `boxes` (N, 4+)."""
    middle = box[:2] + box[2:4] / 2
    return bool(((boxes[:, :2] <= middle) & (middle <= boxes[:, :2] + boxes[:, 2:4])).all(axis=1).any())
