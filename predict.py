"""Recognizes the expression of every face in a picture.

    python predict.py --image photo.jpg
    python predict.py --image photo.jpg --output annotated.jpg
    python predict.py --image holidays/ portrait.png --json

Exit status: 0 when a face was found, 1 when no face was found, 2 when a picture or the model cannot be read.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ferkit.errors import UserError
from ferkit.flags import Parser, add_flags, add_yes_no, local_path, override
from ferkit.model_flags import add_model_flags, recognizer_of
from ferkit.processes import command, complain
from ferkit.settings import check
from parameters import DATASET, TRAINING, VIDEO_PREDICTOR

if TYPE_CHECKING:
    from ferkit.recognition import Face


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    from ferkit import recognition  # here, so that a missing package gives a one-line error
    from ferkit.vision.albums import each_once, output_paths, pictures
    from ferkit.vision.drawing import draw_faces
    from ferkit.vision.pictures import read_image, write_image

    settings = override(VIDEO_PREDICTOR, arguments)
    check(settings)
    failed = found = False
    albums: dict[str, list[str]] = {}
    for given in arguments.image:
        try:
            albums[given] = pictures(given)
        except UserError as error:
            complain(error)
            failed = True
    paths = each_once(path for album in albums.values() for path in album)
    outputs = output_paths(albums, paths, arguments.output)
    recognizer = recognizer_of(arguments, settings, DATASET, TRAINING)
    for path in paths:
        try:
            image = read_image(path)
            started = time.perf_counter()
            faces = recognizer.recognize(image)
            seconds = time.perf_counter() - started
            if arguments.json:
                print(as_json(path, faces, seconds), flush=True)
            else:
                print(as_text(path, faces, seconds, several=len(paths) > 1), flush=True)
            found = found or bool(faces)
            if path in outputs:
                labels = [recognition.label(face, settings.show_confidence) for face in faces]
                write_image(outputs[path], draw_faces(image, [face.box for face in faces], labels))
        except UserError as error:
            complain(error)
            failed = True
    return 2 if failed else 0 if found else 1


def parser() -> argparse.ArgumentParser:
    """The command line of this script."""
    parser = Parser(description="Recognize the expression of every face in a picture.")
    parser.add_argument("--image", nargs="+", required=True, metavar="PATH", help="pictures, or folders of pictures")
    parser.add_argument(
        "--output",
        type=local_path,
        metavar="PATH",
        help="write the annotated picture to this file; with several pictures, to this folder",
    )
    add_yes_no(parser, "--json", default=False, help="print one line of JSON for each picture instead of text")
    add_model_flags(parser, DATASET, TRAINING)
    names = ("detector", "detection_confidence", "small_faces", "margin", "test_time_augmentation")
    add_flags(parser, VIDEO_PREDICTOR, *names, "show_confidence")
    return parser


def as_text(path: str, faces: Sequence["Face"], seconds: float, several: bool) -> str:
    """A picture's faces as text: with boxes if there are several faces, with the path if there are several pictures."""
    lines = [f"{path}:"] if several else []
    if not faces:
        lines.append("No face found")
    for face in faces:
        box = face.box
        where = f" at x={box.x} y={box.y} width={box.width} height={box.height}" if len(faces) > 1 else ""
        lines.append(f"Prediction: {face.expression} (confidence: {face.confidence:.1%}){where}")
    lines.append(f"Time: {seconds:.3f} s")
    return "\n".join(lines)


def as_json(path: str, faces: Sequence["Face"], seconds: float) -> str:
    """A picture's faces as one line of JSON; a box is x, y, width, height in pixels."""
    rows = [{**dataclasses.asdict(face), "box": list(face.box)} for face in faces]
    return json.dumps({"image": path, "seconds": round(seconds, 4), "faces": rows})


if __name__ == "__main__":
    sys.exit(main())
