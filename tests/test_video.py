"""Recognition in video without a window: frames in, identities, an annotated video and a table out."""

import contextlib
import csv
import http.server
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import wave
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.stream import Disposition
from conftest import (
    ROOT,
    assert_one_line_error,
    full_disk,
    load_script,
    moving_faces,
    read_video,
    run_script,
    write_video,
)

from ferkit.errors import UserError
from ferkit.recognition import Face
from ferkit.video.live import Live
from ferkit.video.recording import FaceLog, Recorder
from ferkit.video.source import Frame, Reader, open_video
from ferkit.video.tracking import Tracked
from ferkit.vision.boxes import Box
from ferkit.vision.detection import find_faces
from parameters import VIDEO_PREDICTOR

SCRIPT = "predict-from-video.py"
PHOTOS = ROOT.parent / "shared" / "data" / "photos"
CASES = PHOTOS.with_name("cases")


@pytest.fixture(scope="module")
def script():
    return load_script(SCRIPT)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Three seconds of two drawn people."""
    return write_video(tmp_path_factory.mktemp("clip") / "two.mp4", moving_faces(60), rate=20)


@pytest.fixture
def stream() -> Iterator[str]:
    """The address of a camera on the network: MJPEG over HTTP, 30 frames a second; it ends after `frames`."""
    pictures = [cv2.imencode(".jpg", frame)[1].tobytes() for frame in moving_faces(30)]

    class Camera(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            with contextlib.suppress(OSError):  # the other side has gone
                for number in range(int(self.path.strip("/"))):
                    picture = pictures[number % len(pictures)]
                    heading = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture)
                    self.wfile.write(heading + picture + b"\r\n")
                    time.sleep(1 / 30)

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Camera) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def shown_at(path: Path) -> list[float]:
    """The time stamp of each frame of a video, in seconds."""
    with av.open(str(path)) as container:
        return [frame.time for frame in container.decode(video=0)]


def headless(script, source: object, model: Path, folder: Path, *flags: str) -> int:
    """Runs the program in this process, without a window, with both outputs."""
    outputs = f"--output={folder / 'annotated.mp4'}", f"--log={folder / 'faces.csv'}"
    return script.main([f"--source={source}", f"--model_path={model}", "--window=no", *outputs, *flags])


# --- what it is for --------------------------------------------------------------------------------------------------


def test_two_faces_keep_their_identities_and_expressions(script, clip, small_model, tmp_path, capsys):
    assert headless(script, clip, small_model, tmp_path) == 0
    rows = rows_of(tmp_path / "faces.csv")
    assert Counter(row["face"] for row in rows) == {"1": 60, "2": 60}, "found in every frame, and never mixed up"
    assert "60 frames, 2 faces, " in capsys.readouterr().out
    for row in rows:
        number = int(row["frame"])
        assert float(row["seconds"]) == pytest.approx(number / 20, abs=1e-3)
        assert (int(row["x"]) < 320) == (row["face"] == "1")
        probabilities = {name: float(row[name]) for name in VIDEO_PREDICTOR.emotions}
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-3)
        assert row["expression"] == max(probabilities, key=probabilities.get)
        assert float(row["confidence"]) == max(probabilities.values())
    shown = {face: Counter(row["expression"] for row in rows if row["face"] == face) for face in ("1", "2")}
    assert shown["1"]["Happy"] >= 57 and shown["2"]["Surprise"] >= 57, shown

    annotated, rate = read_video(tmp_path / "annotated.mp4")
    original, _ = read_video(clip)
    assert len(annotated) == 60 and rate == 20
    for number in (0, 30, 59):
        changed = (np.abs(annotated[number].astype(int) - original[number]) > 60).any(axis=2)
        assert 0.01 < changed.mean() < 0.2, "boxes and labels are drawn, the rest is left"
        for row in rows[2 * number : 2 * number + 2]:
            x, y, height = (int(row[name]) for name in ("x", "y", "height"))
            left = max(0, x)
            edge = annotated[number][max(0, y) : y + height, left : left + 2].reshape(-1, 3).astype(int)
            assert (edge[:, 1] - edge[:, 2] > 30).mean() > 0.5, "the box's left side is green"


def test_no_face_is_lost_between_frames(clip):
    """As many as in single pictures: detection runs on every frame."""
    frames, _ = read_video(clip)
    assert [len(find_faces(frame)) for frame in frames[::6]] == [2] * 10


def test_people_of_a_real_clip(script, raw_model, tmp_path):
    """A singer, then a couple in the audience, with cuts between: one identity each."""
    source = PHOTOS / "faces_clip.mp4"
    if not source.exists():
        pytest.skip("shared/data/photos/faces_clip.mp4 is not here")
    assert headless(script, source, raw_model, tmp_path) == 0
    rows = rows_of(tmp_path / "faces.csv")
    singer = {row["face"] for row in rows if 82 <= int(row["frame"]) < 211}
    couple = Counter(row["face"] for row in rows if int(row["frame"]) >= 211)
    assert len(singer) == 1 and singer.isdisjoint(couple)
    assert [count for _, count in couple.most_common(2)] == [64, 64]
    assert sum(1 for row in rows if 82 <= int(row["frame"]) < 211) == 129, "found in every frame"
    assert len(read_video(tmp_path / "annotated.mp4")[0]) == 275


def test_lines_of_json(script, clip, raw_model, tmp_path):
    log = tmp_path / "new" / "faces.jsonl"
    flags = "--window=no", f"--log={log}", "--smoothing=0", "--show_chart"
    assert script.main([f"--source={clip}", f"--model_path={raw_model}", *flags]) == 0
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(rows) == 120 and [row["frame"] for row in rows[:4]] == [0, 0, 1, 1]
    for row in rows:
        assert len(row["box"]) == 4 and set(row["probabilities"]) == {*VIDEO_PREDICTOR.emotions}
        assert row["confidence"] == row["probabilities"][row["expression"]]
    assert rows[0].keys() == {"seconds", "frame", "face", "box", "expression", "confidence", "score", "probabilities"}


def test_sequence_of_pictures_with_one_that_is_damaged(script, raw_model, tmp_path, capsys):
    for number, frame in enumerate(moving_faces(8)):
        cv2.imwrite(str(tmp_path / f"{number:02d}.png"), frame)
    (tmp_path / "03.png").write_bytes(b"no picture")
    assert headless(script, tmp_path / "%02d.png", raw_model, tmp_path) == 0
    rows = rows_of(tmp_path / "faces.csv")
    assert sorted({int(row["frame"]) for row in rows}) == [0, 1, 2, 4, 5, 6, 7]
    assert [float(row["seconds"]) for row in rows if row["frame"] == "4"] == [4 / 25, 4 / 25]
    assert shown_at(tmp_path / "annotated.mp4")[2:5] == [0.08, 0.16, 0.2], "the picture before is shown longer"
    assert "1 frame of " in capsys.readouterr().err


def test_pictures_at_the_end_that_are_damaged_are_counted_too(script, raw_model, tmp_path, capsys):
    for number, frame in enumerate(moving_faces(4)):
        cv2.imwrite(str(tmp_path / f"{number:02d}.png"), frame)
    for number in (4, 5):
        (tmp_path / f"{number:02d}.png").write_bytes(b"no picture")
    assert headless(script, tmp_path / "%02d.png", raw_model, tmp_path) == 0
    assert "2 frames of " in capsys.readouterr().err


# --- sources ---------------------------------------------------------------------------------------------------------


class Simulated:
    """A source whose frames are given."""

    def __init__(self, frames: Iterator[Frame], live: bool):
        self.frames = frames
        self.live = live

    def __iter__(self) -> Iterator[Frame]:
        return self.frames


def numbered(count: int, error: Exception | None = None) -> Iterator[Frame]:
    for number in range(count):
        yield Frame(number, number / 30, np.zeros((2, 2, 3), np.uint8), time.monotonic())
    if error:
        raise error


def test_every_frame_of_a_file_is_taken():
    got = []
    with Reader(Simulated(numbered(30), live=False)) as reader:
        while not reader.ended:
            frame = reader.take(timeout=1)
            if frame is not None:
                got.append(frame.number)
                time.sleep(0.002)
    assert got == list(range(30))


def test_newest_frame_of_a_live_source_is_taken():
    given, go_on = threading.Semaphore(0), threading.Semaphore(0)

    def bursts() -> Iterator[Frame]:
        for frame in numbered(30):
            yield frame
            if frame.number % 10 == 9:  # here the frame is with the reader
                given.release()
                go_on.acquire()

    with Reader(Simulated(bursts(), live=True)) as reader:
        for newest in (9, 19, 29):
            given.acquire()
            assert reader.take(timeout=1).number == newest, "whatever came before is stale"
            assert reader.take(timeout=0.01) is None, "nothing is shown twice"
            assert reader.read == newest + 1
            go_on.release()
        assert reader.take(timeout=1) is None and reader.ended


def test_what_ends_a_source_is_raised_after_its_frames():
    with Reader(Simulated(numbered(5, error=UserError("unplugged")), live=False)) as reader:
        got = []
        with pytest.raises(UserError, match="unplugged"):
            while not reader.ended:
                got.append(reader.take(timeout=1).number)
        assert got == [0, 1, 2, 3, 4]


def test_reading_ends_with_the_loop_that_wanted_it():
    with Reader(Simulated(numbered(10**9), live=False)) as reader:
        assert reader.take(timeout=1).number == 0
    assert not reader._thread.is_alive() and reader.read < 10


@pytest.mark.parametrize(
    ("name", "content", "fragment"),
    [
        ("missing.mp4", None, "no such file"),
        ("empty.mp4", b"", "the file is empty"),
        ("words.mp4", b"no video", "not a video of a known format"),
        ("%03d.png", None, "no pictures of such names"),
        (".", None, "it is a folder"),
        ("77", None, "cannot open camera 77: connect one"),
        ("99999999999", None, "cannot open camera 99999999999: connect one"),
        ("rtsp://127.0.0.1:9/camera", None, "check the address"),
    ],
)
def test_unusable_source_gets_one_line(raw_model, tmp_path, name, content, fragment):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    flags = f"--source={name}", f"--model_path={raw_model}", "--window=no", "--log=log/faces.csv"
    run = run_script(SCRIPT, *flags, cwd=tmp_path)
    assert_one_line_error(run, name, fragment)
    assert len(run.stderr.splitlines()) == 1, "FFmpeg's and OpenCV's own complaints are dropped"
    assert run.stdout == "" and not (tmp_path / "log").exists()


def test_file_that_ends_early_is_said_and_what_there_was_is_kept(script, raw_model, tmp_path, capsys):
    whole = write_video(tmp_path / "whole.avi", moving_faces(60), rate=20)
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert headless(script, cut, raw_model, tmp_path) == 2
    assert "cut.avi ends after frame 30 of 60" in capsys.readouterr().err.splitlines()[-1]
    frames = 1 + max(int(row["frame"]) for row in rows_of(tmp_path / "faces.csv"))
    assert frames == 30 and len(read_video(tmp_path / "annotated.mp4")[0]) == 30


def test_percent_in_the_name_of_a_file_is_no_pattern(tmp_path):
    whole = write_video(tmp_path / "whole.avi", moving_faces(60), rate=20)
    cut = tmp_path / "cut 50%.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with open_video(str(cut)) as video, pytest.raises(UserError, match="ends after frame"):
        list(video)


@pytest.mark.parametrize("login", ["admin:secr@et@", "admin:se/cret@", "admin:se?cret@"])
@pytest.mark.parametrize("options", ["", "?user=admin&password=secret"])
def test_password_in_an_address_is_not_printed(login, options):
    with pytest.raises(UserError) as error, open_video(f"rtsp://{login}127.0.0.1:9/camera{options}"):
        pass
    assert "cannot open rtsp://127.0.0.1:9/camera: no stream" in str(error.value)


def test_stream_that_is_none_is_one_line(clip):
    """A page to log in, noise, nothing, half a file, sound alone, an endless redirection, an error, a closed port."""
    noise, content = np.random.default_rng(0).bytes(20_000), clip.read_bytes()
    sound = io.BytesIO()
    with wave.open(sound, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(16_000))
    frame = b"--frame\r\nContent-Type: image/jpeg\r\n\r\n"
    bodies = {
        "page": b"<html><body>Log in</body></html>",
        "noise": noise,
        "nothing": b"",
        "half": content[: len(content) // 2],
        "sound": sound.getvalue(),
        "list": b"#EXTM3U\n#EXTINF:1,\nlist\n",
        "frames": frame + noise + b"\r\n" + frame,
    }

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.strip("/")
            self.send_response(200 if name in bodies else 302 if name == "redirection" else 404)
            self.send_header("Location", self.path)
            if name == "frames":
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            with contextlib.suppress(OSError):  # the other side has gone
                self.wfile.write(bodies.get(name, b""))

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_port
        for address in (
            *(f"http://127.0.0.1:{port}/{name}" for name in (*bodies, "redirection", "missing")),
            f"rtsp://127.0.0.1:{port}/",  # it answers in another language
            f"https://127.0.0.1:{port}/",
            "http://127.0.0.1:9/",
            "http://",
            "xyz://a/b",
        ):
            with pytest.raises(UserError, match=f"^(cannot open )?{address}") as error, open_video(address) as video:
                _ = list(video)
            assert "\n" not in str(error.value)
        server.shutdown()


def test_stream_that_ends_is_said_and_what_there_was_is_kept(script, stream, raw_model, tmp_path, capsys):
    started = time.monotonic()
    assert headless(script, f"{stream}/20", raw_model, tmp_path) == 2
    output = capsys.readouterr()
    assert f"error: {stream}/20 gives no more frames" in output.err
    assert time.monotonic() - started < 240, "it does not wait for ever"
    rows = rows_of(tmp_path / "faces.csv")
    assert {row["face"] for row in rows} == {"1", "2"}
    times = [float(row["seconds"]) for row in rows]
    assert times == sorted(times) and times[0] == 0 < times[-1]
    frames, rate = read_video(tmp_path / "annotated.mp4")
    assert len(frames) / rate == pytest.approx(times[-1] + 1 / rate, abs=2 / rate), "as long as it lasted"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_recording_is_kept(stream, raw_model, tmp_path, number, status):
    flags = f"--source={stream}/100000", f"--model_path={raw_model}", "--window=no"
    command = [sys.executable, str(ROOT / SCRIPT), *flags, "--output=annotated.mp4", "--log=faces.csv"]
    run = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline, log = time.monotonic() + 240, tmp_path / "faces.csv"
    while not log.exists() or len(log.read_text().splitlines()) < 40:
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    run.send_signal(number)
    _, errors = run.communicate(timeout=240)
    assert run.returncode == status and "Traceback" not in errors, errors
    seconds = float(rows_of(log)[-1]["seconds"])
    frames, rate = read_video(tmp_path / "annotated.mp4")
    assert seconds > 0.3 and len(frames) / rate == pytest.approx(seconds + 1 / rate, abs=3 / rate)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["annotated.mp4", "faces.csv"]


# --- kinds of files ---------------------------------------------------------------------------------------------------


def write_film(
    path: Path,
    stamps: Sequence[float],
    codec: str = "mpeg4",
    options: dict[str, str] | None = None,
    shape: Fraction = Fraction(1),
    turned: int = 0,
    tone: tuple[float, float] | None = None,
) -> Path:
    """Writes a film of 64×48 pixels: left dark, right bright. shape: of its pixels. turned: the angle in its metadata.

    tone: the seconds where a sound begins, after silence, and where it ends.
    """
    image = np.full((48, 64, 3), 40, np.uint8)
    image[:, 32:] = 220
    with av.open(str(path), "w", options=options or {}) as output:
        stream = output.add_stream(codec, rate=1000)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = shape
        if turned:
            stream.set_display_rotation(turned)
        sound = output.add_stream("libopus" if path.suffix == ".webm" else "aac", rate=48000) if tone else None
        for seconds in stamps:
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = round(1000 * seconds), Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
        if tone and sound:
            time_line = np.arange(round(48000 * tone[1])) / 48000
            wave = np.where(time_line < tone[0], 0, np.sin(2 * np.pi * 440 * time_line)).astype(np.float32)
            piece = av.AudioFrame.from_ndarray(np.stack([wave, wave]), format="fltp", layout="stereo")
            piece.rate, piece.pts, piece.time_base = 48000, 0, Fraction(1, 48000)
            output.mux(sound.encode(piece))
            output.mux(sound.encode())
    return path


# As a browser records: about 30 frames per second, in whole milliseconds.
BROWSER = [0.0, 0.04, 0.072, 0.093, 0.133, 0.166, 0.199, 0.24, 0.265, 0.298, 0.331, 0.366]


def test_webm_of_a_browser_keeps_its_time_stamps(script, raw_model, tmp_path):
    """Such a file has neither a rate nor a length."""
    source = write_film(tmp_path / "browser.webm", BROWSER, "libvpx", options={"live": "1"})
    assert cv2.VideoCapture(str(source)).get(cv2.CAP_PROP_FPS) == 1000, "what its header is taken for"
    with open_video(str(source)) as video:
        assert video.rate == pytest.approx(30, abs=0.5) and video.length is None and not video.live
        assert [frame.seconds for frame in video] == pytest.approx(BROWSER, abs=1e-3)
    assert headless(script, source, raw_model, tmp_path) == 0
    assert shown_at(tmp_path / "annotated.mp4") == pytest.approx(BROWSER, abs=2e-3)


def test_recording_of_a_real_browser():
    source = CASES / "browser_720p.webm"
    if not source.exists():
        pytest.skip("shared/data/cases/browser_720p.webm is not here")
    with open_video(str(source)) as video:
        assert video.rate == pytest.approx(30, abs=0.5)
        frames = list(video)
    assert len(frames) == 90 and frames[-1].seconds == pytest.approx(2.968) and frames[0].image.shape == (720, 1280, 3)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts"])
def test_rate_comes_from_the_time_stamps(tmp_path, suffix):
    source = write_film(tmp_path / f"film{suffix}", [number / 12.5 for number in range(20)])
    with open_video(str(source)) as video:
        assert video.rate == pytest.approx(12.5, rel=0.01)
        assert [frame.seconds for frame in video] == pytest.approx([number / 12.5 for number in range(20)], abs=2e-3)


def test_colon_in_the_name_of_a_file_is_no_address(tmp_path, monkeypatch):
    write_film(tmp_path / "12:30.mp4", [0.0, 0.1])
    monkeypatch.chdir(tmp_path)
    with open_video("12:30.mp4") as video:
        assert len(list(video)) == 2


def test_cover_picture_is_no_video(script, raw_model, tmp_path, capsys):
    with av.open(str(tmp_path / "song.m4a"), "w", format="mp4") as song:
        cover = song.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt, cover.disposition = 64, 48, "yuvj420p", Disposition.attached_pic
        sound = song.add_stream("aac", rate=48000)
        picture = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="bgr24")
        song.mux(cover.encode(picture.reformat(format="yuvj420p")))
        piece = av.AudioFrame.from_ndarray(np.zeros((2, 48000), np.float32), format="fltp", layout="stereo")
        piece.rate = 48000
        song.mux([*sound.encode(piece), *cover.encode(), *sound.encode()])
    assert headless(script, tmp_path / "song.m4a", raw_model, tmp_path) == 2
    assert "song.m4a: it has no video, at most a cover picture" in capsys.readouterr().err


@pytest.mark.parametrize(("shape", "size"), [("4/3", (48, 85)), ("1/2", (48, 32)), ("1/200", (48, 64))])
def test_pixels_that_are_not_square_are_made_so(tmp_path, shape, size):
    source = write_film(tmp_path / "wide.mkv", [0.0, 0.1], shape=Fraction(shape))
    with open_video(str(source)) as video:
        assert next(iter(video)).image.shape[:2] == size


@pytest.mark.skipif(not hasattr(av.VideoStream, "set_display_rotation"), reason="this PyAV cannot write the angle")
@pytest.mark.parametrize(("angle", "dark"), [(-90, np.s_[:32, :]), (90, np.s_[32:, :]), (180, np.s_[:, 32:])])
def test_film_of_a_telephone_is_turned(tmp_path, angle, dark):
    """-90: a portrait, which is to be turned clockwise."""
    source = write_film(tmp_path / "turned.mp4", [0.0, 0.1], turned=angle)
    with open_video(str(source)) as video:
        image = next(iter(video)).image
    assert image.shape[:2] == ((48, 64) if angle == 180 else (64, 48))
    assert image[dark].mean() < 80 and image.mean() > 110


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
@pytest.mark.parametrize("source", ["film.mp4", "film.webm"])
def test_copy_has_the_sound_of_the_source_at_its_time(script, raw_model, tmp_path, source, suffix):
    stamps = [0.5 + number / 20 for number in range(30)]  # the sound is there before the first image
    film = write_film(tmp_path / source, stamps, "libvpx" if source.endswith("webm") else "h264", tone=(1.0, 3.0))
    copy = tmp_path / f"annotated{suffix}"
    assert script.main([f"--source={film}", f"--model_path={raw_model}", "--window=no", f"--output={copy}"]) == 0
    with av.open(str(copy)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert video.codec_context.name == ("mjpeg" if suffix == ".avi" else "h264")
        assert video.pix_fmt == ("yuvj420p" if suffix == ".avi" else "yuv420p"), "what browsers play"
        pieces = [(frame.time, frame.to_ndarray()) for frame in container.decode(audio)]
    loud = [seconds for seconds, samples in pieces if np.abs(samples).max() > 0.1]
    assert loud[0] == pytest.approx(0.5, abs=0.06), "half a second after the first image"
    assert loud[-1] == pytest.approx(1.5, abs=0.06), "as long as the images"
    assert shown_at(copy) == pytest.approx([number / 20 for number in range(30)], abs=2e-3)


# --- what is written -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_recorder_shows_each_image_at_its_time(tmp_path, suffix):
    levels = [40, 90, 140, 190]
    with Recorder(tmp_path / f"steps{suffix}", rate=10) as recorder:
        for level, seconds in zip(levels, (5.0, 5.1, 5.5, 5.52), strict=True):
            recorder.write(np.full((48, 64, 3), level, np.uint8), seconds)
    frames, _ = read_video(tmp_path / f"steps{suffix}")
    assert [round(frame.mean() / 50) for frame in frames] == [1, 2, 3, 4]
    last = 0.6 if suffix == ".avi" else 0.52  # an .avi has a time for each tenth of a second only
    assert shown_at(tmp_path / f"steps{suffix}") == pytest.approx([0, 0.1, 0.5, last], abs=1e-3)


def test_recording_that_does_not_fit_on_the_disk_is_said_and_the_earlier_one_stays(tmp_path):
    path = tmp_path / "noise.mp4"
    path.write_bytes(b"the earlier one")
    random = np.random.default_rng(0)
    with (
        full_disk(200_000),
        pytest.raises(UserError, match=r"cannot write .*no space is left"),
        Recorder(path, rate=10) as recorder,
    ):
        for number in range(20):
            recorder.write(random.integers(0, 256, (240, 320, 3), np.uint8), number / 10)
    assert path.read_bytes() == b"the earlier one"
    assert [file.name for file in tmp_path.iterdir()] == ["noise.mp4"]


def test_live_recording_leaves_a_pause_out(tmp_path):
    with Recorder(tmp_path / "live.avi", rate=10, live=True) as recorder:
        for seconds in (0.0, 0.1, 3600.0, 3600.1):
            recorder.write(np.zeros((48, 64, 3), np.uint8), seconds)
    assert len(read_video(tmp_path / "live.avi")[0]) == 4


def test_jump_in_the_time_stamps_of_a_file_is_left_out(tmp_path):
    with Recorder(tmp_path / "jump.mp4", rate=10) as recorder:
        for seconds in (0.0, 0.1, 90.1, 7200.0, 7200.1):
            recorder.write(np.zeros((48, 64, 3), np.uint8), seconds)
    stamps = shown_at(tmp_path / "jump.mp4")
    assert stamps == pytest.approx([0, 0.1, 90.1, 90.2, 90.3]), "a picture of a minute and a half is none"


def test_film_is_copied_frame_for_frame(tmp_path):
    rate, count = 24000 / 1001, 12000
    with Recorder(tmp_path / "film.mp4", rate) as recorder:
        for number in range(count):
            recorder.write(np.zeros((16, 16, 3), np.uint8), number / rate)
    assert len(read_video(tmp_path / "film.mp4")[0]) == count


@pytest.mark.parametrize("rate", [0.1, 75.003, 119.987, 655.36, 999.9])
def test_odd_rates_are_recorded(tmp_path, rate):
    with Recorder(tmp_path / "odd.mp4", rate) as recorder:
        for number in range(3):
            recorder.write(np.zeros((48, 64, 3), np.uint8), number / rate)
    frames, found = read_video(tmp_path / "odd.mp4")
    assert len(frames) == 3 and found == pytest.approx(rate, rel=1e-3)


@pytest.mark.parametrize("suffix", [".mp4", ".m4v", ".mov", ".mkv", ".avi"])
def test_odd_and_changing_sizes_are_recorded(tmp_path, suffix):
    path = tmp_path / "new" / f"odd{suffix}"
    with Recorder(path, rate=29.97) as recorder:
        for number, size in enumerate(((361, 641), (361, 641), (100, 90))):
            recorder.write(np.full((*size, 3), 200, np.uint8), number / 29.97)
    frames, rate = read_video(path)
    assert len(frames) == 3 and frames[2].shape == (360, 640, 3) and frames[2].mean() > 180
    assert rate == pytest.approx(29.97, rel=1e-4)


def test_recorder_leaves_nothing_when_nothing_can_be_encoded(tmp_path):
    with pytest.raises(UserError, match="1×1"), Recorder(tmp_path / "dot.mp4", rate=10) as recorder:
        recorder.write(np.zeros((1, 1, 3), np.uint8), 0.0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "fragment"),
    [
        (["--output=here.mp4"], "would overwrite the video that is read"),
        (["--output=link.mp4"], "would overwrite the video that is read"),
        (["--output=annotated.gif"], "has none of the suffixes .mp4"),
        (["--log=faces.txt"], "has none of the suffixes .csv .jsonl"),
        (["--output=folder.mp4"], "is a folder"),
        ([], "nothing to do without a window"),
        (["--log=faces.csv", "--smoothing=-1"], "smoothing is -1.0"),
        (["--log=faces.csv", "--lost_face=nan"], "lost_face is nan"),
        (["--log=faces.csv", "--detection_confidence=2"], "detection_confidence is 2.0"),
        (["--log=faces.csv", "--model_path=none.bin"], "no trained model at none.bin"),
    ],
)
def test_senseless_wishes_are_refused_and_nothing_is_overwritten(
    script, clip, raw_model, tmp_path, monkeypatch, capsys, flags, fragment
):
    monkeypatch.chdir(tmp_path)
    Path("here.mp4").write_bytes(clip.read_bytes())
    Path("link.mp4").symlink_to("here.mp4")
    Path("folder.mp4").mkdir()
    assert script.main(["--source=here.mp4", f"--model_path={raw_model}", "--window=no", *flags]) == 2
    assert fragment in capsys.readouterr().err
    assert Path("here.mp4").read_bytes() == clip.read_bytes() and not Path("faces.csv").exists()


def test_no_display_is_said_with_the_cure(clip, raw_model, tmp_path):
    hidden = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    command = [sys.executable, str(ROOT / SCRIPT), f"--source={clip}", f"--model_path={raw_model}"]
    run = subprocess.run(command, cwd=tmp_path, env=hidden, capture_output=True, text=True, timeout=60)
    assert_one_line_error(run, "no display", "--window=no --output=")
    assert len(run.stderr.splitlines()) == 1


class Stub:
    """A recognizer that is sure of one face."""

    def recognize(self, image: np.ndarray, known: Sequence[Box] = ()) -> list[Face]:
        return [Face.of(Box(30, 20, 60, 60), {"Happy": 0.7, "Sad": 0.3})]


def test_memory_does_not_grow(script, tmp_path):
    """Over 2,000 frames with all that is drawn and written; the recognizer's own share has its turn every 20 frames."""
    status = Path("/proc/self/statm")
    if not status.exists():
        pytest.skip("memory is read from /proc")

    def used() -> int:
        return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    frames = (Frame(number, number / 30, image.copy(), 0.0) for number in range(2000))
    settings = VIDEO_PREDICTOR.__class__(show_chart=True, show_frame_rate=True)
    memory = []
    with Reader(Simulated(frames, live=False)) as reader:
        live = Live(Stub(), settings, reader)
        with (
            Recorder(tmp_path / "long.mp4", 30) as live.recorder,
            FaceLog(tmp_path / "long.csv", ["H", "S"]) as live.log,
        ):
            while not reader.ended:
                frame = reader.take(timeout=1)
                if frame is not None:
                    live.process(frame)
                    if frame.number % 20 == 0:
                        find_faces(frame.image)
                    memory.append(used())
    assert len(memory) == 2000 and live.tracker.count == 1
    assert memory[-1] - memory[300] < 8e6, "a frame kept in every ten would be 10 MB"


def test_log_can_be_read_while_it_is_written(tmp_path):
    with FaceLog(tmp_path / "faces.csv", ["Happy", "Sad"]) as log:
        log.write(7, 0.25, [Tracked(3, Face.of(Box(-1, 2, 30, 30), {"Happy": 0.25, "Sad": 0.75}, score=0.9))])
        assert (tmp_path / "faces.csv").read_text().splitlines() == [
            "seconds,frame,face,x,y,width,height,expression,confidence,score,Happy,Sad",
            "0.25,7,3,-1,2,30,30,Sad,0.75,0.9,0.25,0.75",
        ]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_log_replaces_only_an_earlier_one_and_only_with_a_frame(tmp_path, suffix):
    path = tmp_path / f"faces{suffix}"
    face = Tracked(3, Face.of(Box(-1, 2, 30, 30), {"Happy": 0.25, "Sad": 0.75}))
    with FaceLog(path, ["Happy", "Sad"]) as log:
        assert not path.exists()
        log.write(1, 0.1, [face])
    before = path.read_text()
    with FaceLog(path, ["Other", "Names"]):
        pass
    assert path.read_text() == before
    with FaceLog(path, ["Happy", "Sad"]) as log:
        log.write(1, 0.1, [])
    assert path.read_text() == before[: before.index("0.1")] * (suffix == ".csv")
    path.write_text('image,faces,face\n"a.jpg",0,\n' if suffix == ".csv" else '{"image": "a.jpg"}\n')
    with pytest.raises(UserError, match=f"faces{suffix} exists and is no table of this command"):
        FaceLog(path, ["Happy", "Sad"])


def test_damaged_frames_of_a_file_are_passed_over(clip, tmp_path):
    """Whatever is wrong in the middle, the frames after it are read."""
    content = bytearray(clip.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    (tmp_path / "damaged.mp4").write_bytes(content)
    with open_video(str(tmp_path / "damaged.mp4")) as video:
        frames = list(video)
    assert frames[-1].number == 59 or frames[-1].seconds == pytest.approx(59 / 20, abs=1e-3)
    assert len(frames) > 30 and [frame.seconds for frame in frames] == sorted({frame.seconds for frame in frames})
