"""The console commands of the installed package: ferkit-predict, ferkit-train and the others run the scripts.

pip puts the scripts, parameters.py and model.py into `ferkit/scripts`. In the repository they are at the top level.
"""

import importlib
import sys
from pathlib import Path

from ferkit.startup import begin


def _run(script: str) -> int:
    begin()
    package = Path(__file__).resolve().parent
    folder = package / "scripts"
    sys.path.insert(0, str(folder if folder.is_dir() else package.parent))
    return importlib.import_module(script).main()


def convert() -> int:
    return _run("convert_fer2013_to_images_and_landmarks")


def train() -> int:
    return _run("train")


def search() -> int:
    return _run("optimize_hyperparams")


def predict() -> int:
    return _run("predict")


def video() -> int:
    return _run("predict-from-video")


def serve() -> int:
    return _run("serve")


def export() -> int:
    return _run("export_model")


def prepare() -> int:
    return _run("prepare_faces")


def labels() -> int:
    return _run("check_labels")
