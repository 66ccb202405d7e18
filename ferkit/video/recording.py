"""Recordings of a video: a copy with the faces drawn in, and a table of the faces.

    with Recorder("annotated.mp4", rate=30.0) as recorder, FaceLog("faces.csv", expressions) as log:
        recorder.write(image, seconds)
        log.write(frame.number, frame.seconds, tracked_faces)

Both files are also complete when Ctrl-C or an error ends the recording.
"""

import contextlib
import csv
import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ferkit.errors import UserError
from ferkit.files import whole_file
from ferkit.processes import uninterrupted
from ferkit.video.tracking import Tracked

CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}  # by the file's suffix
LOGS = (".csv", ".jsonl")
_LONGEST_PAUSE = 10.0  # seconds without a frame in a live recording; a longer gap is a pause and is left out
LONGEST_STILL = 600.0  # the same for a file, where a longer gap is a jump in its time stamps


class Recorder:
    """Writes a video with a constant frame rate.

    Every image is shown at its time: images are repeated where the source was slower. Pauses of a live source and
    jumps in a file's time stamps are left out. The video is written to a temporary file beside `path`, which is renamed
    to `path` at the end. All frames have the size of the first one, with even width and height.
    """

    def __init__(self, path: str | Path, rate: float, live: bool = False):
        self.path = Path(path)
        self.rate = round(rate, 3 if rate < 65.5 else 2 if rate < 655 else None)  # the precision of MPEG-4's 16 bits
        self.longest_gap = _LONGEST_PAUSE if live else LONGEST_STILL
        self._file = contextlib.ExitStack()
        self._writer: cv2.VideoWriter | None = None
        self._temporary = self.path
        self._size = (0, 0)
        self._start = 0.0  # time of the first frame, in seconds
        self._written = 0

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._writer is None:
            return
        with uninterrupted(), self._file:  # an mp4 without its end cannot be played
            self._writer.release()
            if not self._is_whole():  # the writer reports no failure
                raise UserError(f"cannot write {self.path}: what was written cannot be played; is the disk full?")

    def _is_whole(self) -> bool:
        """Whether the file can be played and contains about as many frames as were written."""
        video = cv2.VideoCapture(str(self._temporary))
        try:
            return video.grab() and video.get(cv2.CAP_PROP_FRAME_COUNT) > 0.9 * self._written - 1
        finally:
            video.release()

    def write(self, image: np.ndarray, seconds: float) -> None:
        """Adds a BGR image that the source showed from `seconds` on."""
        writer = self._writer or self._open(image, seconds)
        if (image.shape[1], image.shape[0]) != self._size:  # a stream may change its size
            image = cv2.resize(image, self._size, interpolation=cv2.INTER_AREA)
        due = round((seconds - self._start) * self.rate) + 1 - self._written
        if due > self.longest_gap * self.rate:
            self._start += (due - 1) / self.rate
            due = 1
        for _ in range(due):
            writer.write(image)
        self._written += max(0, due)

    def _open(self, image: np.ndarray, seconds: float) -> cv2.VideoWriter:
        width, height = image.shape[1], image.shape[0]
        with contextlib.ExitStack() as opened:
            temporary = opened.enter_context(whole_file(self.path))
            codec = cv2.VideoWriter.fourcc(*CODECS[self.path.suffix.lower()])
            writer = cv2.VideoWriter(str(temporary), codec, self.rate, (width, height))
            if not writer.isOpened():
                raise UserError(f"cannot write {self.path}: no video of {width}×{height} pixels can be encoded")
            self._file = opened.pop_all()
        self._writer, self._temporary, self._size, self._start = writer, temporary, (width, height), seconds
        return writer


class FaceLog:
    """Writes one row for each face of each frame: a CSV file with a header, or one JSON object per line.

    Rows can be read while the file is being written. seconds and frame are those of the source. The box is in pixels.
    The probabilities are smoothed over time.
    """

    def __init__(self, path: str | Path, expressions: Sequence[str]):
        self.path = Path(path)
        self._json = self.path.suffix.lower() == ".jsonl"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "w", newline="", buffering=1, encoding="utf-8")  # noqa: SIM115 closed below
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror or error}") from error
        self._rows = csv.writer(self._file, lineterminator="\n")
        if not self._json:
            heading = ["seconds", "frame", "face", "x", "y", "width", "height", "expression", "confidence"]
            self._rows.writerow([*heading, *expressions])

    def __enter__(self) -> "FaceLog":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def write(self, number: int, seconds: float, faces: Sequence[Tracked]) -> None:
        """Adds the faces of one frame."""
        for identity, face in faces:
            probabilities = {name: round(value, 4) for name, value in face.probabilities.items()}
            where = round(seconds, 4), number, identity
            what = face.expression, round(face.confidence, 4)
            if self._json:
                names = ("seconds", "frame", "face", "box", "expression", "confidence", "probabilities")
                row = dict(zip(names, (*where, list(face.box), *what, probabilities), strict=True))
                self._file.write(json.dumps(row, ensure_ascii=False) + "\n")
            else:
                self._rows.writerow([*where, *face.box, *what, *probabilities.values()])
