"""Sessions: successive frames of one camera or video, whose faces keep their numbers and are smoothed over time."""

import math
import secrets
import threading
import time
from typing import TYPE_CHECKING

import numpy as np

from ferkit.recognition import Recognizer
from ferkit.web.problems import Problem, busy

if TYPE_CHECKING:
    from ferkit.video.tracking import Tracked

_MOST = 64  # sessions at a time: a new one ends the one that was used least recently
_IDLE = 60.0  # seconds without a frame after which a session ends


class Session:
    """The frames of one camera or video, one after another."""

    def __init__(self, recognizer: Recognizer):
        from ferkit.video.tracking import Tracker  # here, because it imports SciPy, without which the server starts

        self.recognizer = recognizer
        self.used = time.monotonic()
        self._began = self.used
        self._tracker = Tracker(recognizer.settings.smoothing, recognizer.settings.lost_face)
        self._frames, self._latest = 0, -math.inf
        self._lock = threading.Lock()

    def track(self, image: np.ndarray, seconds: float | None) -> "list[Tracked]":
        """The faces of the next frame, with their numbers. seconds: its time stamp, None for the present time.

        Raises Problem when another frame of this session is being recognized. When the time goes back, as in a video
        that is played again, all faces are new ones.
        """
        from ferkit.video.source import Frame
        from ferkit.video.tracking import Tracker

        if not self._lock.acquire(blocking=False):
            raise busy(429, "Another frame of this session is being recognized: send one at a time.")
        try:
            now = time.monotonic()
            seconds = now - self._began if seconds is None else seconds
            if seconds < self._latest:
                count = self._tracker.count
                self._tracker = Tracker(self._tracker.smoothing, self._tracker.lost_face)
                self._tracker.count = count
            frame = Frame(self._frames, seconds, image, now)
            tracked = self._tracker.update(frame, self.recognizer.recognize(image, self._tracker.expected(frame)))
            self._frames, self._latest = self._frames + 1, seconds
            return tracked
        finally:
            self.used = time.monotonic()
            self._lock.release()


class Sessions:
    """All sessions by their identifiers, which cannot be guessed. Their number and their idle time are limited."""

    def __init__(self, most: int = _MOST, idle: float = _IDLE):
        self.most, self.idle = most, idle
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._sessions)

    def start(self, recognizer: Recognizer) -> str:
        """Starts a session. Returns its identifier."""
        session, name = Session(recognizer), secrets.token_urlsafe(16)
        with self._lock:
            self._end_idle()
            while len(self._sessions) >= self.most:
                del self._sessions[min(self._sessions, key=lambda name: self._sessions[name].used)]
            self._sessions[name] = session
        return name

    def get(self, name: str) -> Session:
        """The session with this identifier. Raises Problem when there is none, or none any more."""
        with self._lock:
            self._end_idle()
            if name not in self._sessions:
                raise Problem(404, "There is no such session, or it has ended: start a new one.")
            return self._sessions[name]

    def end(self, name: str) -> None:
        """Ends a session. It does not matter whether there is one."""
        with self._lock:
            self._sessions.pop(name, None)

    def _end_idle(self) -> None:
        oldest = time.monotonic() - self.idle
        self._sessions = {name: session for name, session in self._sessions.items() if session.used >= oldest}
