"""Frames of a camera, a video file, a sequence of pictures or a stream, read in a thread of their own.

with open_video("clip.mp4") as video, Reader(video) as reader:
    while not reader.ended:
        frame = reader.take(timeout=0.05)  # None: nothing yet
"""

import contextlib
import math
import re
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from ferkit.errors import UserError, without_credentials

_AHEAD = 4  # frames of a file that are read in advance
_TRIES = 64  # failed reads after which a file counts as ended; after fewer, damaged frames are skipped
_LIVE_SECONDS = 3.0  # seconds without a frame after which a camera or a stream counts as ended
_OPEN_TIMEOUT, _READ_TIMEOUT = 10_000, 5_000  # milliseconds to wait for a stream
_LONGEST_READ = 12.0  # seconds that a read can take: OpenCV gives up on a camera that hangs after ten
_MISSING = 0.05  # share of a file's frames that may be missing at its end: some formats only estimate their number
_RATE, _RATES = 25.0, (0.1, 1000.0)  # frames per second: used if the source gives none, and the range that is trusted


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

    def __init__(self, name: str, capture: cv2.VideoCapture, live: bool, counted: bool):
        self.name = name
        self._capture = capture
        self._reading = threading.Lock()  # OpenCV crashes when a capture is released during a read
        rate = capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if _RATES[0] <= rate <= _RATES[1] else _RATE
        length = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.length = int(length) if not live and length > 0 else None
        self.live = live
        self._counted = counted  # whether `length` is exact
        self.damaged = 0  # frames so far that could not be decoded and were skipped

    def __iter__(self) -> Iterator[Frame]:
        """Every frame that can be decoded.

        Raises UserError when there is none, when a file is cut short, and when a live source ends.
        """
        number, seconds, started = 0, -math.inf, 0.0
        while (got := self._read(number)) is not None:
            passed, image = got
            read_at = time.monotonic()
            started = started or read_at
            number, self.damaged = number + passed, self.damaged + passed
            seconds = read_at - started if self.live else self._time_stamp(number, seconds)
            yield Frame(number, seconds, image, read_at)
            number += 1
        if self.live:
            raise UserError(f"{self.name} gives no more frames: the camera or the stream has ended, start again")
        if number == 0:
            raise UserError(f"cannot read {self.name}: no frame of it can be decoded")
        if self._counted:
            self.damaged += max(0, (self.length or 0) - number)  # the frames missing at the end
        elif self._cut_short(number, seconds):
            raise UserError(f"{self.name} ends after frame {number} of {self.length}: it is damaged or cut short")

    def _read(self, number: int) -> tuple[int, np.ndarray] | None:
        """How many frames were skipped because they could not be decoded, and the next frame; None at the end."""
        passed, began = 0, time.monotonic()
        while True:
            with self._reading:
                try:
                    _, image = self._capture.read()
                except cv2.error:
                    image = None
            if image is not None:
                return (0 if self.live else passed), image
            passed += 1
            if self.live:
                if time.monotonic() - began > _LIVE_SECONDS:
                    return None
                time.sleep(0.01)
            elif passed >= _TRIES or (self.length is not None and number + passed > self.length):
                return None

    def _time_stamp(self, number: int, previous: float) -> float:
        """Seconds from the file's beginning to its newest frame; estimated from the frame rate if the file has none."""
        seconds = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if math.isfinite(seconds) and seconds > previous:
            return seconds
        return number / self.rate if number / self.rate > previous else previous + 1 / self.rate

    def _cut_short(self, number: int, seconds: float) -> bool:
        """Whether the file ended before both the number of frames and the duration that its header gives."""
        if self.length is None:
            return False
        missing, silent = self.length - number, self.length / self.rate - seconds
        return missing > _MISSING * self.length and silent > max(1.0, _MISSING * self.length / self.rate)

    def close(self) -> None:
        """Releases the device or the file. If a thread still waits for a read, the end of the process releases it."""
        if self._reading.acquire(timeout=1):
            self._capture.release()
            self._reading.release()


@contextlib.contextmanager
def open_video(source: str) -> Iterator[Video]:
    """Opens the video that `source` names: a camera's number, a file, a pattern like frames/%04d.png, a stream's URL.

    Raises UserError when it cannot be opened.
    """
    camera = source.isdecimal() and not Path(source).exists()
    address = re.match(r"[a-z][a-z0-9+.-]+://", source, re.IGNORECASE) is not None
    capture = cv2.VideoCapture()
    with contextlib.suppress(cv2.error):  # raised for a number that no camera has
        if camera:
            capture.open(int(source))
        elif address:
            limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _OPEN_TIMEOUT, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _READ_TIMEOUT]
            capture.open(source, cv2.CAP_FFMPEG, limits)
        else:
            capture.open(source)
    if not capture.isOpened():
        raise UserError(_why_not(source, camera, address))
    endless = capture.get(cv2.CAP_PROP_FRAME_COUNT) <= 0 and not Path(source).is_file()
    name = f"camera {source}" if camera else _name_of(source, address)
    counted = "%" in source and not address and not Path(source).exists()
    with contextlib.closing(Video(name, capture, live=camera or endless, counted=counted)) as video:
        yield video


def _name_of(source: str, address: bool) -> str:
    """The name of a file or a stream to print, without what an address may keep secret: a login, or its options."""
    return without_credentials(source).partition("?")[0] if address else source


def _why_not(source: str, camera: bool, address: bool) -> str:
    if camera:
        return f"cannot open camera {source}: connect one, or give another with --source=NUMBER, or a video's file"
    if address:
        name = _name_of(source, address)
        return f"cannot open {name}: no stream there that can be read; check the address and the network"
    if Path(source).is_dir():
        return f"cannot open {source}: it is a folder; its pictures are a pattern like {source.rstrip('/')}/%04d.png"
    if Path(source).is_file():
        if Path(source).stat().st_size == 0:
            return f"cannot open {source}: the file is empty"
        return f"cannot open {source}: it is not a video of a known format, or is cut short"
    if "%" in source:
        return f"cannot open {source}: no pictures of such names, counted from 0 to 4 or on"
    return f"cannot open {source}: no such file"


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
