"""What the tests share: a small dataset of drawn faces, and the real one where FER2013_CSV names it."""

import contextlib
import fcntl
import http.client
import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
import slim
from slim import ROOT, load_script

from ferkit.data import conversion
from ferkit.data.dataset import open_dataset
from ferkit.data.drawn_faces import draw_photo, write_csv
from ferkit.learning.run import Run
from ferkit.learning.training import train
from ferkit.settings import Hyperparams, Network, Training
from model import ARCHITECTURES

__all__ = ["ROOT", "load_script"]


# Files that take longest, for which no process should wait at the end.
LONGEST = (
    "test_results",
    "test_search",
    "test_training",
    "test_pipeline",
    "test_search_mongo",
    "test_batch",
    "test_page",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs the real FER2013 is slow. The longest files begin."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)
    for item in items:
        if "fer2013_csv" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_works() -> None:
    """In a shell's background job Ctrl-C is ignored, and the processes that the tests start would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def slim_model() -> None:
    """Every test may use the slim network, under the name `slim`."""
    slim.register()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this run of the tests, which all its processes share. Tests only read what is in it."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@contextlib.contextmanager
def made_once(path: Path) -> Iterator[bool]:
    """Gives whether `path` is still to be made, to one process at a time."""
    path.parent.mkdir(exist_ok=True)
    with path.with_name(f"{path.name}.made_once").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield not path.exists()


@pytest.fixture(scope="session")
def drawn_csv(shared: Path) -> Path:
    """A fer2013.csv of drawn faces: 700 Training, 140 PublicTest, 140 PrivateTest."""
    path = shared / "drawn" / "fer2013.csv"
    with made_once(path) as missing:
        if missing:
            write_csv(path, 700, 140, 140, seed=1)
    return path


@pytest.fixture(scope="session")
def drawn_dataset(drawn_csv: Path) -> Path:
    """The drawn faces converted, with every feature."""
    folder, parts = drawn_csv.with_name("features"), ["landmarks", "hog_features", "hog_windows"]
    with made_once(folder) as missing:
        if missing:
            conversion.convert(str(drawn_csv), str(folder), range(7), parts, processes=2)
    return folder


@pytest.fixture(scope="session")
def small_model(drawn_dataset: Path, shared: Path) -> Path:
    """The slim network with landmarks, trained on the drawn faces until it knows most of their expressions."""
    return trained_once(drawn_dataset, "landmarks", epochs=8, folder=shared / "small_model")


@pytest.fixture(scope="session")
def raw_model(drawn_dataset: Path, shared: Path) -> Path:
    """The slim network with nothing but the pixels, hardly trained."""
    return trained_once(drawn_dataset, "none", epochs=1, folder=shared / "raw_model")


def trained_once(dataset: Path, features: str, epochs: int, folder: Path) -> Path:
    with made_once(folder / "saved_model.bin") as missing:
        return train_model(dataset, features, epochs, folder) if missing else folder / "saved_model.bin"


def train_model(dataset: Path, features: str, epochs: int, folder: Path, output_size: int = 7) -> Path:
    places = {"checkpoint_folder": str(folder / "checkpoints"), "logs_folder": str(folder / "logs")}
    training = Training(epochs=epochs, save_model_path=str(folder / "saved_model.bin"), **places)
    hyperparams = Hyperparams(optimizer="adam", optimizer_param=0.9, learning_rate=2e-3, batch_size=32)
    network = Network(model="slim", features=features, standardize=True, output_size=output_size)
    train(Run(open_dataset(dataset), ARCHITECTURES["slim"], network, hyperparams, training))
    return folder / "saved_model.bin"


@pytest.fixture(scope="session")
def fer2013_csv() -> str:
    """The real FER2013."""
    path = os.environ.get("FER2013_CSV")
    if not path:
        pytest.skip("FER2013_CSV does not name the real fer2013.csv")
    return str(Path(path).resolve())


def moving_faces(count: int) -> Iterator[np.ndarray]:
    """Frames 640×240 of two drawn people, who sway: left a happy one, right a surprised one."""
    people = [draw_photo((label,), np.random.default_rng(5), height=280, width=420)[0] for label in (3, 5)]
    for number in range(count):
        phase = 2 * math.pi * number / 60
        right, down = round(50 + 50 * math.sin(phase)), round(20 + 20 * math.cos(2 * phase))
        views = [
            people[0][down : down + 240, right : right + 320],
            people[1][down : down + 240, 100 - right :][:, :320],
        ]
        yield np.hstack(views)


def write_video(path: Path, frames: Iterable[np.ndarray], rate: float) -> Path:
    """Writes the frames (H, W, 3) uint8 as a video."""
    writer = None
    for frame in frames:
        if writer is None:
            codec = cv2.VideoWriter_fourcc(*("MJPG" if path.suffix == ".avi" else "mp4v"))
            writer = cv2.VideoWriter(str(path), codec, rate, frame.shape[1::-1])
        writer.write(frame)
    writer.release()
    return path


def read_video(path: Path) -> tuple[list[np.ndarray], float]:
    """Every frame of a video, and its frames per second."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (got := capture.read())[0]:
        frames.append(got[1])
    return frames, capture.get(cv2.CAP_PROP_FPS)


def command_line(script: str, *arguments: str, slim: bool = False) -> list[str]:
    """The command that runs one of the toolkit's scripts, or a module like experiments.train_svm, as a user would.

    slim: with the slim network among the architectures.
    """
    if not script.endswith(".py"):
        return [sys.executable, "-m", script, *arguments]
    wrapper = [str(ROOT / "tests" / "slim.py"), script] if slim else [str(ROOT / script)]
    return [sys.executable, *wrapper, *arguments]


def run_script(
    script: str, *arguments: str, cwd: Path, timeout: float = 300, slim: bool = False
) -> subprocess.CompletedProcess[str]:
    """Runs one of the toolkit's scripts in `cwd`: see command_line."""
    return subprocess.run(
        command_line(script, *arguments, slim=slim),
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )


def assert_one_line_error(run: subprocess.CompletedProcess[str], *fragments: str) -> None:
    """One clear line on stderr that names what `fragments` say, exit status 2, no traceback."""
    assert run.returncode == 2, (run.returncode, run.stderr)
    errors = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "Traceback" not in run.stderr, run.stderr
    for fragment in fragments:
        assert fragment in errors[0]


JPEG = {"Content-Type": "image/jpeg"}


class Server:
    """serve.py as a process of its own."""

    def __init__(self, *flags: str):
        command = [sys.executable, str(ROOT / "serve.py"), "--port=0", "--model_path=ferplus", *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        line = self.process.stdout.readline()
        self.address = re.search(r"http://\S+", line)[0]
        self.host = urlsplit(self.address).netloc

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, timeout=60)

    def post(self, content: bytes, **headers: str) -> tuple[int, dict]:
        connection = self.connect()
        try:
            connection.request("POST", "/api/recognize", content, {**JPEG, **headers})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def memory(self) -> float:
        """Resident memory in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def stop(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGTERM)
        error = self.process.communicate(timeout=30)[1]
        return self.process.returncode, error


@contextlib.contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes in the code inside: the error of a full disk but for its number."""
    resource = pytest.importorskip("resource")
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture
def permissions_count() -> Iterator[None]:
    """Permissions of files count for this thread, even if it belongs to root, who may read and write everything."""
    if os.geteuid() != 0:
        yield
        return
    if sys.platform != "linux":
        pytest.skip("root may read and write everything")
    import ctypes

    system = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # capabilities of version 3, of this thread
    before = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then the same for those above 31
    assert system.capget(header, before) == 0
    without = (ctypes.c_uint32 * 6)(*before)
    without[0] &= ~0b1110  # of files' owners: DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER
    assert system.capset(header, without) == 0
    yield
    assert system.capset(header, before) == 0
