"""A window that shows a video, and the keys that are pressed in it.

with Display() as display:
    display.check()
    with Window("title") as window:
        window.show(image)
        window.key(seconds=0.04)  # "q", " ", ...; "" when none was pressed
"""

import subprocess
import sys

import cv2
import numpy as np

from ferkit.errors import UserError

ESCAPE = "\x1b"
_GTK_ESCAPE = 0xFF1B
_LARGEST = (1280, 960)  # greatest size of a new window, in pixels; the user may enlarge it
_TRIAL = "import cv2; cv2.namedWindow('display')"


class Display:
    """Finds out whether a window can be opened here.

    OpenCV's Qt ends the whole process if there is no display. Therefore a second process tries to open one, while this
    process goes on.
    """

    def __init__(self) -> None:
        self._trial: subprocess.Popen | None = None

    def __enter__(self) -> "Display":
        if sys.platform not in ("win32", "darwin"):  # these systems always have a display
            nowhere = subprocess.DEVNULL
            command = [sys.executable, "-c", _TRIAL]
            self._trial = subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._trial is not None:
            self._trial.kill()
            self._trial.wait()

    def check(self) -> None:
        """Raises UserError when no window can be opened."""
        if self._trial is not None and self._trial.wait() != 0:
            raise UserError(
                "no window can be opened: there is no display here, or OpenCV came without windows; use "
                "--window=no --output=annotated.mp4 or --log=faces.csv, or set DISPLAY"
            )


class Window:
    """A resizable window. It opens with the first image. Once the user closes it, it stays closed."""

    def __init__(self, title: str):
        self.title = title
        self.closed = False
        self._opened = False

    def __enter__(self) -> "Window":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._opened and not self.closed:
            cv2.destroyAllWindows()

    def show(self, image: np.ndarray) -> None:
        """Puts a BGR image into the window. It appears during the next call of `key`."""
        if self.closed:
            return
        if not self._opened:
            cv2.namedWindow(self.title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
            height, width = image.shape[:2]
            scale = min(1.0, _LARGEST[0] / width, _LARGEST[1] / height)
            cv2.resizeWindow(self.title, max(1, round(width * scale)), max(1, round(height * scale)))
            self._opened = True
        cv2.imshow(self.title, image)

    def key(self, seconds: float) -> str:
        """Waits `seconds`, at least one millisecond, for a key. Returns the key, or "" if none was pressed."""
        if not self._opened or self.closed:
            return ""
        code = cv2.waitKeyEx(max(1, int(seconds * 1000))) & 0xFFFF  # waitKey confuses the left arrow with Q
        try:
            self.closed = cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) < 1
        except cv2.error:  # Qt raises it when the window is gone
            self.closed = True
        if code == _GTK_ESCAPE:
            return ESCAPE
        return chr(code) if code < 128 else ""
