"""Measures the time to extract every feature, and compares some with a loop over scikit-image, face by face.

    python benchmarks/benchmark_conversion.py --input=fer2013.csv          # the rates, in a minute
    python benchmarks/benchmark_conversion.py --input=fer2013.csv --full   # and the whole conversion

All run in one process and one thread, by the time of the processor; the important result is the ratio. --full converts
the whole dataset on all cores, as the command line does by default, and prints its time and peak memory.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ferkit import features
from ferkit.constants import IMAGE_SIZE
from ferkit.data import fer2013
from ferkit.processes import one_opencv_thread
from parameters import DATASET

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(description="Time the extraction of features.")
    parser.add_argument("--input", default=DATASET.input, help="FER2013")
    parser.add_argument("--faces", type=int, default=500, help="faces to measure the rates on")
    parser.add_argument("--full", action="store_true", help="convert the whole dataset too")
    arguments = parser.parse_args()
    faces = np.stack([row[2] for row in islice(fer2013.open_source(arguments.input).rows, arguments.faces)])
    loops = {"hog_features": loop_hog, "hog_windows": loop_hog_windows, "lbp": loop_lbp}
    with threadpool_limits(1), one_opencv_thread():
        started = time.process_time()
        known = features.learn(features.PARTS, faces)
        print(f"learning the words of sift from {len(faces)} faces: {time.process_time() - started:.1f} s")
        for name in features.PARTS:
            features.extract_part(name, faces[:1], known=known)  # loads what it needs
            loop = partial(loops[name], faces) if name in loops else None
            compare(name, partial(features.extract_part, name, faces, known=known), loop, len(faces))
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
    """The shortest of three times of the processor, in seconds."""
    times = []
    for _ in range(3):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
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


def loop_lbp(faces: np.ndarray) -> list[np.ndarray]:
    from skimage.feature import local_binary_pattern

    return [local_binary_pattern(face, features.lbp.POINTS, 1, "nri_uniform") for face in faces]


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
