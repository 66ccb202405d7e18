"""The window, on a virtual screen: what is seen there, and what the keys do."""

import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, moving_faces, write_video

from ferkit.vision.pictures import read_image

Xlib = pytest.importorskip("Xlib", reason="python-xlib is not installed: pip install -r requirements-dev.txt")

from Xlib import XK, X, display  # noqa: E402 only once it is known to be there
from Xlib.ext import xtest  # noqa: E402
from Xlib.protocol import event  # noqa: E402

TITLE = "predict-from-video.py"
SECONDS = 60  # that a slow machine may take for anything


class Screen:
    """A virtual screen of 800×600 pixels: an eye and a hand."""

    def __init__(self, name: str):
        self.name = name
        self.display = display.Display(name)
        self.root = self.display.screen().root

    def window(self):
        """The program's window, None when there is none."""
        for window in self.root.query_tree().children:
            if window.get_wm_name() == TITLE and window.get_attributes().map_state == X.IsViewable:
                return window
        return None

    def picture(self) -> np.ndarray:
        """What the window shows: BGR (H, W, 3)."""
        window = self.window()
        size = window.get_geometry()
        pixels = window.get_image(0, 0, size.width, size.height, X.ZPixmap, 0xFFFFFFFF).data
        return np.frombuffer(pixels, np.uint8).reshape(size.height, size.width, 4)[..., :3]

    def press(self, key: str) -> None:
        self.window().set_input_focus(X.RevertToPointerRoot, X.CurrentTime)  # as a window manager does
        code = self.display.keysym_to_keycode(XK.string_to_keysym(key))
        for action in (X.KeyPress, X.KeyRelease):
            xtest.fake_input(self.display, action, code)
        self.display.sync()

    def close_window(self) -> None:
        """As a click on the cross in the window's frame does."""
        window = self.window()
        atoms = [self.display.intern_atom(name) for name in ("WM_PROTOCOLS", "WM_DELETE_WINDOW")]
        data = (32, [atoms[1], X.CurrentTime, 0, 0, 0])
        window.send_event(event.ClientMessage(window=window, client_type=atoms[0], data=data), event_mask=0)
        self.display.sync()


@pytest.fixture(scope="module")
def screen() -> Iterator[Screen]:
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed: apt-get install xvfb")
    told, tell = os.pipe()  # the server finds a free number itself, and tells it when it is ready
    command = ["Xvfb", "-displayfd", str(tell), "-screen", "0", "800x600x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[tell], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(tell)
    try:
        assert select.select([told], [], [], SECONDS)[0], "Xvfb does not start"
        number = os.read(told, 16).decode().strip()
        assert number, "Xvfb cannot start"
        screen = Screen(f":{number}")
        yield screen
        screen.display.close()
    finally:
        os.close(told)
        server.terminate()
        server.wait(timeout=SECONDS)


@pytest.fixture(scope="module")
def slow_clip(tmp_path_factory) -> Path:
    """Twenty seconds of two drawn people: longer than anybody here looks."""
    return write_video(tmp_path_factory.mktemp("clip") / "slow.mp4", moving_faces(80), rate=4)


@pytest.fixture
def program(screen, slow_clip, raw_model, tmp_path) -> Iterator[subprocess.Popen]:
    """The program, whose window is open."""
    command = [sys.executable, str(ROOT / TITLE), f"--source={slow_clip}", f"--model_path={raw_model}"]
    command += ["--log=faces.csv", "--show_chart", "--show_frame_rate"]
    run = subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "DISPLAY": screen.name, "QT_QPA_PLATFORM": "xcb"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: run.poll() is not None or screen.window() is not None)
        assert run.poll() is None, run.communicate()
        yield run
    finally:
        run.kill()
        run.communicate()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def frames_logged(folder: Path) -> int:
    log = folder / "faces.csv"  # is there from the first frame on
    return len({row.split(",")[1] for row in log.read_text().splitlines()[1:]}) if log.exists() else 0


def frames_when_it_stands_still(folder: Path) -> int:
    """The number of frames once none comes for a second, in which there would be four; however busy the machine is."""
    before = -1
    while before != (now := frames_logged(folder)):
        before = now
        time.sleep(1)
    return now


def is_boxed(row: str, picture: np.ndarray) -> bool:
    """Whether the face of a row has a green box, but for what covers it."""
    x, y, width, height = (int(value) for value in row.split(",")[3:7])
    around = picture[max(0, y) : y + height, max(0, x) : x + width]
    green = around[..., 1].astype(int) - around[..., 2] > 100
    edges = green[:, :3].any(axis=1), green[:, -3:].any(axis=1), green[:3].any(axis=0), green[-3:].any(axis=0)
    return sum(edge.mean() > 0.9 for edge in edges) >= 2


def test_window_shows_boxes_and_expressions_and_obeys_its_keys(program, screen, tmp_path):
    wait_for(lambda: frames_logged(tmp_path) >= 4)
    screen.press("space")
    still = frames_when_it_stands_still(tmp_path)
    assert still < 80, "not at its end"
    assert screen.picture().shape == (240, 640, 3), "as large as the video"

    rows = (tmp_path / "faces.csv").read_text().splitlines()[-2:]
    wait_for(lambda: all(is_boxed(row, screen.picture()) for row in rows))  # a busy machine shows a frame after its row
    picture = screen.picture()
    for row in rows:
        x, y, _, height = (int(value) for value in row.split(",")[3:7])
        labels = [
            picture[max(0, y - 12) : y - 3, max(0, x) :][:, :60],
            picture[y + height + 3 :, max(0, x) :][:12, :60],
        ]
        texts = [((label > 200).all(axis=2).mean(), (label < 70).all(axis=2).mean()) for label in labels if label.size]
        assert any(white > 0.05 and dark > 0.2 for white, dark in texts), "white on dark, above the box or below"

    screen.press("Left")  # whose code ends as that of Q does
    screen.press("s")
    wait_for(lambda: list((tmp_path / "snapshots").glob("*.png")))
    (snapshot,) = (tmp_path / "snapshots").glob("*.png")
    np.testing.assert_array_equal(read_image(snapshot), picture)
    assert frames_logged(tmp_path) == still and screen.window() is not None

    screen.press("space")
    wait_for(lambda: frames_logged(tmp_path) >= still + 2)
    screen.press("q")
    output, errors = program.communicate(timeout=SECONDS)
    assert program.returncode == 0 and errors == ""
    assert output.startswith(f"Saved {snapshot.relative_to(tmp_path)}\n") and " frames, 2 faces, " in output
    assert frames_logged(tmp_path) < 80, "not at its end"


@pytest.mark.parametrize("end", ["Escape", "close"])
def test_escape_and_closing_the_window_end_it(program, screen, tmp_path, end):
    wait_for(lambda: frames_logged(tmp_path) >= 2)
    if end == "close":
        screen.close_window()
    else:
        screen.press(end)
    _, errors = program.communicate(timeout=SECONDS)
    assert program.returncode == 0 and errors == "" and frames_logged(tmp_path) < 80
    assert screen.window() is None
