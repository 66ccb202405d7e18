"""A limit on how many pictures are recognized, and how many wait, at the same time."""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator

from ferkit.web.problems import busy


class Gate:
    """Lets `running` requests work at the same time, and `waiting` more wait for up to `patience` seconds.

    per_client: how many of these may belong to one address.
    """

    def __init__(self, running: int, waiting: int, per_client: int, patience: float):
        self.places = running + waiting
        self.per_client = per_client
        self.patience = patience
        self._running = threading.BoundedSemaphore(running)
        self._inside: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def entered(self, client: str) -> Iterator[None]:
        """Waits for a turn. Raises Problem: 429 when this client has too many requests, 503 when there are too many."""
        with self._lock:
            if self._inside[client] >= self.per_client:
                raise busy(429, f"More than {self.per_client} requests of yours at once: wait for their answers.")
            if self._inside.total() >= self.places:
                raise busy(503, "Too many pictures are waiting: try again in a moment.")
            self._inside[client] += 1
        try:
            if not self._running.acquire(timeout=self.patience):
                raise busy(503, f"The picture has waited for {self.patience:g} seconds: try again in a moment.")
            try:
                yield
            finally:
                self._running.release()
        finally:
            with self._lock:
                self._inside[client] -= 1
                if not self._inside[client]:
                    del self._inside[client]
