"""Writes a saved model as a file for other programs, with preprocessing and calibration inside.

python export_model.py --model_path=ferplus --format=onnx --output=expressions.onnx
python export_model.py --model_path=ferplus --format=tflite --output=expressions.tflite
python export_model.py --format=keras --output=expressions.keras
python export_model.py --format=saved_model --output=expressions/
"""

if __name__ == "__main__":  # Ctrl-C ends the imports below without a traceback
    from ferkit.startup import begin

    begin()

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ferkit.constants import SHIPPED_MODELS
from ferkit.errors import UserError
from ferkit.files import is_same
from ferkit.flags import Parser, add_flags, local_path, override, positive
from ferkit.model_flags import add_model_path, chosen_model
from ferkit.processes import command
from ferkit.settings import check
from parameters import TRAINING, VIDEO_PREDICTOR

DEFAULT = next(iter(SHIPPED_MODELS))
MOST_FACES = 4096  # in one run of an exported model


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    from ferkit import saved_model  # here, so that a missing package gives a one-line error
    from ferkit.ensemble import weights_of
    from ferkit.export import check_output, export

    settings = override(VIDEO_PREDICTOR, arguments)
    check(settings)
    check_output(arguments.format, arguments.output)
    if (arguments.batch or 1) > MOST_FACES:
        raise UserError(f"--batch={arguments.batch}: at most {MOST_FACES} faces in one run")
    chosen = chosen_model(arguments, TRAINING, DEFAULT)
    if len(weights_of(chosen)) > 1:
        raise UserError(f"{chosen} are several models: export one at a time")
    if is_same(arguments.output, saved_model.find(chosen)):
        raise UserError(f"--output={arguments.output} would overwrite the model that is read: name another file")
    model = saved_model.load(chosen)
    export(model, arguments.format, arguments.output, arguments.batch, settings.balance)
    path = Path(arguments.output)
    size = sum(file.stat().st_size for file in path.rglob("*")) if path.is_dir() else path.stat().st_size
    print(f"Wrote {path} ({size / 1e6:.1f} MB): probabilities of {', '.join(model.expressions)}")
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line of this script."""
    parser = Parser(description="Write a saved model as a file for other programs.")
    formats = ("onnx", "tflite", "keras", "saved_model")
    parser.add_argument("--format", choices=formats, required=True, help="what to write; saved_model is TensorFlow's")
    parser.add_argument("--output", type=local_path, required=True, metavar="PATH", help="the file, or the folder")
    help = "number of faces in one run (default: any, and 1 for tflite)"
    parser.add_argument("--batch", type=positive, metavar="N", help=help)
    add_model_path(parser, TRAINING, DEFAULT)
    add_flags(parser, VIDEO_PREDICTOR, "balance")
    return parser


if __name__ == "__main__":
    sys.exit(main())
