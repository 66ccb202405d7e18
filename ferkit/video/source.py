"""Frames of a camera, a video file, a sequence of pictures or a stream, read in a thread of their own.

with open_video("clip.mp4") as video, Reader(video) as reader:
    while not reader.ended:
        frame = reader.take(timeout=0.05)  # None: nothing yet

OpenCV reads cameras, PyAV (FFmpeg) files and streams, Pillow numbered pictures.
"""

import contextlib
import itertools
import math
import re
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import av
import av.container
import cv2
import numpy as np
from av.stream import Disposition

from ferkit.errors import UserError, without_credentials
from ferkit.files import open_file
from ferkit.vision.pictures import read_image

_AHEAD = 4  # frames of a file that are read in advance
_LIVE_SECONDS = 3.0  # seconds without a frame after which a camera counts as ended
_TIMEOUT = (10.0, 5.0)  # seconds to wait for a stream to open, and for its next frame
_LONGEST_READ = 12.0  # seconds that a read can take: OpenCV gives up on a camera that hangs after ten
_MISSING = 0.05  # share of a file that may be missing at its end: some formats only estimate their length
_RATE, _RATES = 25.0, (0.1, 1000.0)  # frames per second: used if the source gives none, and the range that is trusted
_MEASURED = 240  # frames whose time stamps give the rate of a file
_WIDEST_PIXEL = 10  # the greatest ratio of a pixel's sides that is trusted
_NUMBER = re.compile(r"%(0?\d{0,2})d")  # in the names of numbered pictures
_FIRST_NUMBERS = range(5)  # with which numbered pictures may begin
# How to turn the frames of a telephone, by the angle in their metadata.
_TURNS = {
    90: cv2.ROTATE_90_COUNTERCLOCKWISE,
    -90: cv2.ROTATE_90_CLOCKWISE,
    180: cv2.ROTATE_180,
    -180: cv2.ROTATE_180,
}


class Frame(NamedTuple):
    """One picture of a video."""

    number: int  # from 0
    seconds: float  # time stamp; for a live source, the time since its first frame
    image: np.ndarray  # BGR (H, W, 3) uint8
    read_at: float  # time.monotonic()


class Source(Protocol):
    """What a `Reader` reads: frames, once and in order. `live`: they arrive whether or not anybody reads them."""

    live: bool

    def __iter__(self) -> Iterator[Frame]: ...


class Video:
    """An open video. `live`: a camera or a stream; `rate`: frames per second; `length`: in frames, None if unknown."""

    live = False
    rate = _RATE
    length: int | None = None
    damaged = 0  # frames so far that could not be decoded and were skipped

    def __init__(self, name: str):
        self.name = name
        self._reading = threading.Lock()  # the libraries crash when a video is closed during a read

    def __iter__(self) -> Iterator[Frame]:
        """Every frame that can be decoded.

        Raises UserError when there is none, when a file is cut short, and when a live source ends.
        """
        images = self._images()
        previous, started = -math.inf, None
        for number in itertools.count():
            with self._reading:
                got = next(images, None)
            if got is None:
                break
            seconds, image = got
            if image is None:
                self.damaged += 1
                continue
            read_at = time.monotonic()
            started = read_at if started is None else started
            if self.live:
                seconds = read_at - started
            elif seconds is None or seconds <= previous:  # no time stamp, or a wrong one
                seconds = max(number / self.rate, previous + 1 / self.rate)
            previous = seconds
            yield Frame(number, seconds, image, read_at)
        if self.live:
            raise UserError(f"{self.name} gives no more frames: the camera or the stream has ended, start again")
        if started is None:
            raise UserError(f"cannot read {self.name}: no frame of it can be decoded")
        if self._is_cut_short():
            raise UserError(f"{self.name} ends after frame {number} of {self.length}: it is damaged or cut short")

    def sound(self) -> Iterator[tuple[float, av.AudioFrame]]:
        """Pieces of the sound, with their seconds on the clock of the frames. Only files have sound."""
        yield from ()

    def close(self) -> None:
        """Releases the device or the file. If a thread still waits for a read, the end of the process releases it."""
        if self._reading.acquire(timeout=1):
            self._release()
            self._reading.release()

    def _images(self) -> Iterator[tuple[float | None, np.ndarray | None]]:
        """The seconds of each frame, None for one without a time stamp; its image, None for one that is damaged."""
        raise NotImplementedError

    def _is_cut_short(self) -> bool:
        return False

    def _release(self) -> None:
        pass


class Camera(Video):
    """A camera, by its number or its device."""

    live = True

    def __init__(self, source: str):
        super().__init__(f"camera {source}")
        self._capture = cv2.VideoCapture()
        with contextlib.suppress(cv2.error, OverflowError):  # raised for a number that no camera has
            self._capture.open(int(source) if source.isdecimal() else source)
        if not self._capture.isOpened():
            raise UserError(
                f"cannot open camera {source}: connect one, or give another with --source=NUMBER, or a video's file"
            )
        self.rate = _trusted(self._capture.get(cv2.CAP_PROP_FPS))

    def _images(self) -> Iterator[tuple[None, np.ndarray]]:
        waiting_since = time.monotonic()
        while time.monotonic() - waiting_since < _LIVE_SECONDS:
            image = None
            with contextlib.suppress(cv2.error):
                _, image = self._capture.read()
            if image is None:
                time.sleep(0.01)
                continue
            yield None, image
            waiting_since = time.monotonic()

    def _release(self) -> None:
        self._capture.release()


class Pictures(Video):
    """Numbered pictures, like frames/%04d.png, up to the first number that is missing."""

    def __init__(self, pattern: str):
        super().__init__(pattern)
        first = next((number for number in _FIRST_NUMBERS if numbered(pattern, number).is_file()), None)
        if first is None:
            raise UserError(f"cannot open {pattern}: no pictures of such names, counted from 0 to 4 or on")
        paths = (numbered(pattern, number) for number in itertools.count(first))
        self._paths = list(itertools.takewhile(Path.is_file, paths))
        self.length = len(self._paths)

    def _images(self) -> Iterator[tuple[None, np.ndarray | None]]:
        for path in self._paths:
            try:
                yield None, read_image(path)
            except UserError:
                yield None, None


class Film(Video):
    """A video file, or a stream from the network."""

    def __init__(self, source: str, address: bool):
        super().__init__(_name_of(source, address))
        self._source, self._address = source, address
        if not address and not Path(source).is_dir():
            open_file(source).close()  # raises UserError for a pipe, and without a permission
        self._container = self._open()
        stream: Any = self._container.streams.best("video")
        if stream is None or stream.disposition & Disposition.attached_pic:
            self._container.close()
            raise UserError(f"cannot open {self.name}: it has no video, at most a cover picture")
        self._stream = stream
        self._start = float((stream.start_time or 0) * (stream.time_base or 0))
        self._end = 0.0  # of what was read so far, in seconds after `_start`
        seconds = (self._container.duration or 0) / av.time_base
        given = _trusted(float(stream.average_rate or 0))
        self._is_file = not address and Path(source).is_file()  # no stream, no pipe: it can be opened again
        self.live = seconds <= 0 and not self._is_file
        self.rate = (self._measured_rate() if self._is_file else None) or given
        self._seconds = max(seconds, stream.frames / given)
        self.length = stream.frames or round(seconds * self.rate) or None
        if not self.live:
            stream.thread_type = "AUTO"  # faster, but the first frames come later

    def _open(self) -> av.container.InputContainer:
        # The prefix "file:", because 12:30.mp4 would be an address without it.
        place = self._source if self._address else f"file:{self._source}"
        options = {"rtsp_transport": "tcp"} if place.lower().startswith("rtsp") else {}
        try:
            return av.open(
                place, timeout=_TIMEOUT if self._address else None, options=options, metadata_errors="replace"
            )
        except (av.FFmpegError, ValueError) as error:
            raise UserError(_why_not(self._source, self._address)) from error

    def _measured_rate(self) -> float | None:
        """The rate by the first time stamps, as headers can be wrong: browsers write 1000 frames per second."""
        with self._open() as container:
            packets = _readable(container.demux(container.streams[self._stream.index]))
            stamps = [packet.dts for packet in itertools.islice(packets, _MEASURED) if packet.dts is not None]
        if len(set(stamps)) < 2:
            return None
        rate = (len(stamps) - 1) / float((stamps[-1] - stamps[0]) * self._stream.time_base)
        return rate if _trusted(rate) == rate else None

    def _images(self) -> Iterator[tuple[float | None, np.ndarray | None]]:
        for packet in _readable(self._container.demux()):
            if packet.dts is not None and packet.time_base is not None:
                end = float((packet.dts + (packet.duration or 0)) * packet.time_base) - self._start
                self._end = max(self._end, end)
            if packet.stream_index == self._stream.index:
                for frame in _decoded(packet):
                    if frame is not None:
                        yield None if frame.time is None else frame.time - self._start, self._upright(frame)
                    elif not self.live:
                        yield None, None

    def _upright(self, frame: av.VideoFrame) -> np.ndarray:
        """The frame as players show it: with square pixels, and turned as the telephone was held."""
        shape = self._stream.sample_aspect_ratio or 1
        if not 1 / _WIDEST_PIXEL <= shape <= _WIDEST_PIXEL:
            shape = 1
        image = frame.to_ndarray(format="bgr24", width=max(1, round(frame.width * shape)), height=frame.height)
        turn = _TURNS.get(frame.rotation)
        return image if turn is None else cv2.rotate(image, turn)

    def _is_cut_short(self) -> bool:
        """Whether the file ended long before the time that its header gives, with its images and its sound."""
        return self._end > 0 and self._seconds - self._end > max(1.0, _MISSING * self._seconds)

    def sound(self) -> Iterator[tuple[float, av.AudioFrame]]:
        if not self._is_file:
            return
        with self._open() as container:
            stream = container.streams.best("audio")
            for packet in _readable(container.demux(stream)) if stream is not None else ():
                for frame in _decoded(packet):
                    if frame is not None and frame.time is not None:
                        yield frame.time - self._start, frame

    def _release(self) -> None:
        self._container.close()


def _readable(packets: Iterator[av.Packet]) -> Iterator[av.Packet]:
    """The packets up to the first that cannot be read."""
    with contextlib.suppress(av.FFmpegError):
        yield from packets


def _decoded(packet: av.Packet) -> Iterator[Any]:
    """The frames that a packet completes; None for damaged data."""
    try:
        yield from packet.decode()
    except av.FFmpegError:
        yield None


def _trusted(rate: float) -> float:
    """The frame rate that a header gives, or a usual one where it gives none or an impossible one."""
    return rate if _RATES[0] <= rate <= _RATES[1] else _RATE


def numbered(pattern: str, number: int) -> Path:
    """The path of a numbered picture: frames/%04d.png and 7 give frames/0007.png."""
    return Path(_NUMBER.sub(lambda found: f"{number:{found[1]}d}", pattern))


@contextlib.contextmanager
def open_video(source: str) -> Iterator[Video]:
    """Opens the video that `source` names: a camera's number, a file, a pattern like frames/%04d.png, a stream's URL.

    Raises UserError when it cannot be opened.
    """
    video: Video
    if Path(source).is_char_device() or (source.isdecimal() and not Path(source).exists()):
        video = Camera(source)
    elif Path(source).exists():
        video = Film(source, address=False)
    elif re.match(r"[a-z][a-z0-9+.-]+://", source, re.IGNORECASE):
        video = Film(source, address=True)
    elif _NUMBER.search(source):
        video = Pictures(source)
    else:
        raise UserError(f"cannot open {source}: no such file")
    with contextlib.closing(video):
        yield video


def _name_of(source: str, address: bool) -> str:
    """The name of a file or a stream to print, without what an address may keep secret: a login, or its options."""
    return without_credentials(source).partition("?")[0] if address else source


def _why_not(source: str, address: bool) -> str:
    if address:
        name = _name_of(source, address)
        return f"cannot open {name}: no stream there that can be read; check the address and the network"
    if Path(source).is_dir():
        return f"cannot open {source}: it is a folder; its pictures are a pattern like {source.rstrip('/')}/%04d.png"
    if Path(source).stat().st_size == 0:
        return f"cannot open {source}: the file is empty"
    return f"cannot open {source}: it is not a video of a known format, or is cut short"


class Reader:
    """Reads a source in a thread of its own, so that the next frame is ready when it is needed.

    For a live source only the newest frame is kept, so that slow recognition does not fall behind. For other sources
    no frame is dropped, and the thread waits. If reading fails, `take` raises the error after the frames read before.
    """

    def __init__(self, source: Source):
        self.read = 0  # frames so far, including the dropped ones
        self.live = source.live
        self._source: Iterable[Frame] = source
        self._frames: deque[Frame] = deque(maxlen=1 if source.live else None)
        self._changed = threading.Condition()
        self._stopped = self._finished = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="reader", daemon=True)

    def __enter__(self) -> "Reader":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(_LONGEST_READ)  # Python must not end while a thread is inside OpenCV

    @property
    def ended(self) -> bool:
        """Whether every frame was taken, and no more will come."""
        with self._changed:
            return self._finished and not self._frames and self._error is None

    def take(self, timeout: float) -> Frame | None:
        """The newest frame of a live source, the next frame of another; None if none arrives within `timeout` seconds.

        Raises the error that ended the source, if there was one.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._finished, timeout)
            if self._frames:
                frame = self._frames.popleft()
                self._changed.notify_all()
                return frame
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            return None

    def _work(self) -> None:
        try:
            for frame in self._source:
                with self._changed:
                    self._changed.wait_for(lambda: self._stopped or self.live or len(self._frames) < _AHEAD)
                    if self._stopped:
                        return
                    self.read += 1
                    self._frames.append(frame)
                    self._changed.notify_all()
        except BaseException as error:  # `take` raises it
            self._error = error
        finally:
            with self._changed:
                self._finished = True
                self._changed.notify_all()
