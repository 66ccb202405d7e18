"""The registry of face detectors, and the search for faces with one of them.

    for face in find_faces(read_image("party.jpg")):
        print(face.box, face.score, face.tilt)

To add a detector, add an entry to `DETECTORS`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ferkit.vision.boxes import Box, touches

# Faces are recognized best in crops that are this much tighter than FER2013's: benchmarks/benchmark_framing.py.
TIGHTER = 0.85


class Found(NamedTuple):
    """A face that a detector found."""

    box: Box  # the square to be recognized; its sides are upright, even around a tilted face
    score: float  # how sure the detector is, from 0 to 1
    tilt: float  # degrees by which the face is turned clockwise; 0 if the detector does not tell


@dataclass(frozen=True)
class Detector:
    """A face detector, and where the crops to be recognized lie relative to its boxes.

    find: (BGR image (H, W, 3) uint8, **settings) -> faces (N, 4), (N, 5) or (N, 6): x, y, width and height of a box in
    pixels, if known the score from 0 to 1, and the tilt in degrees clockwise. Several threads may call it at the same
    time.
    crop_side: side of the crop, as a multiple of the longer side of the box. crop_shift: how far the crop's centre lies
    below the box's centre, as a multiple of the box's height. benchmarks/benchmark_framing.py measures both.
    settings: which of "confidence", "small_faces", "known" and "model" `find` takes: see `find_faces`.
    """

    find: Callable[..., np.ndarray]
    crop_side: float = 1.0
    crop_shift: float = 0.0
    settings: tuple[str, ...] = ()

    def squares(self, faces: np.ndarray) -> np.ndarray:
        """The faces with the squares around them that are to be recognized: (N, 6), as `find` gives them.

        The shift follows the axis of a tilted face. A score that is not known is 1, a tilt 0.
        """
        rows = np.zeros((len(faces), 6))
        rows[:, 4] = 1
        rows[:, : faces.shape[1]] = faces
        x, y, width, height = faces[:, :4].T
        tilt = np.radians(rows[:, 5])
        side, shift = np.maximum(width, height) * self.crop_side, height * self.crop_shift
        rows[:, 0] = x + width / 2 - shift * np.sin(tilt) - side / 2
        rows[:, 1] = y + height / 2 + shift * np.cos(tilt) - side / 2
        rows[:, 2:4] = side[:, None]
        return rows


def _auto(image: np.ndarray, confidence: float, small_faces: bool, known: Sequence[Box]) -> np.ndarray:
    from ferkit.vision import layers  # imported here, so that no detector needs the packages of another

    by_blazeface, by_libfacedetection = DETECTORS["blazeface"].squares, DETECTORS["libfacedetection"].squares
    return layers.detect(image, confidence, small_faces, known, by_blazeface, by_libfacedetection)


def _blazeface(image: np.ndarray, confidence: float, small_faces: bool) -> np.ndarray:
    from ferkit.vision import blazeface

    return blazeface.detect(image, confidence, small_faces)


def _libfacedetection(image: np.ndarray, confidence: float) -> np.ndarray:
    from ferkit.vision import libfacedetection

    return libfacedetection.detect(image, confidence)


def _yunet(image: np.ndarray, confidence: float, model: str) -> np.ndarray:
    from ferkit.vision import yunet

    return yunet.detect(image, confidence, model)


def _haar(image: np.ndarray) -> np.ndarray:
    from ferkit.vision import haar

    return haar.detect(image)


def _none(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    return np.array([[0.0, 0.0, width, height]])


DETECTORS: dict[str, Detector] = {
    "auto": Detector(_auto, settings=("confidence", "small_faces", "known")),
    "blazeface": Detector(
        _blazeface, crop_side=1.19 * TIGHTER, crop_shift=-0.10, settings=("confidence", "small_faces")
    ),
    "libfacedetection": Detector(_libfacedetection, crop_side=1.01 * TIGHTER, crop_shift=0.0, settings=("confidence",)),
    "yunet": Detector(_yunet, crop_side=1.01 * TIGHTER, crop_shift=0.0, settings=("confidence", "model")),
    "haar": Detector(_haar, crop_side=1.05 * TIGHTER, crop_shift=0.0),
    "none": Detector(_none),
}


def find_faces(
    image: np.ndarray,
    detector: str = "auto",
    confidence: float = 0.6,
    small_faces: bool = False,
    known: Sequence[Box] = (),
    model: str = "",
) -> list[Found]:
    """The faces in a BGR or grey image, left to right.

    image: (H, W, 3) or (H, W) uint8. detector: one of DETECTORS. Those with a score leave out faces with a score below
    `confidence` (0 to 1). With `small_faces`, auto and blazeface find faces from 2% of the image's longer side, without
    it from 4%. known: boxes where the frame before had faces; auto does not check again what it finds there. model:
    the file of YuNet's network. "none" takes the whole picture as a face. Raises ValueError for an unknown detector,
    and UserError when the detector's package or file is missing.
    """
    if detector not in DETECTORS:
        raise ValueError(f"detector is '{detector}', not one of {', '.join(DETECTORS)}")
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    chosen = DETECTORS[detector]
    settings = {"confidence": confidence, "small_faces": small_faces, "known": known, "model": model}
    rows = chosen.find(image, **{name: settings[name] for name in chosen.settings})
    found = [_found(row) for row in chosen.squares(np.asarray(rows, np.float64))]
    return sorted(face for face in found if touches(face.box, image))


def _found(row: np.ndarray) -> Found:
    x, y, width, _, score, tilt = row.tolist()
    side = max(1, round(width))
    return Found(Box(round(x + (width - side) / 2), round(y + (width - side) / 2), side, side), score, tilt)
