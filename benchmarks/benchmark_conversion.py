"""Measures the time to extract every feature, and compares HOG with a loop over scikit-image, face by face.

    python benchmarks/benchmark_conversion.py --input=fer2013.csv          # the rates, in a minute
    python benchmarks/benchmark_conversion.py --input=fer2013.csv --full   # and the whole conversion

Both run in one process; the important result is their ratio. --full converts the whole dataset with every feature on
all cores, as the command line does, and prints its time and peak memory.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ferkit import features
from ferkit.constants import IMAGE_SIZE
from ferkit.data import fer2013
from parameters import DATASET

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(description="Time the extraction of features.")
    parser.add_argument("--input", default=DATASET.input, help="FER2013")
    parser.add_argument("--faces", type=int, default=500, help="faces to measure the rates on")
    parser.add_argument("--full", action="store_true", help="convert the whole dataset too")
    arguments = parser.parse_args()
    faces = np.stack([row[2] for row in islice(fer2013.open_source(arguments.input).rows, arguments.faces)])
    features.landmarks.extract(faces[:1])  # loads the predictor
    compare("landmarks", lambda: features.landmarks.extract(faces), None, len(faces))
    compare("HOG", lambda: features.hog.face(faces), lambda: loop_hog(faces), len(faces))
    compare("HOG windows", lambda: features.hog.windows(faces), lambda: loop_hog_windows(faces), len(faces))
    if arguments.full:
        convert(arguments.input)
    return 0


def compare(name: str, ours, loop, count: int) -> None:
    own = seconds(ours)
    line = f"{name:12} {1000 * own / count:6.2f} ms a face"
    if loop is not None:
        other = seconds(loop)
        line += f"; scikit-image's loop {1000 * other / count:6.2f} ms; ratio {own / other:.4f}"
    print(line, flush=True)


def seconds(work) -> float:
    """The shortest of three times, in seconds."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def loop_hog(faces: np.ndarray) -> list[np.ndarray]:
    from skimage.feature import hog

    cell = (features.hog.FACE_CELL, features.hog.FACE_CELL)
    return [hog(face, features.hog.ORIENTATIONS, cell, (1, 1)) for face in faces]


def loop_hog_windows(faces: np.ndarray) -> list[np.ndarray]:
    from skimage.feature import hog

    cell = (features.hog.WINDOW_CELL, features.hog.WINDOW_CELL)
    starts = range(0, IMAGE_SIZE - features.hog.WINDOW_CELL + 1, features.hog.WINDOW_STEP)
    size = features.hog.WINDOW_SIZE
    return [
        hog(face[y : y + size, x : x + size], features.hog.ORIENTATIONS, cell, (1, 1))
        for face in faces
        for y in starts
        for x in starts
    ]


def convert(source: str) -> None:
    """Runs the conversion, and prints its time and peak memory: the sum of all processes, shared pages counted once."""
    script = ROOT / "convert_fer2013_to_images_and_landmarks.py"
    peak = 0.0
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        process = subprocess.Popen([sys.executable, str(script), f"--input={source}", f"--output={folder}/features"])
        while process.poll() is None:
            peak = max(peak, sum(memory(child) for child in family(process.pid)))
            time.sleep(0.1)
        took = time.perf_counter() - started
    print(f"Whole conversion: {took:.1f} s, at most {peak:.0f} MB in all its processes")


def family(pid: int) -> list[int]:
    """A process and its children (Linux)."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # the process has just ended
        return []
    return [pid, *(grandchild for child in children for grandchild in family(int(child)))]


def memory(pid: int) -> float:
    """The proportional set size (PSS) of a process in MB (Linux)."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


if __name__ == "__main__":
    sys.exit(main())
