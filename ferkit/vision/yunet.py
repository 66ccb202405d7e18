"""Face detection with YuNet by OpenCV, from the file that the user names. Nothing is downloaded."""

import threading
from pathlib import Path

import cv2
import numpy as np

from ferkit.errors import UserError
from ferkit.processes import quiet
from ferkit.vision.pictures import shrunk

_SIDE = 640  # longest side that is searched, in pixels
_OVERLAP = 0.3  # boxes whose intersection is more than this share of their union are one face
_MOST = 5000  # candidates before overlapping ones are merged
_of_thread = threading.local()  # a network of OpenCV is not thread-safe, so each thread has its own


def detect(image: np.ndarray, confidence: float, model: str) -> np.ndarray:
    """The faces in a BGR image (H, W, 3) uint8: (N, 6) of x, y, width and height in pixels, score, and tilt in degrees.

    model: the file of the network. Raises UserError when it is none.
    """
    small = shrunk(image, _SIDE)
    network = _network(model)
    network.setScoreThreshold(confidence)
    network.setInputSize(small.shape[1::-1])
    found = network.detect(small)[1]
    rows = np.zeros((0, 15)) if found is None else found.astype(np.float64)
    scale = image.shape[1] / small.shape[1]
    across, down = (rows[:, 6:8] - rows[:, 4:6]).T  # from the right eye to the left
    tilt = np.degrees(np.arctan2(down, across))
    return np.column_stack([rows[:, :4] * scale, rows[:, 14], tilt])


def _network(model: str) -> cv2.FaceDetectorYN:
    networks: dict[str, cv2.FaceDetectorYN] = _of_thread.__dict__.setdefault("networks", {})
    if model not in networks:
        networks[model] = _load(model)
    return networks[model]


def _load(model: str) -> cv2.FaceDetectorYN:
    if not model:
        raise UserError("--detector=yunet needs its network: name the file with --detector_model=PATH")
    if not Path(model).is_file():
        raise UserError(f"there is no YuNet at {model}: name its file with --detector_model=PATH")
    try:
        content = np.frombuffer(Path(model).read_bytes(), np.uint8)  # OpenCV itself cannot open every path on Windows
        empty = np.empty(0, np.uint8)
        with quiet():  # OpenCV prints what is wrong with a file
            return cv2.FaceDetectorYN.create("onnx", content, empty, (320, 320), nms_threshold=_OVERLAP, top_k=_MOST)
    except OSError as error:
        raise UserError(f"cannot read {model}: {error.strerror or error}") from error
    except cv2.error as error:
        raise UserError(f"{model} is no network of YuNet") from error
