"""Recordings of a video: a copy with the faces drawn in, and a table of the faces.

    with Recorder("annotated.mp4", rate=30.0) as recorder, FaceLog("faces.csv", expressions) as log:
        recorder.write(image, seconds)
        log.write(frame.number, frame.seconds, tracked_faces)

Both files are also complete when Ctrl-C or an error ends the recording.
"""

import contextlib
import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import av
import av.container
import numpy as np

from ferkit.errors import UserError
from ferkit.files import check_beginning, check_writable, place_for, whole_file, written
from ferkit.processes import uninterrupted
from ferkit.recognition import Face
from ferkit.video.tracking import Tracked


class Codecs(NamedTuple):
    """How FFmpeg encodes the images and the sound of a format."""

    video: str
    options: dict[str, str]
    pixels: str
    sound: str


_H264 = Codecs("h264", {"preset": "ultrafast", "crf": "22"}, "yuv420p", "aac")  # plays in every browser
_MJPEG = Codecs("mjpeg", {"qmin": "2", "qmax": "3"}, "yuvj420p", "mp3")
CODECS = {".mp4": _H264, ".m4v": _H264, ".mov": _H264, ".mkv": _H264, ".avi": _MJPEG}  # by the file's suffix
LOGS = (".csv", ".jsonl")
_CLOCK = Fraction(1, 90_000)  # one tick of a recording's time stamps, in seconds
_COLUMNS = ("seconds", "frame", "face", "x", "y", "width", "height", "expression", "confidence", "score")  # of the CSV
_NAMES = ("seconds", "frame", "face", "box", "expression", "confidence", "score", "probabilities")  # in a line of JSON
_LONGEST_PAUSE = 10.0  # seconds without a frame in a live recording; a longer gap is a pause and is left out
LONGEST_STILL = 600.0  # the same for a file, where a longer gap is a jump in its time stamps


class Recorder:
    """Writes a video in which each image, and the sound, has the time that it has in the source.

    Pauses of a live source and jumps in a file's time stamps are left out. The video is written to a temporary file
    beside `path`, which is renamed to `path` at the end. All frames have the size of the first one, with even width and
    height.

    rate: frames per second of the source; the time stamps of an .avi are multiples of 1/rate. sound: see Video.sound.
    """

    def __init__(
        self, path: str | Path, rate: float, live: bool = False, sound: Iterable[tuple[float, av.AudioFrame]] = ()
    ):
        self.path = Path(path)
        self.longest_gap = _LONGEST_PAUSE if live else LONGEST_STILL
        self._codecs = CODECS[self.path.suffix.lower()]
        self._rate = Fraction(rate).limit_denominator(1001)
        self._clock = 1 / self._rate if self.path.suffix.lower() == ".avi" else _CLOCK
        self._sound = iter(sound)
        self._piece: tuple[float, av.AudioFrame] | None = None  # the next one of the sound
        self._file = contextlib.ExitStack()
        self._output: av.container.OutputContainer | None = None
        self._streams: list[Any] = []  # of the images, of the sound
        self._start = self._latest = 0.0  # seconds of the source: what becomes time 0, and the last image
        self._shown = -1  # time of the last image, in ticks of the clock
        self._heard = 0.0  # end of the sound, in seconds of the recording

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._output is None:
            return
        with uninterrupted(), self._errors(), self._file:  # an mp4 without its end cannot be played
            self._write_sound(self._latest + float(1 / self._rate))
            for stream in self._streams:
                self._output.mux(stream.encode())

    def write(self, image: np.ndarray, seconds: float) -> None:
        """Adds a BGR image that the source showed from `seconds` on."""
        with self._errors():
            output = self._output or self._open(image, seconds)
            self._write_sound(seconds)
            if seconds - self._latest > self.longest_gap:
                self._start += seconds - self._latest - float(1 / self._rate)
            self._latest = seconds
            stream = self._streams[0]
            frame = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(
                stream.width,
                stream.height,
                stream.pix_fmt,
                interpolation="AREA",  # a stream may change its size
            )
            self._shown = max(round((seconds - self._start) / self._clock), self._shown + 1)
            frame.pts, frame.time_base = self._shown, self._clock
            output.mux(stream.encode(frame))

    def _write_sound(self, until: float) -> None:
        """Adds the sound up to `until`, in seconds of the source. Sound in a gap that is left out is left out."""
        while self._output is not None and self._piece is not None and self._piece[0] < until:
            seconds, piece = self._piece
            self._piece = next(self._sound, None)
            if seconds - self._latest <= self.longest_gap and seconds - self._start >= self._heard:
                self._heard = seconds - self._start
                piece.pts = round(self._heard / (piece.time_base or 1))
                self._output.mux(self._streams[1].encode(piece))

    def _open(self, image: np.ndarray, seconds: float) -> av.container.OutputContainer:
        width, height = image.shape[1] // 2 * 2, image.shape[0] // 2 * 2
        self._piece = next(self._sound, None)
        with contextlib.ExitStack() as opened:
            temporary = opened.enter_context(whole_file(self.path))
            output = opened.enter_context(av.open(str(temporary), "w"))
            try:
                stream = output.add_stream(self._codecs.video, self._rate, self._codecs.options)
                stream.width, stream.height, stream.pix_fmt = width, height, self._codecs.pixels
                stream.codec_context.time_base = self._clock
                self._streams = [stream]
                if self._piece is not None:
                    self._streams.append(output.add_stream(self._codecs.sound, 48_000))
                output.start_encoding()
            except (av.FFmpegError, ValueError) as error:
                raise UserError(
                    f"cannot write {self.path}: no video of {image.shape[1]}×{image.shape[0]} pixels can be encoded as "
                    f"{self._codecs.video}"
                ) from error
            self._file = opened.pop_all()
        self._output, self._start, self._latest = output, seconds, seconds
        return output

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Reports what cannot be written, and leaves nothing of it."""
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            self._output = None
            with contextlib.suppress(av.FFmpegError, OSError):
                self._file.__exit__(type(error), error, error.__traceback__)
            reason = error.strerror or error
            raise UserError(f"cannot write {self.path} ({reason}): free space, or name another --output") from error


class FaceLog:
    """Writes one row for each face of each frame: a CSV file with a header, or one JSON object per line.

    Rows can be read while the file is being written. seconds and frame are those of the source. The box is in pixels.
    The probabilities are smoothed over time. empty_frames: a frame without a face has a row too, with empty cells. The
    log of an earlier video is replaced when the first frame comes. Raises UserError for a file that is no such log.
    """

    def __init__(self, path: str | Path, expressions: Sequence[str], empty_frames: bool = False):
        self.path = Path(path)
        self.empty_frames = empty_frames
        self._json = self.path.suffix.lower() == ".jsonl"
        self._columns = (*_COLUMNS, *expressions)
        self._file: TextIO | None = None
        check_beginning(path, f'{{"{_NAMES[0]}": '.encode() if self._json else ",".join(_COLUMNS).encode())
        check_writable(self.path.parent)

    def __enter__(self) -> "FaceLog":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            with written(self.path):
                self._file.close()

    def write(self, number: int, seconds: float, faces: Sequence[Tracked]) -> None:
        """Adds the faces of one frame."""
        with written(self.path):
            file = self._file = self._file or self._opened()
            if not faces and self.empty_frames:
                file.write(self._empty(number, round(seconds, 4)))
            for identity, face in faces:
                file.write(self._line(number, seconds, identity, face))

    def _opened(self) -> TextIO:
        file = open(place_for(self.path), "w", newline="", buffering=1, encoding="utf-8")  # noqa: SIM115 see __exit__
        if not self._json:
            file.write(_csv_line(self._columns))
        return file

    def _line(self, number: int, seconds: float, identity: int, face: Face) -> str:
        probabilities = {name: round(value, 4) for name, value in face.probabilities.items()}
        where = round(seconds, 4), number, identity
        what = face.expression, round(face.confidence, 4), round(face.score, 4)
        if self._json:
            row = dict(zip(_NAMES, (*where, list(face.box), *what, probabilities), strict=True))
            return json.dumps(row, ensure_ascii=False) + "\n"
        return _csv_line([*where, *face.box, *what, *probabilities.values()])

    def _empty(self, number: int, seconds: float) -> str:
        if self._json:
            return json.dumps({**dict.fromkeys(_NAMES), "seconds": seconds, "frame": number}) + "\n"
        return _csv_line([seconds, number, *[""] * (len(self._columns) - 2)])


def _csv_line(row: Iterable[object]) -> str:
    line = StringIO()
    csv.writer(line, lineterminator="\n").writerow(row)
    return line.getvalue()
