"""From pictures to faces and back: reading, finding, cropping to the 48×48 grey face, drawing, writing.

An image is a BGR array (H, W, 3) uint8, as OpenCV's cameras and videos give it.

    image = read_image("party.jpg")
    boxes = find_faces(image)
    faces = [crop_face(image, box) for box in boxes]  # 48×48 grey uint8, cut as FER2013's were
    write_image("named.png", draw_faces(image, boxes, ["Happy"] * len(boxes)))
"""

import functools
import os
import threading
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

import blazeface
from command_line import UserError
from files import whole_file
from parameters import DETECTORS, IMAGE_SIZE

WRITTEN_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_LONGEST_SIDE = 6000  # of an image once read, in pixels: 108 MB at most
# What FER2013's crops are to a detector's boxes, in box sides: the crop's side, and how far down its middle lies.
# Medians that benchmarks/benchmark_detection.py measures.
_CROP_GEOMETRY = {"blazeface": (1.19, -0.10), "haar": (1.05, 0.0)}
_HAAR_SIDE = 640  # pixels; its time grows with the number of pixels
_COLOR = (80, 220, 60)  # BGR of boxes: green
_HAAR_LOCK = threading.Lock()  # a cascade serves one thread at a time
_FONT = cv2.FONT_HERSHEY_SIMPLEX


class Box(NamedTuple):
    """A rectangle in an image, in pixels from its left top corner. It may reach over the image's border."""

    x: int
    y: int
    width: int
    height: int


def read_image(path: str | Path) -> np.ndarray:
    """The picture as a BGR image, upright as its EXIF data says, transparent parts white, 16 bits scaled to 8.

    Pictures with a side of more than 6000 pixels are scaled down to it. Raises `UserError` when the file is missing,
    damaged, cut short or no picture: Pillow decodes, for it tells these apart and prints nothing.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures and odd metadata; those really too large raise
            with Image.open(path) as picture:
                picture.draft(None, (_LONGEST_SIDE, _LONGEST_SIDE))  # a JPEG can be decoded at half its size
                rgb = np.asarray(_flattened(ImageOps.exif_transpose(picture)))
    except FileNotFoundError as error:
        raise UserError(f"cannot read {path}: no such file") from error
    except IsADirectoryError as error:
        raise UserError(f"cannot read {path}: it is a folder") from error
    except UnidentifiedImageError as error:
        reason = "it is not a picture of a known format" if os.path.getsize(path) else "the file is empty"
        raise UserError(f"cannot read {path}: {reason}") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"cannot read {path}: more pixels than {2 * (Image.MAX_IMAGE_PIXELS or 0):,}") from error
    except Exception as error:  # each format's decoder raises its own kinds on damaged data
        reason = getattr(error, "strerror", None) or f"the picture is damaged or cut short ({error})"
        raise UserError(f"cannot read {path}: {reason}") from error
    return _shrunk(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), _LONGEST_SIDE)


def find_faces(
    image: np.ndarray, detector: str = "blazeface", confidence: float = 0.6, small_faces: bool = False
) -> list[Box]:
    """The faces in a BGR image, left to right, each as the square that FER2013 would have cut around it.

    `detector` is one of DETECTORS. BlazeFace leaves out faces it is less sure of than `confidence` (0 to 1), and
    sees faces from 4% of the image's longer side, with `small_faces` from 2% in some six times the time. Haar has
    neither choice.
    """
    if detector not in DETECTORS:
        raise ValueError(f"detector is '{detector}', not one of {', '.join(DETECTORS)}")
    if image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    found = haar(image) if detector == "haar" else blazeface.detect(image, confidence, small_faces)
    size, shift = _CROP_GEOMETRY[detector]
    boxes = []
    for x, y, width, height in found:
        side = round(float(max(width, height)) * size)
        left = x + width / 2 - side / 2
        top = y + height / 2 + shift * height - side / 2
        box = Box(round(float(left)), round(float(top)), side, side)
        if _touches(box, image):
            boxes.append(box)
    return sorted(boxes)


def crop_face(image: np.ndarray, box: Box, margin: float = 0.0) -> np.ndarray:
    """The square around the box's middle, as a 48×48 grey uint8 face.

    Its side is the box's longer one times (1 + margin). Where it reaches over the image's border, the border's
    pixels are repeated. A 48×48 box without margin gives the image's grey values back unchanged. Raises ValueError
    when the square lies wholly outside the image.
    """
    side = max(1, round(max(box.width, box.height) * (1 + margin)))
    left = round(box.x + (box.width - side) / 2)
    top = round(box.y + (box.height - side) / 2)
    height, width = image.shape[:2]
    right, bottom = left + side, top + side
    if not _touches(Box(left, top, side, side), image):
        raise ValueError(f"{box} lies outside the {width}×{height} image")
    face = _grey(image[max(0, top) : bottom, max(0, left) : right])
    over = max(0, -top), max(0, bottom - height), max(0, -left), max(0, right - width)
    if any(over):
        face = cv2.copyMakeBorder(face, *over, cv2.BORDER_REPLICATE)
    if side == IMAGE_SIZE:
        return face.copy()
    interpolation = cv2.INTER_AREA if side > IMAGE_SIZE else cv2.INTER_CUBIC
    return cv2.resize(face, (IMAGE_SIZE, IMAGE_SIZE), interpolation=interpolation)


def draw_faces(
    image: np.ndarray, boxes: Sequence[Box], labels: Sequence[str], charts: Sequence[Mapping[str, float]] = ()
) -> np.ndarray:
    """A BGR copy of the image with each box drawn and its label above it, or below where there is no room.

    charts: the probabilities of each box's expressions, drawn as bars beside it. Labels and charts are kept inside the
    image. The font knows ASCII only: accents are left off.
    """
    drawn = image.copy() if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    thickness = max(1, round(min(drawn.shape[:2]) / 240))
    for box in boxes:
        end = (box.x + box.width - 1, box.y + box.height - 1)
        cv2.rectangle(drawn, (box.x, box.y), end, _COLOR, thickness, cv2.LINE_AA)
    taken = list(boxes)
    for box, chart in zip(boxes, charts, strict=bool(charts)):
        taken += _draw_chart(drawn, box, chart, taken)
    for box, label in zip(boxes, labels, strict=True):  # after all boxes, so that none crosses a label
        _draw_label(drawn, box, label)
    return drawn


def draw_note(image: np.ndarray, text: str) -> None:
    """Writes a short text into the image's left top corner, in place."""
    _draw_label(image, Box(0, 0, 0, 0), text)


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Writes the image in the format that the path's suffix names, whole or not at all."""
    suffix = Path(path).suffix.lower()
    if suffix not in WRITTEN_SUFFIXES:
        raise UserError(f"cannot write {path}: its suffix '{suffix}' is none of {' '.join(WRITTEN_SUFFIXES)}")
    encoded = cv2.imencode(suffix, image)[1]
    try:
        with whole_file(path) as temporary:
            encoded.tofile(temporary)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def _touches(box: Box, image: np.ndarray) -> bool:
    height, width = image.shape[:2]
    return box.x < width and box.y < height and box.x + box.width > 0 and box.y + box.height > 0


def _flattened(picture: Image.Image) -> Image.Image:
    """The picture as RGB without transparency."""
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        values = np.asarray(picture).astype(np.float32) / 257  # 65535 becomes 255
        return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


def _shrunk(image: np.ndarray, longest: int) -> np.ndarray:
    """The image, scaled down where a side is longer than `longest` pixels."""
    height, width = image.shape[:2]
    if max(height, width) <= longest:
        return image
    scale = longest / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _grey(image: np.ndarray) -> np.ndarray:
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)


def haar(image: np.ndarray) -> np.ndarray:
    """Boxes (N, 4) of frontal, upright faces from 5% of the image's longer side."""
    small = _shrunk(image, _HAAR_SIDE)
    scale = small.shape[1] / image.shape[1]
    grey = cv2.equalizeHist(_grey(small))  # dim faces have too little contrast for it
    with _HAAR_LOCK:
        found = _haar_cascade().detectMultiScale(grey, scaleFactor=1.1, minNeighbors=3, minSize=(30, 30))
    return np.asarray(found, np.float64).reshape(-1, 4) / scale


@functools.cache
def _haar_cascade() -> "cv2.CascadeClassifier":
    cascade = cv2.CascadeClassifier(os.path.join(cv2.data.haarcascades, "haarcascade_frontalface_alt2.xml"))
    if cascade.empty():
        raise UserError("OpenCV came without its Haar cascades: reinstall opencv-python, or use 'blazeface'")
    return cascade


def _draw_label(drawn: np.ndarray, box: Box, label: str) -> None:
    """Writes the label into `drawn`, white on black; its size follows the box and the image."""
    text = _ascii(label)
    height, width = drawn.shape[:2]
    pixels = min(max(11, box.width / 12, min(height, width) / 50), height / 4)  # a capital letter's height
    scale = pixels / 22  # at scale 1 a capital letter is 22 pixels high
    text_width = cv2.getTextSize(text, _FONT, scale, 1)[0][0]
    padding = max(2, round(pixels / 3))
    if text_width + 2 * padding > width:  # a narrow image: the text has to fit
        scale *= max(1, width - 2 * padding) / text_width
        text_width = cv2.getTextSize(text, _FONT, scale, 1)[0][0]
    weight = max(1, round(scale * 2))
    letters = round(22 * scale)
    label_width, label_height = text_width + 2 * padding, letters + 2 * padding
    left = min(max(0, box.x), max(0, width - label_width))
    above, below = box.y - label_height, box.y + box.height
    top = min(above if above >= 0 else below, height - label_height)
    top = max(0, top)
    drawn[top : top + label_height, left : left + label_width] //= 5  # darker, still a little transparent
    origin = (left + padding, top + padding + letters)
    cv2.putText(drawn, text, origin, _FONT, scale, (255, 255, 255), weight, cv2.LINE_AA)


def _draw_chart(drawn: np.ndarray, box: Box, chart: Mapping[str, float], taken: Sequence[Box]) -> list[Box]:
    """Draws a bar for each expression into `drawn`, beside the box, on the side that covers least of what is `taken`.

    Returns what the chart takes: nothing where the image is too small for legible bars, and there are none.
    """
    height, width = drawn.shape[:2]
    row = round(max(14, min(box.height / len(chart), min(height, width) / 22)))  # pixels, a bar with its name
    scale, padding = row * 0.5 / 22, row // 4  # of the font, whose capitals are 22 pixels high at scale 1
    names = [_ascii(name) for name in chart]
    name_width = max(cv2.getTextSize(name, _FONT, scale, 1)[0][0] for name in names)
    bar_width = 4 * row
    panel_width, panel_height = name_width + bar_width + 3 * padding, row * len(chart) + 2 * padding
    if panel_width > width or panel_height > height:
        return []
    right, bottom = box.x + box.width + padding, box.y + box.height
    left, above = box.x - padding - panel_width, box.y - padding - panel_height
    places = [(x, y) for y in (box.y, bottom - panel_height) for x in (right, left)]
    places += [(box.x, bottom + padding), (box.x, above)]
    inside = [(min(max(0, x), width - panel_width), min(max(0, y), height - panel_height)) for x, y in places]
    covered = [sum(_common(Box(*place, panel_width, panel_height), other) for other in taken) for place in inside]
    x, y = inside[int(np.argmin(covered))]
    drawn[y : y + panel_height, x : x + panel_width] //= 4
    for index, (name, probability) in enumerate(zip(names, chart.values(), strict=True)):
        top, bar = y + padding + index * row, x + name_width + 2 * padding
        cv2.putText(drawn, name, (x + padding, top + row * 3 // 4), _FONT, scale, (255, 255, 255), 1, cv2.LINE_AA)
        end = (bar + round(bar_width * probability), top + row * 4 // 5)
        cv2.rectangle(drawn, (bar, top + row // 5), end, _COLOR, cv2.FILLED)
    return [Box(x, y, panel_width, panel_height)]


def _common(one: Box, other: Box) -> int:
    """The pixels that two boxes share."""
    width = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
    height = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
    return max(0, width) * max(0, height)


def _ascii(text: str) -> str:
    """The text in the letters that the font has."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
