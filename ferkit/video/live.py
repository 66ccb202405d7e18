"""The loop of live recognition: it takes frames, recognizes their faces, and shows and records the result."""

import dataclasses
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ferkit.errors import UserError
from ferkit.files import check_writable, is_same
from ferkit.processes import complain
from ferkit.recognition import Recognizer, label
from ferkit.settings import VideoPredictor
from ferkit.video.recording import CODECS, LOGS, LONGEST_STILL, FaceLog, Recorder
from ferkit.video.report import REPORTS, Report
from ferkit.video.source import Frame, Reader
from ferkit.video.tracking import Tracked, Tracker
from ferkit.video.window import ESCAPE, Window
from ferkit.vision.drawing import draw_faces, draw_note
from ferkit.vision.pictures import write_image

_WAIT = 0.02  # seconds to wait for a frame before the window's keys are checked


class Live:
    """The loop: it takes frames, recognizes their faces, and shows and records the result."""

    def __init__(self, recognizer: Recognizer, settings: VideoPredictor, reader: Reader):
        self.recognizer = recognizer
        self.settings = settings
        self.reader = reader
        self.tracker = Tracker(settings.smoothing, settings.lost_face)
        self.window: Window | None = None
        self.recorder: Recorder | None = None
        self.log: FaceLog | None = None
        self.report: Report | None = None
        self.progress: tqdm | None = None
        self._shown = np.empty(0)
        self._tracked: list[Tracked] = []  # of the last recognized frame
        self._times: deque[float] = deque(maxlen=30)  # when the last frames were finished
        self._frames = 0
        self._file_start = self._seconds = 0.0

    def run(self) -> None:
        """Processes frames until the source or the user ends the video."""
        began = time.monotonic()
        try:
            while not self.reader.ended:
                frame = self.reader.take(_WAIT)
                if frame is not None:
                    self.process(frame)
                if self.window is not None and not self.attend(self.window, frame):
                    return
        finally:
            self._seconds = time.monotonic() - began

    def process(self, frame: Frame) -> None:
        """Recognizes, tracks, draws, shows and records the faces of one frame.

        Frames between those of `every` are shown and recorded with the faces of the last recognized frame.
        """
        recognized = self._frames % self.settings.every == 0
        if recognized:
            faces = self.recognizer.recognize(frame.image, self.tracker.expected(frame))
            self._tracked = self.tracker.update(frame, faces)
        elif self.tracker.skip(frame):
            self._tracked = []
        self._times.append(time.monotonic())
        self._frames += 1
        if self.window is not None or self.recorder is not None:
            self._shown = self.draw(frame.image, self._tracked)
        if self.window is not None:
            self.window.show(self._shown)
        if self.recorder is not None:
            self.recorder.write(self._shown, frame.seconds)
        if self.log is not None and recognized:
            self.log.write(frame.number, frame.seconds, self._tracked)
        if self.report is not None and recognized:
            self.report.add(frame, self._tracked)
        if self.progress is not None:
            self.progress.update()

    def draw(self, image: np.ndarray, tracked: Sequence[Tracked]) -> np.ndarray:
        """A copy of the image with the faces and, if set, charts and the frame rate drawn in."""
        faces = [face for _, face in tracked]
        labels = [label(face, self.settings.show_confidence) for face in faces]
        charts = [face.probabilities for face in faces] if self.settings.show_chart else []
        drawn = draw_faces(image, [face.box for face in faces], labels, charts)
        if self.settings.show_frame_rate and len(self._times) > 1:
            rate = (len(self._times) - 1) / (self._times[-1] - self._times[0])
            draw_note(drawn, f"{rate:.0f} frames/s")
        return drawn

    def attend(self, window: Window, frame: Frame | None) -> bool:
        """Handles the window's keys until the next frame is due. Returns whether the program goes on."""
        due = 0.0
        if frame is not None and not self.reader.live:  # a file is shown no faster than it was recorded
            ahead = self._file_start + frame.seconds - time.monotonic()
            if not 0 <= ahead <= LONGEST_STILL:  # late, or after a jump in the time stamps
                self._file_start -= ahead
            due = self._file_start + frame.seconds
        paused = False
        while True:
            key = window.key(_WAIT if paused else min(_WAIT, due - time.monotonic()))
            if key in ("q", "Q", ESCAPE) or window.closed:
                return False
            if key == "s":
                self.save_snapshot()
            if key == " ":
                paused = not paused
            if not paused and time.monotonic() >= due:
                return True

    def save_snapshot(self) -> None:
        """Writes the image in the window to a new file. An error is printed, and the video goes on."""
        name = time.strftime("%Y-%m-%d_%H-%M-%S")
        folder = Path(self.settings.snapshot_folder)
        taken = sum(1 for _ in folder.glob(f"{name}*.png"))
        path = folder / (f"{name}_{taken + 1}.png" if taken else f"{name}.png")
        try:
            write_image(path, self._shown)
            print(f"Saved {path}", flush=True)
        except UserError as error:
            complain(error)

    def summary(self) -> str:
        """The result in one line: `275 frames, 6 faces, 52.1 frames per second`."""
        dropped = self.reader.read - self._frames if self.reader.live else 0
        of_all = f" of {self.reader.read}" if dropped > 0 else ""
        rate = self._frames / self._seconds if self._seconds else 0.0
        frames = "frame" if self._frames == 1 and not of_all else "frames"
        faces = "face" if self.tracker.count == 1 else "faces"
        return f"{self._frames}{of_all} {frames}, {self.tracker.count} {faces}, {rate:.1f} frames per second"


def in_video(settings: VideoPredictor) -> VideoPredictor:
    """The settings for frames of a video, where `small_faces_in_video` replaces `small_faces`."""
    return dataclasses.replace(settings, small_faces=settings.small_faces_in_video)


def check_outputs(
    settings: VideoPredictor, source: str, output: str | None, log: str | None, report: str | None
) -> None:
    """Raises UserError when an output cannot be written or would overwrite the source, or when nothing is asked for."""
    asked = (("--output", output, tuple(CODECS)), ("--log", log, LOGS), ("--report", report, REPORTS))
    for name, path, suffixes in asked:
        if path is None:
            continue
        if Path(path).suffix.lower() not in suffixes:
            raise UserError(f"{name}={path} has none of the suffixes {' '.join(suffixes)}")
        if Path(path).is_dir():
            raise UserError(f"{name}={path} is a folder: name a file")
        if is_same(path, source):
            raise UserError(f"{name}={path} would overwrite the video that is read: name another file")
    if report is not None:
        check_writable(Path(report).parent)
    if not settings.window and output is None and log is None and report is None:
        raise UserError(
            "nothing to do without a window: add --output=annotated.mp4, --log=faces.csv or --report=page.html"
        )
