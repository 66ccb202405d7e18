"""Facial expression recognition: the library behind the scripts.

from ferkit import Recognizer
for face in Recognizer().recognize(frame):
    print(face.expression, face.confidence, face.box, face.probabilities)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ferkit.errors import UserError
    from ferkit.recognition import Face, Recognizer
    from ferkit.settings import VideoPredictor
    from ferkit.vision.boxes import Box

__all__ = ["Box", "Face", "Recognizer", "UserError", "VideoPredictor"]

_MODULES = {
    "Box": "ferkit.vision.boxes",
    "Face": "ferkit.recognition",
    "Recognizer": "ferkit.recognition",
    "UserError": "ferkit.errors",
    "VideoPredictor": "ferkit.settings",
}


def __getattr__(name: str) -> Any:
    """Imports a name on first use, so that `ferkit.flags` can be imported without NumPy and OpenCV."""
    if name not in _MODULES:
        raise AttributeError(f"module 'ferkit' has no attribute '{name}'")
    import importlib

    from ferkit.processes import cure_of_missing

    try:
        module = importlib.import_module(_MODULES[name])
    except ModuleNotFoundError as error:
        if cure := cure_of_missing(error):
            raise ImportError(cure) from error
        raise
    return getattr(module, name)
