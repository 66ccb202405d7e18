"""Measures the trials per minute of a hyperparameter search with different numbers of workers on one machine.

python benchmarks/benchmark_search.py --folder=fer2013_features --trials=12 --workers=1,2

The database is SecantusDB (`pip install -r requirements-dev.txt`), or the one given with --mongo. The workers share the
cores equally. With --cores=1 each worker gets a single core, as on several small machines. The time runs from the
reservation of the first trial to the end of the last trial; the start of the driver and the workers does not count.
This program's clock measures it, because the clocks of workers and database may differ.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ferkit.search.mongo import DONE, NEW, Server, connect, kept
from parameters import DATASET

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = [sys.executable, str(ROOT / "optimize_hyperparams.py")]


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the trials per minute of a search across workers.")
    parser.add_argument("--folder", default=DATASET.folder, help="the converted dataset")
    parser.add_argument("--trials", type=int, default=12, help="of each search (default: 12)")
    parser.add_argument("--workers", default="1,2", help="how many, one search each (default: 1,2)")
    parser.add_argument("--cores", type=int, default=0, help="of each worker; 0: an equal share (default: 0)")
    parser.add_argument("--mongo", help="the database (default: SecantusDB in a temporary folder)")
    parser.add_argument("--samples", type=int, default=5000, help="faces that a trial trains on (default: 5000)")
    arguments = parser.parse_args()
    first = None
    with contextlib.ExitStack() as stack:
        address = arguments.mongo or stack.enter_context(database())
        for workers in map(int, arguments.workers.split(",")):
            rate = trials_per_minute(address, workers, arguments)
            first = first or rate
            print(f"{workers} workers: {rate:.2f} trials a minute, {rate / first:.2f} times the first", flush=True)
    return 0


@contextlib.contextmanager
def database() -> Iterator[str]:
    from secantus import SecantusDBServer

    with tempfile.TemporaryDirectory() as folder, SecantusDBServer(storage_path=folder) as server:
        yield f"mongodb://127.0.0.1:{server.port}/benchmark"


def trials_per_minute(address: str, workers: int, arguments: argparse.Namespace) -> float:
    server, name = connect(address, os.environ), f"benchmark-{uuid.uuid4().hex[:8]}"
    common = [f"--mongo={address}", f"--name={name}", f"--folder={arguments.folder}"]
    trial = ["--model=A", "--features=none", "--epochs=1", f"--samples={arguments.samples}"]
    with tempfile.TemporaryDirectory() as place:
        driver = start([*common, *trial, f"--max_evals={arguments.trials}"], place)
        while not server.jobs.find_one({"exp_key": name, "state": NEW}):
            if driver.poll() is not None:
                raise SystemExit("the driver ended early: see its error above")
            time.sleep(0.1)
        crew = [
            start([*common, "--worker"], place, share(number, workers, arguments.cores)) for number in range(workers)
        ]
        seconds = watch(server, name, arguments.trials, driver)
        for process in (driver, *crew):
            process.wait()
    trials = kept(server, name)[1]
    assert len({trial.worker for trial in trials}) == workers, "a worker had nothing to do: take more trials"
    return 60 * len(trials) / seconds


def watch(server: Server, name: str, trials: int, driver: subprocess.Popen) -> float:
    """Seconds from the reservation of the first trial to the end of the last one, checked ten times per second."""
    begun = None
    while server.jobs.count_documents({"exp_key": name, "state": DONE}) < trials:
        if driver.poll():
            raise SystemExit("the driver ended early: see its error above")
        if begun is None and server.jobs.find_one({"exp_key": name, "state": {"$ne": NEW}}):
            begun = time.monotonic()
        time.sleep(0.1)
    return time.monotonic() - begun


def share(number: int, workers: int, count: int) -> set[int]:
    """The cores of a worker."""
    cores = sorted(os.sched_getaffinity(0))
    count = count or max(1, len(cores) // workers)
    return {cores[(number * count + core) % len(cores)] for core in range(count)}


def start(flags: list[str], place: str, cores: set[int] | None = None) -> subprocess.Popen:
    process = subprocess.Popen([*SCRIPT, *flags], cwd=place, stdout=subprocess.DEVNULL)
    if cores is not None:
        os.sched_setaffinity(process.pid, cores)  # its trials inherit this
    return process


if __name__ == "__main__":
    sys.exit(main())
