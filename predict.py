"""Recognizes the expression of every face in a picture.

    python predict.py --image photo.jpg
    python predict.py --image photo.jpg --output annotated.jpg
    python predict.py --image holidays/ portrait.png --json

Exit status: 0 when a face was found, 1 when none was, 2 when a picture or the model cannot be read.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import imutils.paths
import numpy as np

import features
import saved_model
from command_line import UserError, add_flags, add_yes_no, command, override
from faces import Box, crop_face, draw_faces, find_faces, read_image, write_image
from parameters import DATASET, EMOTIONS, IMAGE_SIZE, TRAINING, VIDEO_PREDICTOR, VideoPredictor


@dataclasses.dataclass(frozen=True)
class Face:
    """A face in a picture, with what the model says of its expression."""

    box: Box
    expression: str
    confidence: float  # probability of `expression`
    probabilities: dict[str, float]  # of every expression


class Recognizer:
    """A saved model at work on pictures.

    Raises UserError when the model at `model_path` cannot be used. All it knows of the network, of the features it
    wants and of the expressions' names and order it reads from the saved model.
    """

    def __init__(
        self, model_path: str, settings: VideoPredictor, shape_predictor_path: str = DATASET.shape_predictor_path
    ):
        self.model = saved_model.load(model_path)
        self.settings = settings
        self.shape_predictor_path = shape_predictor_path

    def recognize(self, image: np.ndarray) -> list[Face]:
        """The faces in a BGR picture (H, W, 3) uint8. A picture of 48×48 pixels is a face itself."""
        if image.shape[:2] == (IMAGE_SIZE, IMAGE_SIZE):
            boxes = [Box(0, 0, IMAGE_SIZE, IMAGE_SIZE)]
            crops = [cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)]
        else:
            boxes = find_faces(
                image, self.settings.detector, self.settings.detection_confidence, self.settings.small_faces
            )
            crops = [crop_face(image, box, self.settings.margin) for box in boxes]
        return self.classify(boxes, crops)

    def classify(self, boxes: Sequence[Box], crops: Sequence[np.ndarray]) -> list[Face]:
        """The expressions of 48×48 grey uint8 faces, in one run of the network."""
        if not crops:
            return []
        faces = np.stack(crops)
        kind = self.model.features
        vectors = features.extract(faces, kind, self.shape_predictor_path) if kind != "none" else None
        names = self.model.expressions
        return [
            Face(box, names[row.argmax()], float(row.max()), dict(zip(names, map(float, row), strict=True)))
            for box, row in zip(boxes, self.model.predict(faces, vectors), strict=True)
        ]


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    settings = override(VIDEO_PREDICTOR, arguments)
    paths = list(pictures(arguments.image))
    several = len(paths) > 1
    check_output(arguments.output, several)
    recognizer = Recognizer(arguments.model_path, settings, override(DATASET, arguments).shape_predictor_path)
    warn_of_other_names(settings.emotions, recognizer.model.expressions)
    failed = found = False
    for path in paths:
        try:
            image = read_image(path)
            started = time.perf_counter()
            faces = recognizer.recognize(image)
            seconds = time.perf_counter() - started
            if arguments.output:
                output = Path(arguments.output) / Path(path).name if several else Path(arguments.output)
                labels = [label(face, settings.show_confidence) for face in faces]
                write_image(output, draw_faces(image, [face.box for face in faces], labels))
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            failed = True
            continue
        found = found or bool(faces)
        print(as_json(path, faces, seconds) if arguments.json else as_text(path, faces, seconds, several), flush=True)
    return 2 if failed else 0 if found else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Recognize the expression of every face in a picture.")
    parser.add_argument("--image", nargs="+", required=True, metavar="PATH", help="pictures, or folders of pictures")
    parser.add_argument("--output", metavar="PATH", help="write the annotated picture here; of several, a folder")
    add_yes_no(parser, "--json", default=False, help="print a line of JSON for each picture")
    model_path = TRAINING.save_model_path
    parser.add_argument("--model_path", default=model_path, metavar="PATH", help=f"the model (default: {model_path})")
    names = ("detector", "detection_confidence", "small_faces", "margin", "show_confidence")
    add_flags(parser, VIDEO_PREDICTOR, *names)
    add_flags(parser, DATASET, "shape_predictor_path")
    return parser


def pictures(paths: Iterable[str]) -> Iterator[str]:
    """The files among `paths`, and the pictures inside the folders among them, in the order of their names."""
    for path in paths:
        if not Path(path).is_dir():
            yield path
            continue
        inside = sorted(imutils.paths.list_images(path))
        if not inside:
            raise UserError(f"no picture in the folder {path}")
        yield from inside


def check_output(output: str | None, several: bool) -> None:
    """Raises UserError where the annotated pictures could not be told apart, or overwrite something else."""
    if output is not None and several and Path(output).is_file():
        raise UserError(f"{output} is a file: for several pictures --output must be a folder")
    if output is not None and not several and Path(output).is_dir():
        raise UserError(f"{output} is a folder: for one picture --output must be a file, like annotated.jpg")


def warn_of_other_names(emotions: Sequence[str], expressions: Sequence[str]) -> None:
    """Says so when VIDEO_PREDICTOR.emotions was edited and is not what the model was trained on."""
    if tuple(emotions) not in (EMOTIONS, tuple(expressions)):
        print(
            f"note: VIDEO_PREDICTOR.emotions is {', '.join(emotions)}, but the model was trained on "
            f"{', '.join(expressions)}: the model's names are used",
            file=sys.stderr,
        )


def label(face: Face, show_confidence: bool) -> str:
    """What is written beside a face: `Happy 97%`."""
    return f"{face.expression} {face.confidence:.0%}" if show_confidence else face.expression


def as_text(path: str, faces: Sequence[Face], seconds: float, several: bool) -> str:
    """A picture's faces for a reader; with their boxes where there is more than one, or none that is obvious."""
    lines = [f"{path}:"] if several else []
    if not faces:
        lines.append("No face found")
    for face in faces:
        box = face.box
        where = f" at x={box.x} y={box.y} width={box.width} height={box.height}" if len(faces) > 1 else ""
        lines.append(f"Prediction: {face.expression} (confidence: {face.confidence:.1%}){where}")
    lines.append(f"Time: {seconds:.3f} s")
    return "\n".join(lines)


def as_json(path: str, faces: Sequence[Face], seconds: float) -> str:
    """A picture's faces for a program, on one line; a box is x, y, width, height in pixels."""
    rows = [{**dataclasses.asdict(face), "box": list(face.box)} for face in faces]
    return json.dumps({"image": path, "seconds": round(seconds, 4), "faces": rows}, ensure_ascii=False)


if __name__ == "__main__":
    sys.exit(main())
