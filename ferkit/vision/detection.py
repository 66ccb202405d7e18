"""The registry of face detectors, and the search for faces with one of them.

    boxes = find_faces(read_image("party.jpg"))

To add a detector, add an entry to `DETECTORS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ferkit.vision.boxes import Box, touches


@dataclass(frozen=True)
class Detector:
    """A face detector, and where FER2013's crops lie relative to its boxes.

    find: (BGR image (H, W, 3) uint8, **settings) -> boxes (N, 4) of x, y, width and height in pixels. Several threads
    may call it at the same time.
    crop_side: side of FER2013's crop, as a multiple of the box's side. crop_shift: how far the crop's centre lies
    below the box's centre, as a multiple of the box's height. Both are medians that benchmarks/benchmark_detection.py
    measures.
    settings: which of "confidence" and "small_faces" `find` takes.
    """

    find: Callable[..., np.ndarray]
    crop_side: float
    crop_shift: float
    settings: tuple[str, ...] = ()

    def crop_box(self, box: np.ndarray) -> Box:
        """The square that FER2013 would have cut around a box of this detector."""
        x, y, width, height = box
        side = round(float(max(width, height)) * self.crop_side)
        left = x + width / 2 - side / 2
        top = y + height / 2 + self.crop_shift * height - side / 2
        return Box(round(float(left)), round(float(top)), side, side)


def _blazeface(image: np.ndarray, confidence: float, small_faces: bool) -> np.ndarray:
    from ferkit.vision import blazeface  # imported here, so that the other detectors need no LiteRT

    return blazeface.detect(image, confidence, small_faces)


def _haar(image: np.ndarray) -> np.ndarray:
    from ferkit.vision import haar

    return haar.detect(image)


DETECTORS: dict[str, Detector] = {
    "blazeface": Detector(_blazeface, crop_side=1.19, crop_shift=-0.10, settings=("confidence", "small_faces")),
    "haar": Detector(_haar, crop_side=1.05, crop_shift=0.0),
}


def find_faces(
    image: np.ndarray, detector: str = "blazeface", confidence: float = 0.6, small_faces: bool = False
) -> list[Box]:
    """The faces in a BGR or grey image, left to right, each as the square that FER2013 would have cut.

    image: (H, W, 3) or (H, W) uint8. detector: one of DETECTORS. BlazeFace leaves out faces with a score below
    `confidence` (0 to 1), and finds faces from 4% of the image's longer side. With `small_faces` it finds faces from
    2%, and takes about six times as long. Haar has neither setting. Raises ValueError for an unknown detector.
    """
    if detector not in DETECTORS:
        raise ValueError(f"detector is '{detector}', not one of {', '.join(DETECTORS)}")
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    chosen = DETECTORS[detector]
    settings: dict[str, Any] = {"confidence": confidence, "small_faces": small_faces}
    found = chosen.find(image, **{name: settings[name] for name in chosen.settings})
    boxes = [chosen.crop_box(box) for box in found]
    return sorted(box for box in boxes if touches(box, image))
