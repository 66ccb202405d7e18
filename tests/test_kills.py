"""Commands that are ended at random moments: what they had written stays whole, nothing is left, and they go on.

make fuzz                                   # many of each, and what became of them
KILLS=20 python -m pytest -n 0 -m '' tests/test_kills.py
"""

import collections
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import av
import pytest
from conftest import ROOT, command_line, moving_faces, write_video
from PIL import Image
from test_search import wait_until

from ferkit.data.drawn_faces import write_csv

KILLS = int(os.environ.get("KILLS", 0))
COUNTS: collections.Counter[tuple[str, str]] = collections.Counter()
MODEL = f"--model_path={ROOT / 'pretrained' / 'saved_model.bin'}"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not KILLS, reason="takes long: make fuzz runs it"),
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for processes in /proc"),
]


class Command(NamedTuple):
    """A command, and what is whole of its output: None while there is none."""

    script: str
    flags: tuple[str, ...]
    result: Callable[[Path], Any]
    keeps_part: bool = False  # of a number: Ctrl-C keeps what there is up to then


def content(*names: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        return [(folder / name).read_bytes() for name in names] if (folder / names[0]).exists() else None

    return read


def dataset(folder: Path) -> Any:
    if not (folder / "faces").exists():
        return None
    return {str(path.relative_to(folder)): path.read_bytes() for path in (folder / "faces").rglob("*.*")}


def picture(folder: Path) -> Any:
    return Image.open(folder / "drawn.png").tobytes() if (folder / "drawn.png").exists() else None


def frames(folder: Path) -> Any:
    if not (folder / "drawn.mp4").exists():
        return None
    with av.open(str(folder / "drawn.mp4")) as video:
        return sum(1 for _ in video.decode(video=0))


def trained(folder: Path) -> Any:
    """The course of the training in its last checkpoint, if it is finished."""
    state = folder / "checkpoints" / "state.json"
    if not state.exists():
        return None
    history = json.loads(state.read_text())["history"]
    return [(row["loss"], row["validation_accuracy"]) for row in history] if len(history) == 4 else None


def searched(folder: Path) -> Any:
    state = folder / "search" / "default" / "state.json"
    trials = json.loads(state.read_text())["trials"] if state.exists() else []
    return [(trial["values"], trial["accuracies"]) for trial in trials] if len(trials) == 2 else None


SMALL = ("--model=slim", "--features=none", "--folder=ready")
COMMANDS = {
    "draw": Command("ferkit.data.drawn_faces", ("--output=drawn.csv", "--training=400"), content("drawn.csv")),
    "convert": Command(
        "convert_fer2013_to_images_and_landmarks.py", ("--folder=faces", "--hog_windows=no", "--processes=2"), dataset
    ),
    "predict": Command("predict.py", ("--image=face.png", "--output=drawn.png", MODEL), picture),
    "video": Command(
        "predict-from-video.py", ("--source=clip.mp4", "--window=no", "--output=drawn.mp4", MODEL), frames, True
    ),
    "train": Command("train.py", ("--train=yes", "--epochs=4", *SMALL), trained),
    "search": Command("optimize_hyperparams.py", ("--max_evals=2", "--epochs=2", *SMALL), searched),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with all that the commands read."""
    folder = tmp_path_factory.mktemp("place")
    write_csv(folder / "fer2013.csv", 210, 35, 35, seed=1)
    flags = ["--folder=ready", "--landmarks=no", "--hog=no", "--hog_windows=no"]
    command = command_line("convert_fer2013_to_images_and_landmarks.py", *flags)
    subprocess.run(command, cwd=folder, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    shutil.copy(ROOT / "docs" / "portrait.jpg", folder / "portrait.jpg")
    Image.open(folder / "portrait.jpg").save(folder / "face.png")
    write_video(folder / "clip.mp4", moving_faces(40), rate=20)
    return folder


@pytest.fixture(scope="module", autouse=True)
def counts(request) -> Iterator[None]:
    """Shows what became of the killed commands."""
    yield
    writer = request.config.get_terminal_writer()
    writer.line()
    for name in COMMANDS:
        told = ", ".join(f"{count} {what}" for (of, what), count in sorted(COUNTS.items()) if of == name)
        writer.line(f"{name}: {told}")


def start(command: Command, folder: Path) -> subprocess.Popen:
    flags = list(command.flags)
    if command.script == "train.py" and (folder / "checkpoints" / "state.json").exists():
        flags.append("--resume=yes")
    temporary = folder.with_name(f"{folder.name}_temporary")
    temporary.mkdir(exist_ok=True)
    return subprocess.Popen(
        command_line(command.script, *flags, slim=command.script in ("train.py", "optimize_hyperparams.py")),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_until_begun(process: subprocess.Popen) -> None:
    """Until the script's first lines have run: before them, Python itself reports Ctrl-C, with a traceback.

    Python handles Ctrl-C from its start on. `ferkit.startup.begin` ends that, and `processes.command` begins it again.
    """
    handled_before = False
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        handled = int(re.search(r"SigCgt:\s+(\w+)", status)[1], 16) >> signal.SIGINT - 1 & 1
        if handled_before and not handled:
            return
        handled_before = bool(handled)
        time.sleep(0.0005)


def of(folder: Path) -> list[int]:
    """The living processes that work in the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z" and (process / "cwd").resolve() == folder:
                found.append(int(process.name))
        except OSError:
            continue
    return found


def left(folder: Path) -> list[str]:
    """The hidden and temporary files and folders that are no locks."""
    temporary = folder.with_name(f"{folder.name}_temporary")
    hidden = [path for path in folder.rglob(".*") if path.suffix != ".lock"]
    weights = list(folder.rglob("*.tempstate*"))
    return [str(path) for path in (*hidden, *weights, *temporary.iterdir())]


@pytest.mark.parametrize("name", COMMANDS)
def test_ended_at_any_moment(place, tmp_path, name):
    command, moments = COMMANDS[name], random.Random(f"{name}{KILLS}")
    whole, folder = shutil.copytree(place, tmp_path / "whole"), shutil.copytree(place, tmp_path / "killed")
    began = time.monotonic()
    process = start(command, whole)
    _, errors = process.communicate(timeout=1200)
    assert process.returncode == 0, errors
    seconds, expected = time.monotonic() - began, command.result(whole)
    assert expected is not None
    for _ in range(KILLS):
        number = moments.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        process = start(command, folder)
        if number == signal.SIGINT:
            wait_until_begun(process)
        time.sleep(moments.uniform(0, seconds))
        process.send_signal(number)
        _, errors = process.communicate(timeout=1200)
        assert "Traceback" not in errors and "Exception ignored" not in errors, errors
        wait_until(lambda: not of(folder), 60)
        result = command.result(folder)
        in_part = command.keeps_part and result is not None and 0 < result <= expected
        assert in_part or result in (None, expected), "half of a result"
        finished = process.returncode == 0
        COUNTS[name, f"{'finished before' if finished else 'ended by'} {number.name}"] += 1
        COUNTS[name, "leftovers, until the next run"] += len(left(folder))
        if finished and moments.random() < 0.5:  # from the beginning
            shutil.rmtree(folder)
            shutil.copytree(place, folder)
    process = start(command, folder)
    _, errors = process.communicate(timeout=1200)
    assert process.returncode == 0, errors
    assert command.result(folder) == expected
    assert left(folder) == [] and of(folder) == []
