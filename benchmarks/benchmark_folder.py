"""Photographs a second: predict.py with one process and with several, and other packages' own pipelines.

    python benchmarks/benchmark_folder.py
    python benchmarks/benchmark_folder.py --photos=holidays --processes=4
    python benchmarks/benchmark_folder.py --fer_python=fer/bin/python --deepface_python=deepface/bin/python

Without --photos, 1000 pictures of 640 to 1600 pixels are made from the portrait in docs/: cropped, scaled and with one
to four faces. One process runs on one core, N processes on N cores (Linux). The runs take turns, --rounds times, so
that other work on the machine meets them alike, and the ratio is that of the medians. Each line also gives the seconds
of processor time per picture, start included, and the most memory of all processes, shared pages counted once, in the
second and in the last quarter of the pictures: it must not grow with their number.

fer and deepface are measured where an interpreter has them installed. They get the first --few pictures on one core,
after one picture that does not count: `FER().detect_emotions` with the default detector, and `DeepFace.analyze` with
its defaults.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark_conversion import family, memory  # beside this file

from ferkit.errors import UserError
from ferkit.flags import positive
from ferkit.processes import available_cores, command
from ferkit.vision.albums import pictures
from ferkit.vision.pictures import read_image

ROOT = Path(__file__).resolve().parents[1]
PEERS = {  # what is run in the peer's own interpreter: `names` are the pictures
    "fer": "from fer.fer import FER\ndetector = FER()\nwork = lambda name: detector.detect_emotions(cv2.imread(name))",
    "deepface": "from deepface import DeepFace\nwork = lambda name: DeepFace.analyze(name, actions=['emotion'], "
    "enforce_detection=False, silent=True)",
}
TIMED = """
import sys, time, cv2
{work}
names = sys.argv[1:]
work(names[0])
started = time.perf_counter()
for name in names:
    work(name)
print("seconds", time.perf_counter() - started)
"""


class Run(NamedTuple):
    """What a run over the folder took."""

    seconds: float  # without the start of the program
    processor: float  # seconds of all processes
    memory: tuple[float, float]  # the most in the second and in the last quarter of the pictures, in MB


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure photographs a second.")
    parser.add_argument("--photos", metavar="FOLDER", help="pictures (default: made from the portrait)")
    parser.add_argument("--count", type=positive, default=1000, metavar="N", help="pictures to make or take")
    parser.add_argument("--processes", type=positive, default=available_cores(), metavar="N", help="beside one")
    parser.add_argument("--rounds", type=positive, default=3, metavar="N", help="runs of each")
    parser.add_argument("--model_path", default="ferplus", metavar="PATH", help="the model")
    parser.add_argument("--few", type=positive, default=50, metavar="N", help="pictures for other packages")
    for peer in PEERS:
        parser.add_argument(f"--{peer}_python", default=sys.executable, metavar="PATH", help=f"that has {peer}")
    arguments = parser.parse_args(argv)
    if not hasattr(os, "sched_setaffinity"):
        raise UserError("processes are bound to cores, which needs Linux")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "photos"
        if arguments.photos is None:
            make_pictures(folder, arguments.count)
        else:
            folder.mkdir()
            for number, path in enumerate(pictures(arguments.photos)[: arguments.count]):
                (folder / f"{number:05}{Path(path).suffix}").symlink_to(Path(path).resolve())
        counts = list(dict.fromkeys((1, arguments.processes)))
        runs: dict[int, list[Run]] = {count: [] for count in counts}
        for _ in range(arguments.rounds):
            for count in counts:
                runs[count].append(measured(folder, count, arguments.model_path))
        paths = pictures(str(folder))
        rates = {count: report(count, runs[count], len(paths)) for count in counts}
        if len(rates) == 2:
            print(
                f"{arguments.processes} processes are {rates[arguments.processes] / rates[1]:.2f} times as fast as one"
            )
        for peer, work in PEERS.items():
            print(f"{peer}: {rate_of(getattr(arguments, f'{peer}_python'), work, paths[: arguments.few])}")
    return 0


def make_pictures(folder: Path, count: int) -> None:
    """JPEGs with one to four faces, each a crop of the portrait of another size, on a grey ground."""
    folder.mkdir()
    portrait, random = read_image(ROOT / "docs" / "portrait.jpg"), np.random.default_rng(0)
    for number in range(count):
        people = 1 + number % 4
        side = int(random.integers(320, 800))
        parts = []
        for _ in range(people):
            cut = int(random.integers(0, 60))
            part = portrait[: 400 - cut, 40 + cut : 440]
            parts.append(cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA))
        rows = [np.hstack(parts[:2]), np.hstack([*parts[2:], np.full_like(parts[0], 128)][:2])]
        picture = np.vstack(rows) if people > 2 else rows[0]
        cv2.imwrite(str(folder / f"{number:05}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 90])


def measured(folder: Path, processes: int, model_path: str) -> Run:
    """Runs predict.py over the folder, on as many cores as it has processes."""
    cores = set(sorted(os.sched_getaffinity(0))[:processes])
    log = folder.with_name(f"{time.monotonic_ns()}.jsonl")
    words = [sys.executable, str(ROOT / "predict.py"), f"--image={folder}", f"--processes={processes}"]
    words += [f"--model_path={model_path}", f"--log={log}"]
    before, total = processor_time(), len(pictures(str(folder)))
    process = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=lambda: os.sched_setaffinity(0, cores)
    )
    first, most = 0.0, [0.0, 0.0, 0.0, 0.0]  # the most memory in each quarter
    while process.poll() is None:
        done = log.read_bytes().count(b"\n") if log.exists() else 0
        if done and not first:
            first, skipped = time.perf_counter(), done
        if done < total:
            quarter = 4 * done // total
            most[quarter] = max(most[quarter], sum(memory(child) for child in family(process.pid)))
        time.sleep(0.1)
    ended = time.perf_counter()
    done = log.read_bytes().count(b"\n")
    if process.returncode != 0 or done != total:
        raise UserError(f"predict.py ended with {process.returncode}: {process.stderr.read().decode()}")
    return Run((ended - first) * total / (total - skipped), processor_time() - before, (most[1], most[3]))


def report(processes: int, runs: Sequence[Run], count: int) -> float:
    """Prints what the runs took; returns pictures a second."""
    seconds = statistics.median(run.seconds for run in runs)
    processor = statistics.median(run.processor for run in runs)
    early, late = (max(run.memory[index] for run in runs) for index in (0, 1))
    name = "1 process on 1 core" if processes == 1 else f"{processes} processes on {processes} cores"
    print(
        f"{name}: {count / seconds:.1f} pictures a second ({processor / count:.3f} s of processor time each); "
        f"at most {early:.0f} MB in the second quarter, {late:.0f} MB in the last"
    )
    return count / seconds


def rate_of(python: str, work: str, paths: Sequence[str]) -> str:
    """Pictures a second of another package on one core, or why it was not measured."""
    core = {min(os.sched_getaffinity(0))}
    run = subprocess.run(
        [python, "-c", TIMED.format(work=work), *paths],
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, core),
    )
    lines = [line for line in run.stdout.splitlines() if line.startswith("seconds ")]
    if run.returncode != 0 or not lines:
        return f"skipped: {(run.stderr.strip() or 'no output').splitlines()[-1]}"
    return f"{len(paths) / float(lines[-1].split()[1]):.1f} pictures a second on one core"


def processor_time() -> float:
    """Seconds that the ended child processes, and theirs, have computed."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
