"""Recognizes the expression of every face in a picture.

    python predict.py --image photo.jpg
    python predict.py --image photo.jpg --output annotated.jpg
    python predict.py --image holidays/ portrait.png --json

Exit status: 0 when a face was found, 1 when none was, 2 when a picture or the model cannot be read.
"""

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import imutils.paths
import numpy as np

import features
import saved_model
from command_line import UserError, add_flags, add_yes_no, command, override
from faces import WRITTEN_SUFFIXES, Box, crop_face, draw_faces, find_faces, read_image, write_image
from parameters import DATASET, EMOTIONS, IMAGE_SIZE, TRAINING, VIDEO_PREDICTOR, VideoPredictor
from parameters import SHIPPED_MODEL as SHIPPED_PATH

SHIPPED_MODEL = Path(__file__).resolve().parent / SHIPPED_PATH
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")  # sought in folders


@dataclasses.dataclass(frozen=True)
class Face:
    """A face in a picture, with what the model says of its expression."""

    box: Box
    expression: str
    confidence: float  # probability of `expression`
    probabilities: dict[str, float]  # of every expression

    @classmethod
    def of(cls, box: Box, probabilities: dict[str, float]) -> "Face":
        """The face with the likeliest of its expressions."""
        expression = max(probabilities, key=probabilities.__getitem__)
        return cls(box, expression, probabilities[expression], probabilities)


class Recognizer:
    """A saved model at work on pictures.

    All it knows of the network, of the features it wants and of the expressions' names and order it reads from the
    saved model. Raises UserError when the model at `model_path` cannot be used, or this landmark predictor is not the
    one that it was trained with.
    """

    def __init__(self, model_path: str, settings: VideoPredictor, shape_predictor_path: str):
        self.model = saved_model.load(model_path)
        self.settings = settings
        self.shape_predictor_path = shape_predictor_path
        here = {name: features.recipe(name, shape_predictor_path) for name in features.PARTS[self.model.features]}
        if here != self.model.recipes:
            raise UserError(
                f"{model_path} was trained on features computed otherwise (another landmark predictor?): "
                "set DATASET.shape_predictor_path to the one it was trained with, or train again"
            )

    def recognize(self, image: np.ndarray) -> list[Face]:
        """The faces in a BGR picture (H, W, 3) uint8. A picture of 48×48 pixels is a face itself."""
        if image.shape[:2] == (IMAGE_SIZE, IMAGE_SIZE):
            return self.classify([Box(0, 0, IMAGE_SIZE, IMAGE_SIZE)], [cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)])
        boxes = self.find(image)
        return self.classify(boxes, [crop_face(image, box, self.settings.margin) for box in boxes])

    def find(self, image: np.ndarray) -> list[Box]:
        """The faces' boxes in a BGR picture, left to right."""
        settings = self.settings
        return find_faces(image, settings.detector, settings.detection_confidence, settings.small_faces)

    def classify(self, boxes: Sequence[Box], crops: Sequence[np.ndarray]) -> list[Face]:
        """The expressions of 48×48 grey uint8 faces, one run of the network for all."""
        if not crops:
            return []
        faces = np.stack(crops)
        vectors = self.features_of(faces)
        names = self.model.expressions
        rows = self.model.predict(faces, vectors, self.settings.test_time_augmentation)
        return [
            Face.of(box, dict(zip(names, map(float, row), strict=True))) for box, row in zip(boxes, rows, strict=True)
        ]

    def features_of(self, faces: np.ndarray) -> np.ndarray:
        """What the network is given besides the pixels of `faces`: (N, 48, 48) uint8 -> (N, size) float32."""
        return features.extract(faces, self.model.features, self.shape_predictor_path)

    def warm_up(self) -> None:
        """Loads what is loaded when first needed, so that the first picture takes no longer than the others."""
        self.find(np.zeros((480, 640, 3), np.uint8))
        self.classify([Box(0, 0, IMAGE_SIZE, IMAGE_SIZE)], [np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8)])


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    settings = override(VIDEO_PREDICTOR, arguments)
    check_settings(settings)
    failed = found = False
    albums: dict[str, list[str]] = {}
    for given in arguments.image:
        try:
            albums[given] = pictures(given)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            failed = True
    paths = each_once(path for album in albums.values() for path in album)
    outputs = output_paths(albums, paths, arguments.output)
    recognizer = load_recognizer(arguments, settings)
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
                labels = [label(face, settings.show_confidence) for face in faces]
                write_image(outputs[path], draw_faces(image, [face.box for face in faces], labels))
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            failed = True
    return 2 if failed else 0 if found else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Recognize the expression of every face in a picture.")
    parser.add_argument("--image", nargs="+", required=True, metavar="PATH", help="pictures, or folders of pictures")
    parser.add_argument("--output", metavar="PATH", help="write the annotated picture here; of several, a folder")
    add_yes_no(parser, "--json", default=False, help="print a line of JSON for each picture")
    add_model_flags(parser)
    names = ("detector", "detection_confidence", "small_faces", "margin", "test_time_augmentation")
    add_flags(parser, VIDEO_PREDICTOR, *names, "show_confidence")
    return parser


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that `load_recognizer` reads."""
    help = f"the model (default: {TRAINING.save_model_path}, or the one in pretrained/ while there is none)"
    parser.add_argument("--model_path", metavar="PATH", help=help)
    add_flags(parser, DATASET, "shape_predictor_path")


def load_recognizer(arguments: argparse.Namespace, settings: VideoPredictor) -> Recognizer:
    """The recognizer that the flags of `add_model_flags` choose, for pictures and for video."""
    predictor = override(DATASET, arguments).shape_predictor_path
    recognizer = Recognizer(model_to_use(arguments.model_path), settings, predictor)
    warn_of_other_names(settings.emotions, recognizer.model.expressions)
    return recognizer


def model_to_use(given: str | None) -> str:
    """`given`, or without it TRAINING.save_model_path; while no model was trained, the shipped one, which is said."""
    path = given or TRAINING.save_model_path
    if given or Path(path).exists() or not SHIPPED_MODEL.exists():
        return path
    print(f"note: no trained model at {path} yet: using the one shipped in pretrained/", file=sys.stderr)
    return str(SHIPPED_MODEL)


def check_settings(settings: VideoPredictor) -> None:
    """Raises UserError for a value that makes no sense."""
    if not 0 < settings.detection_confidence < 1:
        raise UserError(f"detection_confidence is {settings.detection_confidence}: it must be between 0 and 1")
    if not 0 <= settings.margin <= 2:
        raise UserError(f"margin is {settings.margin}: it must be from 0 to 2")
    for name in ("smoothing", "lost_face"):
        if not 0 <= getattr(settings, name) <= 60:
            raise UserError(f"{name} is {getattr(settings, name)}: it must be from 0 to 60 seconds")


def pictures(path: str) -> list[str]:
    """The file `path`, or the pictures inside the folder `path`, in the order of their names."""
    if not Path(path).is_dir():
        return [path]
    listed = imutils.paths.list_files(path, PICTURE_SUFFIXES)
    inside = sorted(file for file in listed if not Path(file).name.startswith("._"))  # macOS' companions of pictures
    if not inside:
        raise UserError(f"no picture in the folder {path}")
    return inside


def each_once(paths: Iterable[str]) -> list[str]:
    """`paths` without those that name the same file again."""
    first: dict[str, str] = {}
    for path in paths:
        first.setdefault(os.path.realpath(path), path)  # unlike resolve(), of links in a circle too
    return list(first.values())


def output_paths(albums: Mapping[str, Sequence[str]], paths: Sequence[str], output: str | None) -> dict[str, Path]:
    """Where each picture's annotated copy goes: of a single file to `output`; else into that folder, laid out as in
    the folder it came from, which gives its name where there are several.

    albums: what the user gave, each with the pictures in it. Raises UserError where a copy would replace a picture that
    is read, or another copy.
    """
    if output is None:
        return {}
    folders = [given for given in albums if Path(given).is_dir()]
    if not folders and len(albums) == 1:
        if Path(output).is_dir():
            raise UserError(f"{output} is a folder: for one picture --output must be a file, like annotated.jpg")
        outputs = {path: Path(output) for path in paths}
    else:
        if Path(output).is_file():
            raise UserError(f"{output} is a file: for several pictures --output must be a folder")
        outputs = {}
        for given, album in albums.items():
            below = Path(output) / Path(given).resolve().name if len(folders) > 1 else Path(output)
            for path in album:
                name = Path(path).relative_to(given) if given in folders else Path(Path(path).name)
                writable = name.suffix.lower() in WRITTEN_SUFFIXES
                outputs.setdefault(path, below / name if writable else below / f"{name}.png")
        outputs = {path: outputs[path] for path in paths}
    read = {os.path.realpath(path) for path in paths}
    written: set[str] = set()
    for path, place in outputs.items():
        if place.suffix.lower() not in WRITTEN_SUFFIXES:
            raise UserError(f"{place} has no suffix of a picture: use .jpg or .png")
        if os.path.realpath(place) in read:
            raise UserError(f"--output={output} would overwrite {place}, which is to be read: name another place")
        if os.path.realpath(place) in written:
            raise UserError(f"the copy of {path} would overwrite another in {place}: recognize them one after another")
        written.add(os.path.realpath(place))
    return outputs


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
    """A picture's faces for a reader, with their boxes where there is more than one; named where there are several."""
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
    return json.dumps({"image": path, "seconds": round(seconds, 4), "faces": rows})


if __name__ == "__main__":
    sys.exit(main())
