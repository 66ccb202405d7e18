"""The flags of the commands that recognize, and the recognizer that they choose.

add_model_flags(parser, DATASET, TRAINING)
recognizer = recognizer_of(parser.parse_args(argv), VIDEO_PREDICTOR, DATASET, TRAINING)
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ferkit.constants import DEFAULT_MODEL, MIXTURES, SHIPPED_MODELS
from ferkit.flags import add_flags, either, local_path, override
from ferkit.settings import DatasetPaths, Training, VideoPredictor

if TYPE_CHECKING:
    from ferkit.recognition import Recognizer


def add_model_flags(parser: Any, dataset: DatasetPaths, training: Training) -> None:
    """Adds the flags that choose the model for recognition; `recognizer_of` reads them."""
    add_model_path(parser, training)
    add_flags(parser, dataset, "shape_predictor_path")


def add_model_path(parser: Any, training: Training, default: str = DEFAULT_MODEL) -> None:
    """Adds the flag that names a saved model; `chosen_model` reads it. default: while there is no trained model."""
    included = (*MIXTURES, *SHIPPED_MODELS) if default in MIXTURES else SHIPPED_MODELS
    several = ", or several joined by a plus" if default in MIXTURES else ""
    help = (
        f"the model: a file, or {either(included)} for an included one{several} (default: "
        f"{training.save_model_path}, or {default} while there is none)"
    )
    parser.add_argument("--model_path", "--save_model_path", type=local_path, metavar="PATH", help=help)


def recognizer_of(
    arguments: argparse.Namespace, settings: VideoPredictor, dataset: DatasetPaths, training: Training
) -> "Recognizer":
    """The recognizer that the flags of `add_model_flags` choose. Prints a note for the shipped model."""
    from ferkit.recognition import Recognizer  # here, so that the parser needs neither NumPy nor LiteRT

    chosen = chosen_model(arguments, training)
    return Recognizer(chosen, settings, override(dataset, arguments).shape_predictor_path)


def chosen_model(arguments: argparse.Namespace, training: Training, default: str = DEFAULT_MODEL) -> Path:
    """The path or short name of the model that `--model_path` chooses. Prints a note for the default."""
    from ferkit.recognition import model_to_use

    given, path = arguments.model_path, training.save_model_path
    chosen = Path(given) if given is not None else model_to_use(path, default)
    if given is None and chosen != Path(path):
        print(f"note: no trained model at {path} yet: using the included model {default}", file=sys.stderr)
    return chosen
