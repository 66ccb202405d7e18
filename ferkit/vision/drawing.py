"""Faces drawn into a picture: boxes, labels, and bars of probabilities.

drawn = draw_faces(image, boxes, ["Happy 97%"] * len(boxes))
"""

import contextlib
import functools
import math
import unicodedata
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ferkit.vision.boxes import Box, common_area

_COLOR = (80, 220, 60)  # BGR of boxes: green
_WHITE = (255, 255, 255)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONTS = (  # for letters that it lacks; Pillow seeks them where the system keeps its fonts
    "DejaVuSans.ttf", "LiberationSans-Regular.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc",
    "NotoSansCJKjp-Regular.otf", "wqy-zenhei.ttc", "Arial Unicode.ttf", "arial.ttf", "YuGothM.ttc", "msgothic.ttc",
    "msyh.ttc", "malgun.ttf", "Hiragino Sans GB.ttc", "AppleSDGothicNeo.ttc",
)  # fmt: skip
_NO_LETTER = "\U0010ffff"


def draw_faces(
    image: np.ndarray, boxes: Sequence[Box], labels: Sequence[str], charts: Sequence[Mapping[str, float]] = ()
) -> np.ndarray:
    """A BGR copy of the image with each box drawn and its label above it, or below where there is no room.

    charts: the probabilities of each box's expressions, drawn as bars beside it. Labels and charts are kept inside the
    image. For the letters see `draw_text`.
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
    """Writes a short text into the image's top left corner, in place."""
    _draw_label(image, Box(0, 0, 0, 0), text)


def _draw_label(drawn: np.ndarray, box: Box, label: str) -> None:
    """Writes the label into `drawn`, white on black; its size follows the box and the image."""
    height, width = drawn.shape[:2]
    pixels = min(max(11, box.width / 12, min(height, width) / 50), height / 4)  # a capital letter's height
    scale = pixels / 22  # at scale 1 a capital letter is 22 pixels high
    text_width = width_of(label, scale)
    padding = max(2, round(pixels / 3))
    if text_width + 2 * padding > width:  # a narrow image: the text has to fit
        scale *= max(1, width - 2 * padding) / text_width
        text_width = width_of(label, scale)
    weight = max(1, round(scale * 2))
    letters = round(22 * scale)
    label_width, label_height = text_width + 2 * padding, letters + 2 * padding
    left = min(max(0, box.x), max(0, width - label_width))
    above, below = box.y - label_height, box.y + box.height
    top = min(above if above >= 0 else below, height - label_height)
    top = max(0, top)
    drawn[top : top + label_height, left : left + label_width] //= 5  # darker, still a little transparent
    draw_text(drawn, label, (left + padding, top + padding + letters), scale, _WHITE, weight)


def _draw_chart(drawn: np.ndarray, box: Box, chart: Mapping[str, float], taken: Sequence[Box]) -> list[Box]:
    """Draws a bar for each expression into `drawn`, near the box, where it covers least of the boxes `taken`.

    Returns the chart's box in a list. If the image is too small for legible bars, draws nothing and returns an empty
    list.
    """
    height, width = drawn.shape[:2]
    row = round(max(14, min(box.height / len(chart), min(height, width) / 22)))  # pixels per bar and name
    scale, padding = row * 0.5 / 22, row // 4  # at scale 1 the font's capitals are 22 pixels high
    name_width = max(width_of(name, scale) for name in chart)
    bar_width = 4 * row
    panel_width, panel_height = name_width + bar_width + 3 * padding, row * len(chart) + 2 * padding
    if panel_width > width or panel_height > height:
        return []
    right, bottom = box.x + box.width + padding, box.y + box.height
    left, above = box.x - padding - panel_width, box.y - padding - panel_height
    places = [(x, y) for y in (box.y, bottom - panel_height) for x in (right, left)]
    places += [(box.x, bottom + padding), (box.x, above)]
    inside = [(min(max(0, x), width - panel_width), min(max(0, y), height - panel_height)) for x, y in places]
    covered = [sum(common_area(Box(*place, panel_width, panel_height), other) for other in taken) for place in inside]
    x, y = inside[int(np.argmin(covered))]
    drawn[y : y + panel_height, x : x + panel_width] //= 4
    for index, (name, probability) in enumerate(chart.items()):
        top, bar = y + padding + index * row, x + name_width + 2 * padding
        draw_text(drawn, name, (x + padding, top + row * 3 // 4), scale, _WHITE)
        end = (bar + round(bar_width * probability), top + row * 4 // 5)
        cv2.rectangle(drawn, (bar, top + row // 5), end, _COLOR, cv2.FILLED)
    return [Box(x, y, panel_width, panel_height)]


# --- letters ---------------------------------------------------------------------------------------------------------


def draw_text(
    drawn: np.ndarray, text: str, origin: tuple[int, int], scale: float, color: tuple[int, int, int], weight: int = 1
) -> None:
    """Writes the text into `drawn`, from `origin`, its left end on the line that the letters stand on.

    scale: at 1 a capital letter is 22 pixels high. OpenCV's own font has the letters of ASCII only. It also writes
    others that are such a letter with an accent, without the accent. The rest is written with a font of the system; if
    none has the letters, they are left out.
    """
    font = _font_of(text, scale)
    if font is None:
        cv2.putText(drawn, _ascii(text), origin, _FONT, scale, color, weight, cv2.LINE_AA)
        return
    (x, y), size = origin, round(font.size)
    top, bottom, left, right = max(0, y - 2 * size), y + size, max(0, x), x + width_of(text, scale) + size
    region = drawn[top:bottom, left:right]
    mask = Image.new("L", (region.shape[1], region.shape[0]))
    ImageDraw.Draw(mask).text((x - left, y - top), text, 255, font, anchor="ls")
    share = np.asarray(mask)[..., None] / 255
    region[:] = np.rint(region * (1 - share) + share * np.array(color))


def width_of(text: str, scale: float) -> int:
    """The width of a text that `draw_text` writes, in pixels."""
    font = _font_of(text, scale)
    return cv2.getTextSize(_ascii(text), _FONT, scale, 1)[0][0] if font is None else math.ceil(font.getlength(text))


def notes(names: Sequence[str]) -> list[str]:
    """A line for the user if no font has all letters of the names of the expressions."""
    unknown = [name for name in names if not _is_plain(name) and _font_of(name, 1) is None]
    if not unknown:
        return []
    return [f"no font of this system has the letters of {', '.join(unknown)}: pictures lack them, tables do not"]


def _is_plain(text: str) -> bool:
    """Whether all letters are of ASCII, or would be without their accents."""
    return all(_ascii(letter) for letter in unicodedata.normalize("NFC", text))


def _ascii(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def _font_of(text: str, scale: float) -> ImageFont.FreeTypeFont | None:
    """A font for a text with letters that OpenCV's lacks; None if there is none, or if it has none of these."""
    others = "".join(sorted({letter for letter in text if not letter.isascii()}))
    file = None if _is_plain(text) else _font_file(others)
    return None if file is None else _opened_font(file, max(1, round(30 * scale)))  # 22 pixels for a capital letter


@functools.lru_cache(maxsize=64)
def _opened_font(file: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size)


@functools.lru_cache(maxsize=64)
def _font_file(letters: str) -> str | None:
    """The first of the usual fonts that is installed and has all of these letters."""
    for file in _FONTS:
        with contextlib.suppress(OSError):
            font = _opened_font(file, 30)
            missing = bytes(font.getmask(_NO_LETTER))  # what a font draws for letters that it does not have
            if all(bytes(font.getmask(letter)) != missing for letter in letters if not letter.isspace()):
                return file
    return None
