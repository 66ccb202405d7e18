"""How well and how fast each detector finds faces in made situations: small, tilted, poor pictures.

    python benchmarks/benchmark_detection.py --photos=FOLDER --fer2013=fer2013.csv

FOLDER holds example files of the face_recognition project: biden.jpg, obama.jpg, two_people.jpg and the 275 frames of
hamilton_clip.mp4, under any name that ends in clip.mp4. dlib joins when it is installed. Some five minutes on two
cores.

Columns, shares of the faces found unless they say otherwise:
  16-32, 48-300  photographed faces that many pixels wide, put on 640×480 pictures without faces
  tilted         the same, 100 pixels wide, turned by 15, 30 and 45 degrees either way
  poor           the same, 80 pixels wide: dark, overexposed, noisy, grey
  clip           the clip's frontal faces;   hard  its profiles and faces in the dark
  fer            FER2013's faces on flat grey, 72 to 400 pixels wide: only the face itself to go by
  false          number of finds where no face is, on the clip's frames and on the pictures without faces
  ms             time of one 640×480 picture, median

The confidence of 0.6 and the confirming network were chosen on these same pictures, which show few people, and the
clip's faces were marked by eye among what the detectors found: the table ranks detectors, it does not promise rates.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import skimage.data

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ferkit.errors import UserError
from ferkit.processes import command
from ferkit.vision import blazeface, libfacedetection
from ferkit.vision import haar as haar_cascade
from ferkit.vision.detection import find_faces
from ferkit.vision.pictures import read_image

Truth = tuple[float, float, float]  # a face's middle x, y and side, in pixels
Detector = Callable[[np.ndarray], np.ndarray]  # BGR image -> boxes (N, 4)

CANVAS = (480, 640)
PHOTO_FACES: tuple[tuple[str, Truth], ...] = (
    ("biden.jpg", (585, 380, 320)),
    ("obama.jpg", (490, 265, 290)),
    ("two_people.jpg", (318, 130, 165)),
    ("two_people.jpg", (865, 160, 165)),
)
# fmt: off
CLIP_CLEAR: dict[int, Truth] = {  # by frame number
    0: (543, 75, 43), 11: (542, 74, 41), 88: (203, 124, 97), 99: (236, 141, 94), 110: (254, 136, 86),
    121: (237, 96, 90), 132: (216, 72, 78), 143: (213, 77, 92), 154: (276, 101, 102), 165: (277, 96, 99),
    176: (247, 123, 101), 187: (250, 85, 98), 198: (293, 102, 101), 209: (308, 96, 97),
}
AUDIENCE: list[Truth] = [(413, 137, 72), (348, 94, 66), (196, 135, 78), (74, 101, 63)]
CLIP_HARD: dict[int, list[Truth]] = {
    0: [(68, 202, 30)], 11: [(66, 203, 30)],
    220: AUDIENCE, 231: AUDIENCE, 242: AUDIENCE, 253: AUDIENCE, 264: AUDIENCE,
}
FACELESS = (  # pictures of scikit-image
    "brick.png", "coffee.png", "coins.png", "grass.png", "gravel.png", "ihc.png", "hubble_deep_field.jpg",
    "motorcycle_left.png", "page.png", "retina.jpg", "rocket.jpg", "text.png", "horse.png", "moon.png",
    "clock_motion.png", "chelsea.png",  # the last one shows a cat's face and is the hardest
)
# fmt: on


def detectors() -> dict[str, Detector]:
    """All detectors by name; for comparison, also BlazeFace's other networks and Haar with its usual parameters."""
    blazeface.NETWORKS.update(
        {
            "front": ("face_detection_front.tflite", ((16, 2), (8, 6))),
            "full range sparse": ("face_detection_full_range_sparse.tflite", ((48, 1),)),
        }
    )

    def network(name: str) -> Detector:
        return lambda image: blazeface.merge(blazeface.run(name, image, 0.6))

    def haar(name: str, scale: float, neighbours: int) -> Detector:
        cascade = cv2.CascadeClassifier(f"{cv2.data.haarcascades}haarcascade_frontalface_{name}.xml")

        def detect(image: np.ndarray) -> np.ndarray:
            return np.reshape(
                cascade.detectMultiScale(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), scale, neighbours), (-1, 4)
            )

        return detect

    known: dict[str, Detector] = {
        "auto, small_faces": lambda image: squares("auto", image, small_faces=True),
        "auto": lambda image: squares("auto", image),
        "libfacedetection": lambda image: libfacedetection.detect(image, 0.6),
        "blazeface (back)": lambda image: blazeface.detect(image, 0.6, small_faces=False),
        "blazeface, small_faces": lambda image: blazeface.detect(image, 0.6, small_faces=True),
        "blazeface front": network("front"),
        "blazeface full range": network("confirming"),
        "blazeface full range sparse": network("full range sparse"),
        "haar": haar_cascade.detect,
        "haar default 1.1 5": haar("default", 1.1, 5),
        "haar default 1.3 5": haar("default", 1.3, 5),
    }
    return known | _dlib()


def squares(detector: str, image: np.ndarray, **settings: bool) -> np.ndarray:
    return np.reshape([face.box for face in find_faces(image, detector, **settings)], (-1, 4))


def _dlib() -> dict[str, Detector]:
    try:
        import dlib
    except ImportError:
        return {}
    detector = dlib.get_frontal_face_detector()

    def detect(image: np.ndarray, enlarge: int) -> np.ndarray:
        found = detector(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), enlarge)
        return np.reshape([(box.left(), box.top(), box.width(), box.height()) for box in found], (-1, 4))

    return {"dlib": lambda image: detect(image, 0), "dlib, image doubled": lambda image: detect(image, 1)}


def found(boxes: np.ndarray, truth: Truth) -> np.ndarray:
    """Which boxes (N, 4) fit the face: centre within a third of its side, and between half and twice its size."""
    x, y, side = truth
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    offsets = np.abs(boxes[:, :2] + boxes[:, 2:] / 2 - (x, y)).max(axis=1)
    return (offsets < 0.35 * side) & (boxes[:, 2] > 0.5 * side) & (boxes[:, 2] < 2 * side)


def faceless_pictures() -> list[np.ndarray]:
    """640×480 pictures, bundled with scikit-image, without faces."""
    folder = Path(skimage.data.__file__).parent
    pictures = [read_image(folder / name) for name in FACELESS if (folder / name).is_file()]
    scaled = []
    for picture in pictures:
        scale = max(CANVAS[1] / picture.shape[1], CANVAS[0] / picture.shape[0])
        size = (round(picture.shape[1] * scale + 0.5), round(picture.shape[0] * scale + 0.5))
        scaled.append(cv2.resize(picture, size, interpolation=cv2.INTER_AREA)[: CANVAS[0], : CANVAS[1]])
    return scaled


def placed(image: np.ndarray, face: Truth, side: float, angle: float, background: np.ndarray) -> np.ndarray:
    """The image scaled and turned so that its face is `side` pixels wide in the background's middle."""
    x, y, width = face
    scale = side / width
    matrix = cv2.getRotationMatrix2D((x, y), angle, scale)
    matrix[:, 2] += (CANVAS[1] / 2 - x, CANVAS[0] / 2 - y)
    smooth = cv2.GaussianBlur(image, (0, 0), 0.45 / scale) if scale < 1 else image
    canvas = background.copy()
    return cv2.warpAffine(smooth, matrix, CANVAS[::-1], dst=canvas, borderMode=cv2.BORDER_TRANSPARENT)


def situations(
    sources: list[tuple[np.ndarray, Truth]], faceless: list[np.ndarray]
) -> Iterator[tuple[str, float, list]]:
    """Yields (column, side of the faces, pictures). The face is in the middle of each picture."""

    def pictures(side: float, angle: float = 0) -> list[np.ndarray]:
        chosen = [faceless[i % len(faceless)] for i in range(len(sources))]
        return [placed(image, face, side, angle, other) for (image, face), other in zip(sources, chosen, strict=True)]

    for side in (16, 24, 32):
        yield "16-32", side, pictures(side)
    for side in (48, 72, 120, 200, 300):
        yield "48-300", side, pictures(side)
    for angle in (-45, -30, -15, 15, 30, 45):
        yield "tilted", 100, pictures(100, angle)
    plain = pictures(80)
    for brightness in (0.15, 0.3, 2.0):
        yield "poor", 80, [np.clip(picture * brightness, 0, 255).astype(np.uint8) for picture in plain]
    noise = np.random.default_rng(0).normal(0, 15, (*CANVAS, 3))
    yield "poor", 80, [np.clip(picture * 0.5 + noise, 0, 255).astype(np.uint8) for picture in plain]
    yield "poor", 80, [np.repeat(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)[..., None], 3, axis=2) for picture in plain]


def fer_pictures(stack: np.ndarray) -> Iterator[tuple[str, float, list]]:
    """FER2013's faces (N, 48, 48), each in the middle of a flat picture of its mean grey."""
    for side in (72, 120, 240, 400):
        pictures = []
        for face in stack:
            picture = np.full((*CANVAS, 3), int(face.mean()), np.uint8)
            top, left = (CANVAS[0] - side) // 2, (CANVAS[1] - side) // 2
            enlarged = cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC)
            picture[top : top + side, left : left + side] = enlarged[..., None]
            pictures.append(picture)
        yield "fer", side, pictures


def clip_frames(path: Path) -> dict[int, np.ndarray]:
    """The frames that CLIP_CLEAR and CLIP_HARD name."""
    capture = cv2.VideoCapture(str(path))
    frames = {}
    for number in range(max(*CLIP_CLEAR, *CLIP_HARD) + 1):
        read, frame = capture.read()
        if not read:
            raise UserError(f"cannot read frame {number} of {path}")
        if number in CLIP_CLEAR or number in CLIP_HARD:
            frames[number] = frame
    return frames


def measure(detect: Detector, tests: list[tuple[str, float, list]], frames: dict, faceless: list) -> dict[str, float]:
    """The detector's row of the table."""
    hits: dict[str, list[bool]] = {}
    for column, side, pictures in tests:
        truth = (CANVAS[1] / 2, CANVAS[0] / 2, side)
        hits.setdefault(column, []).extend(bool(found(detect(picture), truth).any()) for picture in pictures)
    wrong = sum(len(detect(picture)) for picture in faceless)
    for number, frame in frames.items():
        boxes = detect(frame)
        clear = [CLIP_CLEAR[number]] if number in CLIP_CLEAR else []
        hard = CLIP_HARD.get(number, [])
        hits.setdefault("clip", []).extend(bool(found(boxes, truth).any()) for truth in clear)
        hits.setdefault("hard", []).extend(bool(found(boxes, truth).any()) for truth in hard)
        right = np.any([found(boxes, truth) for truth in clear + hard], axis=0)
        wrong += int((~right).sum())
    times = []
    for picture in faceless:
        start = time.perf_counter()
        detect(picture)
        times.append(time.perf_counter() - start)
    return {name: float(np.mean(values)) for name, values in hits.items()} | {
        "false": wrong,
        "ms": float(np.median(times)) * 1e3,
    }


@command
def main(argv: list[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--fer2013", type=Path, required=True, metavar="CSV")
    parser.add_argument("--faces", type=int, default=300, metavar="N", help="drawn from FER2013")
    arguments = parser.parse_args(argv)

    faceless = faceless_pictures()
    frames = clip_frames(next(iter(sorted(arguments.photos.glob("*clip.mp4"))), arguments.photos / "clip.mp4"))
    sources = [(read_image(arguments.photos / name), face) for name, face in PHOTO_FACES]
    sources += [(frames[number], CLIP_CLEAR[number]) for number in (0, 88, 121, 154, 176, 198)]
    sources.append((cv2.cvtColor(skimage.data.astronaut(), cv2.COLOR_RGB2BGR), (225, 125, 105)))
    pixels = pd.read_csv(arguments.fer2013, usecols=["pixels"], nrows=30 * arguments.faces).pixels[::30]
    stack = np.stack([np.array(row.split(), np.uint8).reshape(48, 48) for row in pixels])
    stack = stack[stack.std(axis=(1, 2)) > 5]  # some of FER2013's pictures are black

    tests = [*situations(sources, faceless), *fer_pictures(stack[:60])]
    known = detectors()
    for index, (name, detect) in enumerate(known.items()):
        row = measure(detect, tests, frames, faceless)
        if index == 0:
            print(f"{'':28}", *[f"{column:>7}" for column in row])
        texts = [
            f"{value:7.1f}" if name == "ms" else f"{value:7d}" if name == "false" else f"{value:7.0%}"
            for name, value in row.items()
        ]
        print(f"{name:28}", *texts, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
