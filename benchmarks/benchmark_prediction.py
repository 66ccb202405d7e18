"""Measures the time of a prediction: of predict.py from a cold start, and of the network for one face.

python benchmarks/benchmark_prediction.py --model_path=best_model/saved_model.bin --image=photo.jpg
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ferkit import ensemble, features
from parameters import DATASET, TRAINING

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(description="Time a prediction.")
    parser.add_argument("--image", required=True, help="a picture with a face")
    parser.add_argument("--model_path", default=TRAINING.save_model_path, help="the saved model")
    arguments = parser.parse_args()
    command = [sys.executable, str(ROOT / "predict.py"), "--image", arguments.image]
    command += ["--model_path", arguments.model_path]
    cold = timed(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL), repeats=7)
    print(f"predict.py from start to end: {cold:.2f} s")

    model = ensemble.load(arguments.model_path)
    faces = np.random.default_rng(0).integers(0, 256, (1, 48, 48), dtype=np.uint8)
    vectors = features.extract(faces, model.features, DATASET.shape_predictor_path)
    if model.features != "none":
        spent = timed(lambda: features.extract(faces, model.features, DATASET.shape_predictor_path), repeats=200)
        print(f"features of one face: {1000 * spent:.2f} ms")
    print(f"network, one face: {1000 * timed(lambda: model.predict(faces, vectors), repeats=200):.2f} ms")
    return 0


def timed(work, repeats: int) -> float:
    """Median time in seconds, after one run that does not count."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


if __name__ == "__main__":
    sys.exit(main())
