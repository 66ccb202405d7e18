"""Recognition of the expression of every face in a picture with a saved model.

recognizer = Recognizer()
for face in recognizer.recognize(frame):  # BGR (H, W, 3) uint8, as OpenCV gives it
    print(face.expression, face.confidence, face.box, face.probabilities)
"""

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ferkit import ensemble, features, saved_model
from ferkit.constants import DEFAULT_MODEL, EMOTIONS, IMAGE_SIZE, SHAPE_PREDICTOR
from ferkit.errors import UserError
from ferkit.settings import Training, VideoPredictor, check
from ferkit.vision.boxes import Box
from ferkit.vision.cropping import crop_face
from ferkit.vision.detection import Found, find_faces
from ferkit.vision.pictures import as_bgr, grey

_WHOLE = Found(Box(0, 0, IMAGE_SIZE, IMAGE_SIZE), 1.0, 0.0)  # a picture of a face alone, as FER2013's


@dataclasses.dataclass(frozen=True)
class Face:
    """A face in a picture, and the model's result for its expression."""

    box: Box
    expression: str
    confidence: float  # probability of `expression`
    probabilities: dict[str, float]  # of every expression
    score: float = 1.0  # how sure the detector is, from 0 to 1; 1 for a picture that was taken as a face
    tilt: float = 0.0  # degrees by which the face is turned clockwise, if the detector tells

    @classmethod
    def of(cls, box: Box, probabilities: dict[str, float], score: float = 1.0, tilt: float = 0.0) -> "Face":
        """A face whose expression is the most probable one."""
        expression = max(probabilities, key=probabilities.__getitem__)
        return cls(box, expression, probabilities[expression], probabilities, score, tilt)


def as_row(face: Face) -> dict[str, Any]:
    """A face for JSON: its box is x, y, width and height in pixels."""
    return {**dataclasses.asdict(face), "box": list(face.box)}


class Recognizer:
    """Recognizes faces in pictures with a saved model. Any number of threads and forked processes can share it.

    model_path: a file, or the short name of an included model, such as "ferplus"; or several joined by a plus, which
    answer together. By default it is `best_model/saved_model.bin` in the working directory or, if there is none,
    DEFAULT_MODEL. settings: how faces are found, cropped and recognized.

    The saved model defines the network, its features, and the names and order of the expressions. Raises UserError when
    the model cannot be used, when the landmark predictor is not the one that the model was trained with, and for a
    setting outside its range.
    """

    def __init__(
        self,
        model_path: str | Path | None = None,
        settings: VideoPredictor = VideoPredictor(),  # noqa: B008 it is immutable
        shape_predictor_path: str = SHAPE_PREDICTOR,
    ):
        check(settings)
        self.model_path = model_to_use() if model_path is None else Path(model_path)
        self.model = ensemble.load(self.model_path)
        self.settings = settings
        self.shape_predictor_path = shape_predictor_path
        self.expressions = self._names()
        known = self.model.feature_provenance
        if features.provenance(self.model.features, shape_predictor_path, known) != known:
            raise UserError(
                f"{self.model_path} was trained on features computed otherwise (another landmark predictor?): "
                "name the one it was trained with as shape_predictor_path, or train again"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        """Lets a recognizer be sent to another process, which loads the model again."""
        return Recognizer, (self.model_path, self.settings, self.shape_predictor_path)

    def _names(self) -> tuple[str, ...]:
        """Names of the expressions, in the order of the model's probabilities: the settings may rename them."""
        own, wanted = self.model.expressions, self.settings.emotions
        if wanted in (own, EMOTIONS):  # as they are; a model may have other expressions than FER2013
            return own
        if len({*wanted}) != len(own) or {*wanted} == {*own}:
            raise UserError(
                f"the setting emotions has {', '.join(wanted)}, where {self.model_path} has {', '.join(own)}: "
                "write a new name for each of these, in this order"
            )
        return wanted

    def recognize(self, image: np.ndarray, known: Sequence[Box] = ()) -> list[Face]:
        """The faces in a picture, left to right.

        image: BGR (H, W, 3) uint8, or another form that `as_bgr` accepts: grey, BGRA, uint16, floats from 0 to 1. A
        picture of 48×48 pixels counts as one face. known: in video, the boxes of the faces of the frame before, which
        need no second look. Raises ValueError for anything else.
        """
        return self.classify(*self.cut(image, known))

    def cut(self, image: np.ndarray, known: Sequence[Box] = ()) -> tuple[list[Found], list[np.ndarray]]:
        """The faces found in a picture, left to right, and the crops (48, 48) uint8 that the network sees."""
        return cut_faces(image, self.settings, known)

    def find(self, image: np.ndarray, known: Sequence[Box] = ()) -> list[Found]:
        """The faces in a BGR picture, left to right, without their expressions. known: see `recognize`."""
        return _find(image, self.settings, known)

    def classify(self, found: Sequence[Found], crops: Sequence[np.ndarray]) -> list[Face]:
        """The faces with their expressions, in one run of the network. crops: (48, 48) uint8, one for each face."""
        if not crops:
            return []
        faces = np.stack(crops)
        vectors = self.features_of(faces)
        rows = self.model.predict(faces, vectors, self.settings.test_time_augmentation, self.settings.balance)
        return [
            Face.of(face.box, dict(zip(self.expressions, map(float, row), strict=True)), face.score, face.tilt)
            for face, row in zip(found, rows, strict=True)
        ]

    def features_of(self, faces: np.ndarray) -> np.ndarray:
        """The features that the network needs besides the pixels: (N, 48, 48) uint8 -> (N, size) float32."""
        return features.extract(faces, self.model.features, self.shape_predictor_path, self.model.feature_provenance)

    def with_settings(self, **changes: Any) -> "Recognizer":
        """A recognizer with other settings that shares the model. Raises UserError for a setting outside its range."""
        other = copy.copy(self)
        other.settings = dataclasses.replace(self.settings, **changes)
        check(other.settings)
        return other

    def warm_up(self) -> None:
        """Loads all that is loaded on first use, so that the first picture takes no longer than the others."""
        self.find(np.zeros((480, 640, 3), np.uint8))
        self.classify([_WHOLE], [np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8)])


def cut_faces(
    image: np.ndarray, settings: VideoPredictor, known: Sequence[Box] = (), size: int = IMAGE_SIZE
) -> tuple[list[Found], list[np.ndarray]]:
    """The faces found in a picture, left to right, and their grey crops (size, size) uint8.

    A picture of 48×48 pixels is a face already, and its crop is as large. For the rest see Recognizer.recognize.
    """
    image = as_bgr(image)
    if image.shape[:2] == (IMAGE_SIZE, IMAGE_SIZE):
        return [_WHOLE], [grey(image)]
    found = _find(image, settings, known)
    return found, [crop_face(image, face.box, settings.margin, face.tilt, size) for face in found]


def _find(image: np.ndarray, settings: VideoPredictor, known: Sequence[Box]) -> list[Found]:
    faces = find_faces(
        image,
        settings.detector,
        settings.detection_confidence,
        settings.small_faces,
        known,
        settings.detector_model,
    )
    faces = [face for face in faces if face.box.width >= settings.smallest_face]
    largest = sorted(faces, key=lambda face: face.box.width, reverse=True)
    return sorted(largest[: settings.most_faces or None])


def model_to_use(trained: str | Path | None = None, default: str = DEFAULT_MODEL) -> Path:
    """The model at `trained`, by default `best_model/saved_model.bin`; if there is none, the included `default`."""
    path = Path(trained or Training().save_model_path)
    shipped = all(saved_model.find(name).exists() for name in ensemble.weights_of(default))
    return Path(default) if not path.exists() and shipped else path


def label(face: Face, show_confidence: bool) -> str:
    """The text beside a face: `Happy 97%`."""
    return f"{face.expression} {face.confidence:.0%}" if show_confidence else face.expression
