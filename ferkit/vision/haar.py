"""OpenCV's Haar cascade for frontal faces (Viola and Jones, CVPR 2001)."""

import os
import threading

import cv2
import numpy as np

from ferkit.errors import UserError
from ferkit.vision.pictures import grey, shrunk

_SIDE = 640  # longest side that is searched, in pixels: the time grows with the number of pixels
_of_thread = threading.local()  # a cascade is not thread-safe, so each thread has its own


def detect(image: np.ndarray) -> np.ndarray:
    """Boxes (x, y, width, height) of frontal, upright faces from 5% of the image's longer side: (N, 4) float."""
    small = shrunk(image, _SIDE)
    scale = small.shape[1] / image.shape[1]
    level = cv2.equalizeHist(grey(small))  # dim faces have too little contrast for the cascade
    found = _cascade().detectMultiScale(level, scaleFactor=1.1, minNeighbors=3, minSize=(30, 30))
    return np.asarray(found, np.float64).reshape(-1, 4) / scale


def _cascade() -> cv2.CascadeClassifier:
    if not hasattr(_of_thread, "cascade"):
        _of_thread.cascade = _load()
    return _of_thread.cascade


def _load() -> cv2.CascadeClassifier:
    cascade = cv2.CascadeClassifier(
        os.path.join(
            cv2.data.haarcascades,  # type: ignore[attr-defined]
            "haarcascade_frontalface_alt2.xml",
        )
    )
    if cascade.empty():
        raise UserError("OpenCV came without its Haar cascades: reinstall opencv-python, or use --detector=blazeface")
    return cascade
