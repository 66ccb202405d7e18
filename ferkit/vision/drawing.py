"""Faces drawn into a picture: boxes, labels, and bars of probabilities.

drawn = draw_faces(image, boxes, ["Happy 97%"] * len(boxes))
"""

import unicodedata
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from ferkit.vision.boxes import Box, common_area

_COLOR = (80, 220, 60)  # BGR of boxes: green
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_faces(
    image: np.ndarray, boxes: Sequence[Box], labels: Sequence[str], charts: Sequence[Mapping[str, float]] = ()
) -> np.ndarray:
    """A BGR copy of the image with each box drawn and its label above it, or below where there is no room.

    charts: the probabilities of each box's expressions, drawn as bars beside it. Labels and charts are kept inside the
    image. The font has ASCII characters only, so accents are removed.
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
    text = ascii_text(label)
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
    """Draws a bar for each expression into `drawn`, near the box, where it covers least of the boxes `taken`.

    Returns the chart's box in a list. If the image is too small for legible bars, draws nothing and returns an empty
    list.
    """
    height, width = drawn.shape[:2]
    row = round(max(14, min(box.height / len(chart), min(height, width) / 22)))  # pixels per bar and name
    scale, padding = row * 0.5 / 22, row // 4  # at scale 1 the font's capitals are 22 pixels high
    names = [ascii_text(name) for name in chart]
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
    covered = [sum(common_area(Box(*place, panel_width, panel_height), other) for other in taken) for place in inside]
    x, y = inside[int(np.argmin(covered))]
    drawn[y : y + panel_height, x : x + panel_width] //= 4
    for index, (name, probability) in enumerate(zip(names, chart.values(), strict=True)):
        top, bar = y + padding + index * row, x + name_width + 2 * padding
        cv2.putText(drawn, name, (x + padding, top + row * 3 // 4), _FONT, scale, (255, 255, 255), 1, cv2.LINE_AA)
        end = (bar + round(bar_width * probability), top + row * 4 // 5)
        cv2.rectangle(drawn, (bar, top + row // 5), end, _COLOR, cv2.FILLED)
    return [Box(x, y, panel_width, panel_height)]


def ascii_text(text: str) -> str:
    """The text in ASCII, the only characters that the font has."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
