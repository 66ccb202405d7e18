"""A page about a video: each person's expressions over time, their shares, and the clearest moment of each.

    with Report("page.html", "party.mp4", recognizer.expressions) as report:
        report.add(frame, tracked_faces)

The page is one file without scripts, and loads nothing.
"""

import base64
import html
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from ferkit.files import whole_file
from ferkit.processes import uninterrupted
from ferkit.video.source import Frame
from ferkit.video.tracking import Tracked
from ferkit.vision.boxes import Box
from ferkit.vision.pictures import shrunk

REPORTS = (".html", ".htm")
_COLORS = {  # the palette of Okabe and Ito, which colour-blind people can tell apart, and grey
    "Angry": "#d55e00", "Disgust": "#009e73", "Fear": "#cc79a7", "Happy": "#f0e442", "Sad": "#0072b2",
    "Surprise": "#e69f00", "Neutral": "#b8b8b8",
}  # fmt: skip
_OTHER_COLORS = (  # the rest of theirs, brown, and most of Paul Tol's muted colours: for up to 20 classes in all
    "#56b4e9", "#7f5539", "#000000", "#cc6677", "#332288", "#ddcc77", "#117733", "#882255", "#44aa99", "#999933",
    "#aa4499", "#661100", "#99dd55",
)  # fmt: skip
_POINTS = 240  # in the plot of one person
_MOST = 40  # people on the page
_SHORTEST = 1.0  # seconds that somebody must be seen to have a place on it, unless nobody is
_SIDE = 96  # of a thumbnail, in pixels
_CLEARER = 0.03  # how much more probable a moment must be to replace a thumbnail
_WIDTH, _HEIGHT, _ROW, _LEFT, _AXIS = 800, 120, 16, 60, 18  # of plots, in pixels: see _plot and _overview
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 18000, 36000)  # seconds

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 880px; margin: 2em auto; padding: 0 1em }
svg { width: 100%; height: auto; display: block; font-size: 11px }
svg text { fill: currentColor }
h2 { margin: 2em 0 .3em; font-size: 1.15em } h2 small { font-weight: normal }
figure { display: inline-block; margin: 0 .6em .3em 0; text-align: center; font-size: .85em }
figure img { display: block; width: 96px; height: 96px; object-fit: cover; border-radius: 4px }
.shares span { display: inline-block; margin-right: 1em; white-space: nowrap }
.shares i { display: inline-block; width: .8em; height: .8em; margin-right: .35em; border-radius: 2px }
"""


@dataclass
class _Person:
    """What was seen of one identity."""

    number: int
    seconds: array = field(default_factory=lambda: array("d"))  # of each recognized frame
    probabilities: array = field(default_factory=lambda: array("f"))  # K for each of them
    shown: Counter[str] = field(default_factory=Counter)  # frames in which an expression was the most probable one
    thumbnails: dict[str, tuple[float, bytes]] = field(default_factory=dict)  # probability and JPEG by expression


class Report:
    """Collects what is seen in a video, and writes the page at the end, also after Ctrl-C or an error.

    Without a frame, no page is written, and that of an earlier video stays.
    It keeps some 40 bytes for each face of each frame, and a small picture of each expression of each person.
    """

    def __init__(self, path: str | Path, name: str, expressions: Sequence[str]):
        self.path = Path(path)
        self.name = name
        self.expressions = tuple(expressions)
        self._colors = colors_of(self.expressions)
        self._people: dict[int, _Person] = {}
        self._frames = self._with_faces = 0
        self._start = self._end = 0.0  # seconds of the first and last frame

    def __enter__(self) -> "Report":
        return self

    def __exit__(self, *exception: object) -> None:
        if not self._frames:
            return
        with uninterrupted(), whole_file(self.path) as temporary:
            temporary.write_text(self.page(), encoding="utf-8")

    def add(self, frame: Frame, tracked: Sequence[Tracked]) -> None:
        """Adds the faces of a recognized frame."""
        self._start = self._start if self._frames else frame.seconds
        self._end = frame.seconds
        self._frames += 1
        self._with_faces += bool(tracked)
        for number, face in tracked:
            person = self._people.setdefault(number, _Person(number))
            person.seconds.append(frame.seconds)
            person.probabilities.extend(face.probabilities.values())
            person.shown[face.expression] += 1
            best = person.thumbnails.get(face.expression, (-1.0, b""))[0]
            if face.confidence > best + _CLEARER:
                person.thumbnails[face.expression] = (face.confidence, _thumbnail(frame.image, face.box))

    def page(self) -> str:
        """The page as HTML."""
        interval = (self._end - self._start) / max(1, self._frames - 1)  # seconds from one recognized frame to the next
        seen = {person.number: len(person.seconds) * interval for person in self._people.values()}
        shown = [person for person in self._people.values() if seen[person.number] >= _SHORTEST]
        shown = shown or list(self._people.values())
        shown = sorted(shown, key=lambda person: -seen[person.number])[:_MOST]
        shown.sort(key=lambda person: person.number)
        left_out = len(self._people) - len(shown)
        file = Path(self.name)
        title = html.escape(f"Expressions in {file.name if file.is_file() else self.name}")
        parts = [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            # whatever were in the page, a browser would load and run nothing
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
            'img-src data:">',
            f"<title>{title}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{title}</h1>",
            f"<p>Duration {_clock(self._end - self._start)}. Frames recognized: {self._frames}, with a face: "
            f"{self._with_faces}. Faces followed: {len(self._people)}; after a cut, or when it was lost, a face gets a "
            "new number.</p>",
            f'<p class="shares">{self._legend(self.expressions)}</p>',
            self._overview(shown),
            *(self._section(person, seen[person.number]) for person in shown),
            f"<p>Faces seen for a shorter time, which are left out: {left_out}.</p>" if left_out else "",
            "</body></html>",
        ]
        return "\n".join(part for part in parts if part) + "\n"

    def _legend(self, texts: Sequence[str]) -> str:
        """A coloured square and a text for each expression; the texts begin with the expressions' names."""
        swatches = []
        for text in texts:
            color = self._colors[text.rpartition(" ")[0] if text not in self._colors else text]
            swatches.append(f'<span><i style="background:{color}"></i>{html.escape(text)}</span>')
        return "".join(swatches)

    def _overview(self, people: Sequence[_Person]) -> str:
        """A strip for each person on the time axis of the whole video, in the colours of the expressions."""
        if not people:
            return "<p>No face was found.</p>"
        scale = _Scale(self._start, self._end)
        height = _ROW * len(people)
        strips = []
        for row, person in enumerate(people):
            top = row * _ROW
            strips.append(f'<text x="0" y="{top + _ROW - 4}">face {person.number}</text>')
            for name, start, end in _runs(person, self.expressions):
                width = max(1.0, scale(end) - scale(start))
                hint = html.escape(f"face {person.number}: {name}, {_clock(start)} to {_clock(end)}")
                strips.append(
                    f'<rect x="{scale(start):.1f}" y="{top + 1}" width="{width:.1f}" height="{_ROW - 3}" '
                    f'fill="{self._colors[name]}"><title>{hint}</title></rect>'
                )
        return _svg(height, strips, scale)

    def _section(self, person: _Person, seen: float) -> str:
        start, end = person.seconds[0], person.seconds[-1]
        shares = [f"{name} {count / len(person.seconds):.0%}" for name, count in person.shown.most_common()]
        pictures = []
        for name, (probability, jpeg) in sorted(person.thumbnails.items(), key=lambda item: -person.shown[item[0]]):
            data = base64.b64encode(jpeg).decode()
            caption = html.escape(f"{name} {probability:.0%}")
            pictures.append(
                f'<figure><img src="data:image/jpeg;base64,{data}" alt="{caption}">'
                f"<figcaption>{caption}</figcaption></figure>"
            )
        return "\n".join(
            [
                f"<section><h2>Face {person.number} <small>{_clock(start)} to {_clock(end)}, seen for "
                f"{seen:.1f} s</small></h2>",
                f'<p class="shares">{self._legend(shares)}</p>',
                f"<div>{''.join(pictures)}</div>",
                self._plot(person),
                "</section>",
            ]
        )

    def _plot(self, person: _Person) -> str:
        """The probabilities over time, one upon the other."""
        times, probabilities = _thinned(person, len(self.expressions))
        scale = _Scale(times[0], times[-1])
        edges = np.concatenate([np.zeros((len(times), 1)), probabilities.cumsum(axis=1)], axis=1)
        heights = _HEIGHT * (1 - edges / edges[:, -1:])
        columns = [scale(time) for time in times]
        if len(columns) == 1:  # seen once: as wide as the plot
            columns, heights = [_LEFT, _WIDTH], np.repeat(heights, 2, axis=0)
        areas = []
        for index, name in enumerate(self.expressions):
            upper = [f"{x:.1f},{y:.1f}" for x, y in zip(columns, heights[:, index + 1], strict=True)]
            lower = [f"{x:.1f},{y:.1f}" for x, y in zip(columns, heights[:, index], strict=True)]
            areas.append(
                f'<polygon points="{" ".join(upper + lower[::-1])}" fill="{self._colors[name]}">'
                f"<title>{html.escape(name)}</title></polygon>"
            )
        labels = [f'<text x="0" y="{y}">{text}</text>' for y, text in ((10, "100%"), (_HEIGHT, "0%"))]
        return _svg(_HEIGHT, labels + areas, scale)


class _Scale:
    """The time axis of a plot: seconds to pixels."""

    def __init__(self, start: float, end: float):
        self.start, self.end = start, max(end, start + 1e-3)

    def __call__(self, seconds: float) -> float:
        return _LEFT + (_WIDTH - _LEFT) * (seconds - self.start) / (self.end - self.start)

    def ticks(self) -> list[float]:
        """At most eight round times."""
        step = next((step for step in _STEPS if (self.end - self.start) / step <= 8), _STEPS[-1])
        first = int(np.ceil(self.start / step - 1e-9))
        return [step * number for number in range(first, int(self.end / step + 1e-9) + 1)]


def _svg(height: int, parts: Sequence[str], scale: _Scale) -> str:
    """A plot with its time axis."""
    ticks = []
    for seconds in scale.ticks():
        x = scale(seconds)
        anchor = "end" if x > _WIDTH - 20 else "middle"
        ticks.append(f'<path d="M{x:.1f} {height}v4" stroke="currentColor"/>')
        ticks.append(f'<text x="{x:.1f}" y="{height + 15}" text-anchor="{anchor}">{_clock(seconds)}</text>')
    return f'<svg viewBox="0 0 {_WIDTH} {height + _AXIS}">{"".join([*parts, *ticks])}</svg>'


def _runs(person: _Person, expressions: Sequence[str]) -> list[tuple[str, float, float]]:
    """The expression, start and end of each stretch of time in which the most probable expression is the same."""
    times, probabilities = _thinned(person, len(expressions))
    best = probabilities.argmax(axis=1)
    starts = [0, *(np.flatnonzero(np.diff(best)) + 1).tolist()]
    ends = [*starts[1:], len(times) - 1]
    return [(expressions[best[start]], times[start], times[end]) for start, end in zip(starts, ends, strict=True)]


def _thinned(person: _Person, count: int) -> tuple[list[float], np.ndarray]:
    """Times (n,) and probabilities (n, count): of each frame or, if there are many, means over successive frames."""
    times = np.asarray(person.seconds)
    probabilities = np.asarray(person.probabilities, np.float64).reshape(-1, count)
    parts = np.array_split(np.arange(len(times)), min(len(times), _POINTS))
    means = np.stack([probabilities[part].mean(axis=0) for part in parts])
    return [float(times[part].mean()) for part in parts], means


def colors_of(expressions: Sequence[str]) -> dict[str, str]:
    """A colour for each of up to 20 expressions: FER2013's have their own, the others what is left."""
    known = {name: _COLORS[name] for name in expressions if name in _COLORS}
    left = (color for color in (*_COLORS.values(), *_OTHER_COLORS) if color not in known.values())
    return {name: known.get(name) or next(left, "#000000") for name in expressions}


def _thumbnail(image: np.ndarray, box: Box) -> bytes:
    """The face as a small JPEG."""
    region = image[max(0, box.y) : box.y + box.height, max(0, box.x) : box.x + box.width]
    return cv2.imencode(".jpg", shrunk(region, _SIDE), [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()


def _clock(seconds: float) -> str:
    """`1:02:03`, `2:03`, or `2:03.5` where it is no whole second."""
    tenths = round(seconds * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    rest = f"{tenths // 10:02}" + (f".{tenths % 10}" if tenths % 10 else "")
    return f"{hours}:{minutes:02}:{rest}" if hours else f"{minutes}:{rest}"
