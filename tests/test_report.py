"""The page about a video: what it says, that it is whole, and that it needs nothing but itself."""

import base64
import csv
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import load_script, moving_faces, write_video

from ferkit.constants import EMOTIONS
from ferkit.errors import UserError
from ferkit.recognition import Face
from ferkit.video.recording import FaceLog
from ferkit.video.report import Report, colors_of
from ferkit.video.source import Frame
from ferkit.video.tracking import Tracked
from ferkit.vision.boxes import Box

BOX = Box(30, 20, 60, 60)
EXPRESSIONS = ("Happy", "Sad", "Contempt & co")
IMAGE = np.add.outer(np.arange(120), np.arange(160))[..., None].repeat(3, axis=2).astype(np.uint8)


def tracked(number: int, *probabilities: float, box: Box = BOX) -> Tracked:
    return Tracked(number, Face.of(box, dict(zip(EXPRESSIONS, probabilities, strict=True))))


def frames(count: int, start: float = 0.0) -> list[Frame]:
    return [Frame(number, start + number / 10, IMAGE, 0.0) for number in range(count)]


class Page(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, page: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(page)
        assert not self.open, "every element that is opened is closed"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += " " + data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_page_says_what_was_seen(tmp_path):
    with Report(tmp_path / "page.html", "party <1>.mp4", EXPRESSIONS) as report:
        for frame in frames(60):
            first = tracked(1, 0.75, 0.25, 0.0) if frame.number < 45 else tracked(1, 0.1, 0.2, 0.7)
            report.add(frame, [first, tracked(2, 0.0, 1.0, 0.0)] if frame.number < 30 else [first])
        for frame in frames(5, start=6.0):
            report.add(frame, [tracked(3, 0.0, 1.0, 0.0)])
        for frame in frames(35, start=6.5):
            report.add(frame, [])
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    text = " ".join(page.text.split())
    assert "Expressions in party <1>.mp4" in text
    assert "Duration 0:09.9. Frames recognized: 100, with a face: 65. Faces followed: 3" in text
    assert "Face 1 0:00 to 0:05.9, seen for 6.0 s" in text and "Happy 75% Contempt & co 25%" in text
    assert "Face 2 0:00 to 0:02.9, seen for 3.0 s" in text and "Sad 100%" in text
    assert "Face 3" not in text and "left out: 1" in text, "it was seen for half a second"

    # three areas for each of two people; at the left edge those of the first stand at 0, 75 and 100%
    polygons = [shape["points"].split() for shape in page.all("polygon")]
    assert [len(points) // 2 for points in polygons] == [60, 60, 60, 30, 30, 30]
    upper = [float(points[0].split(",")[1]) for points in polygons[:3]]
    lower = [float(points[-1].split(",")[1]) for points in polygons[:3]]
    assert (lower, upper) == ([120, 30, 0], [30, 0, 0])
    strips = page.all("rect")
    assert len(strips) == 3 and len({strip["fill"] for strip in strips}) == 3
    whole = sum(float(strip["width"]) for strip in strips[:2])
    assert float(strips[0]["width"]) / whole == pytest.approx(45 / 59, abs=0.01)


def test_page_needs_nothing_but_itself(tmp_path):
    with Report(tmp_path / "page.html", "party.mp4", EXPRESSIONS) as report:
        for frame in frames(20):
            report.add(frame, [tracked(1, 0.5, 0.4, 0.1, box=Box(-20, -10, 60, 60))])
    content = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|<script|<link|@import|url\(|javascript:", content)
    page = Page(content)
    (policy,) = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'")
    (picture,) = page.all("img")
    kind, data = picture["src"].split(",")
    assert kind == "data:image/jpeg;base64"
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == (50, 40, 3), "the part of the box that lies in the picture"
    assert np.abs(decoded.astype(int) - IMAGE[:50, :40]).mean() < 3


def test_thumbnail_is_of_the_clearest_moment(tmp_path):
    report = Report(tmp_path / "page.html", "party.mp4", EXPRESSIONS)
    for frame, probability in zip(frames(4), (0.6, 0.9, 0.91, 0.7), strict=True):
        image = np.full_like(IMAGE, 10 + 50 * frame.number)
        report.add(frame._replace(image=image), [tracked(1, probability, 1 - probability, 0.0)])
    page = Page(report.page())
    (picture,) = page.all("img")
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(picture["src"].split(",")[1]), np.uint8), cv2.IMREAD_COLOR)
    assert abs(decoded.mean() - 60) < 3 and picture["alt"] == "Happy 90%"


@pytest.mark.parametrize("count", [0, 1])
def test_page_about_next_to_nothing(tmp_path, count):
    report = Report(tmp_path / "page.html", "camera 0", EXPRESSIONS)
    for frame in frames(count):
        report.add(frame, [tracked(1, 0.5, 0.4, 0.1)])
    page = Page(report.page())
    assert len(page.all("polygon")) == 3 * count and ("No face was found" in page.text) == (count == 0)


def test_page_without_a_frame_is_not_written(tmp_path):
    (tmp_path / "page.html").write_text("of an earlier video")
    with pytest.raises(UserError, match="no frame"), Report(tmp_path / "page.html", "cut.mp4", EXPRESSIONS):
        raise UserError("no frame")
    assert (tmp_path / "page.html").read_text() == "of an earlier video"


@pytest.mark.parametrize(
    "names", [EMOTIONS, [*EMOTIONS[:4], *"abcdefghijklmnop"], "abcdefghijklmnopqrst", ["b", "Sad"]]
)
def test_every_expression_has_a_colour_of_its_own(names):
    colors = colors_of(names)
    assert [*colors] == [*names] and len({*colors.values()}) == len(names)
    own = colors_of(EMOTIONS)
    assert all(colors[name] == own[name] for name in names if name in own)


def test_long_video_gives_a_small_page(tmp_path):
    """Two hours at 25 frames a second."""
    report = Report(tmp_path / "page.html", "film.mkv", EXPRESSIONS)
    face = tracked(1, 0.5, 0.4, 0.1)
    for number in range(180_000):
        report.add(Frame(number, number / 25, IMAGE, 0.0), [face])
    assert len(report.page()) < 60_000 and "Duration 1:59:59.96" not in report.page()
    assert "Duration 2:00:00" in report.page()


def test_page_is_written_after_an_error_and_never_in_part(tmp_path):
    path = tmp_path / "new" / "page.html"
    with pytest.raises(UserError, match="unplugged"), Report(path, "camera 0", EXPRESSIONS) as report:
        report.add(frames(1)[0], [tracked(1, 0.5, 0.4, 0.1)])
        assert not path.exists()
        raise UserError("unplugged")
    assert Page(path.read_text()).all("polygon") and [file.name for file in path.parent.iterdir()] == ["page.html"]


def test_every_third_frame_is_recognized_and_all_are_recorded(small_model, tmp_path, capsys):
    """With a second of sky at the end, so that there are frames without faces."""
    sky = [np.full((240, 640, 3), 180, np.uint8)] * 20
    clip = write_video(tmp_path / "clip.mp4", [*moving_faces(40), *sky], rate=20)
    outputs = [f"--{name}={tmp_path / file}" for name, file in
               (("output", "copy.mp4"), ("log", "faces.csv"), ("report", "page.html"))]  # fmt: skip
    flags = [f"--source={clip}", f"--model_path={small_model}", "--window=no", "--every=3", "--empty_frames"]
    assert load_script("predict-from-video.py").main([*flags, *outputs]) == 0
    assert "60 frames, 2 faces" in capsys.readouterr().out
    with (tmp_path / "faces.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with_faces = [row for row in rows if row["face"]]
    assert [int(row["frame"]) for row in with_faces] == [number for number in range(0, 40, 3) for _ in "12"]
    empty = [row for row in rows if not row["face"]]
    assert [int(row["frame"]) for row in empty] == list(range(42, 60, 3))
    assert {row["face"] for row in with_faces} == {"1", "2"}
    assert all(float(row["seconds"]) == pytest.approx(int(row["frame"]) / 20, abs=1e-3) for row in rows)
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "Expressions in clip.mp4" in page.text and "Frames recognized: 20, with a face: 14" in page.text
    capture = cv2.VideoCapture(str(tmp_path / "copy.mp4"))
    drawn = []
    while (got := capture.read())[0]:
        green = got[1].astype(int)
        drawn.append(bool(((green[..., 1] - green[..., 2] > 60) & (green[..., 1] > 150)).sum() > 100))
    assert drawn == [True] * 40 + [False] * 20, "boxes on every frame until the cut, on none after it"


def test_frames_without_faces_in_lines_of_json(tmp_path):
    with FaceLog(tmp_path / "faces.jsonl", EXPRESSIONS, empty_frames=True) as log:
        log.write(7, 0.28, [])
    assert (tmp_path / "faces.jsonl").read_text() == (
        '{"seconds": 0.28, "frame": 7, "face": null, "box": null, "expression": null, "confidence": null, '
        '"score": null, "probabilities": null}\n'
    )


@pytest.mark.parametrize(
    ("flags", "fragment"),
    [
        (["--report=page.txt"], "none of the suffixes .html"),
        (["--report=clip.html", "--source=clip.html"], "would overwrite"),
        (["--report=page.html", "--every=0"], "every is 0"),
        (["--report=file/page.html"], "cannot write file"),
    ],
)
def test_senseless_reports_are_refused(raw_model, tmp_path, monkeypatch, capsys, flags, fragment):
    monkeypatch.chdir(tmp_path)
    Path("clip.html").write_bytes(b"a video")
    Path("file").touch()
    script = load_script("predict-from-video.py")
    assert script.main(["--source=clip.mp4", f"--model_path={raw_model}", "--window=no", *flags]) == 2
    assert fragment in capsys.readouterr().err and Path("clip.html").read_bytes() == b"a video"
