"""How often models are right on labelled photographs that have nothing to do with FER2013.

    python benchmarks/benchmark_photographs.py --photos news kdef --model_path fer2013 ferplus --most=250

Each FOLDER holds one folder of pictures for each expression, such as `happy/*.jpg` or `sadness/*.png`. In each picture
the largest face is recognized, with the settings of VIDEO_PREDICTOR in parameters.py. A picture in which no face is
found counts as wrong. Prints for each folder accuracy, macro recall (the mean of the expressions' shares of right
answers), the expected calibration error of the faces that were found, and the confusion matrix. Of two models it also
gives McNemar's exact test: how likely their difference is by chance alone. A table of all folders comes last.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ferkit.constants import EMOTIONS
from ferkit.errors import UserError
from ferkit.flags import add_flags, override
from ferkit.learning.calibration import calibration_error
from ferkit.markdown import table
from ferkit.processes import command
from ferkit.recognition import Recognizer
from ferkit.vision.albums import pictures
from ferkit.vision.pictures import read_image
from parameters import VIDEO_PREDICTOR

NAMES = {  # what folders are called
    "Angry": ("angry", "anger"),
    "Disgust": ("disgust", "disgusted"),
    "Fear": ("fear", "fearful", "afraid"),
    "Happy": ("happy", "happiness"),
    "Sad": ("sad", "sadness"),
    "Surprise": ("surprise", "surprised"),
    "Neutral": ("neutral",),
}
NONE = "no face"
SEED = 0


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure models on labelled photographs.")
    parser.add_argument(
        "--photos", required=True, type=Path, nargs="+", metavar="FOLDER", help="<expression>/<picture>"
    )
    parser.add_argument("--model_path", required=True, nargs="+", metavar="PATH", help="the models to compare")
    parser.add_argument(
        "--most", type=int, default=0, metavar="N", help="pictures of each expression, drawn at random; 0: all"
    )
    add_flags(
        parser, VIDEO_PREDICTOR, "detector", "detection_confidence", "margin", "test_time_augmentation", "balance"
    )
    arguments = parser.parse_args(argv)
    recognizers = [Recognizer(path, override(VIDEO_PREDICTOR, arguments)) for path in arguments.model_path]
    sets = {folder: labelled(folder, arguments.most) for folder in arguments.photos}
    scores, decided = [], []
    for folder, photos in sets.items():
        truth = np.array([EMOTIONS.index(expression) for expression, _ in photos])
        print(f"\n# {folder.name}: {len(photos)} pictures")
        right = []
        answers = answers_of(recognizers, [path for _, path in photos])
        for path, probabilities in zip(arguments.model_path, answers, strict=True):
            predictions = np.where(probabilities.any(axis=1), probabilities.argmax(axis=1), len(EMOTIONS))
            right.append(predictions == truth)
            scores.append({"set": folder.name, "model": path, **report(path, truth, predictions, probabilities)})
        if len(right) > 1:
            print(f"\n{compared(*right[-2:])}")
            decided.append(right[-2:])
    print(f"\n{summary(scores)}")
    if decided:
        print(f"\nAll sets together: {compared(*map(np.concatenate, zip(*decided, strict=True)))}")
    return 0


def compared(before: np.ndarray, last: np.ndarray) -> str:
    """How often one of the last two models is right alone, with the p of McNemar's exact test. (N,) bool each."""
    first, second = int((before & ~last).sum()), int((last & ~before).sum())
    chance = binomtest(first, first + second).pvalue if first + second else 1.0
    return f"Right with the last but one model alone: {first}, with the last alone: {second} (p = {chance:.2g})"


def summary(scores: Sequence[dict[str, Any]]) -> str:
    """A Markdown table: a line for each set and model, then the mean over the sets for each model."""
    measures = [name for name in scores[0] if name not in ("set", "model", "pictures")]
    means: list[dict[str, Any]] = []
    for model in dict.fromkeys(score["model"] for score in scores):
        own = [score for score in scores if score["model"] == model]
        means.append({"set": "mean of the sets", "model": model, "pictures": sum(score["pictures"] for score in own)})
        means[-1] |= {name: float(np.mean([score[name] for score in own])) for name in measures}
    lines = [
        [score["set"], score["model"], str(score["pictures"]), *(f"{100 * score[name]:.1f}%" for name in measures)]
        for score in (*scores, *means)
    ]
    return table(["set", "model", "pictures", *measures], lines)


def labelled(folder: Path, most: int) -> list[tuple[str, str]]:
    """Expression and path of each picture; `most` of each expression, which the same seed draws everywhere."""
    found: list[tuple[str, str]] = []
    for expression, names in NAMES.items():
        paths: list[str] = []
        for inside in sorted(path for path in folder.iterdir() if path.is_dir() and path.name.lower() in names):
            paths += pictures(str(inside))
        drawn = np.random.default_rng(SEED).permutation(len(paths))[: most or None]
        found += [(expression, paths[place]) for place in sorted(drawn)]
    if not found:
        raise UserError(f"{folder} has no folder that is called like an expression, such as happy or sadness")
    return found


def answers_of(recognizers: Sequence[Recognizer], paths: Sequence[str]) -> list[np.ndarray]:
    """The probabilities (N, 7) that each model gives to the largest face of each picture; zeros where there is none."""
    answers = [np.zeros((len(paths), len(EMOTIONS))) for _ in recognizers]
    for row, path in enumerate(tqdm(paths, unit="picture")):
        found, crops = recognizers[0].cut(read_image(path))  # all have the same settings, so they find the same faces
        if not found:
            continue
        largest = max(range(len(found)), key=lambda place: found[place].box.width)
        for recognizer, rows in zip(recognizers, answers, strict=True):
            (face,) = recognizer.classify([found[largest]], [crops[largest]])
            rows[row] = [face.probabilities.get(name, 0.0) for name in EMOTIONS]
    return answers


def report(path: str, truth: np.ndarray, predictions: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Prints the scores of a model on a set; returns them for the summary."""
    present = sorted(set(truth.tolist()))
    recalls = [float((predictions[truth == label] == label).mean()) for label in present]
    found = probabilities.any(axis=1)
    accuracy = float((predictions == truth).mean())
    error = calibration_error(probabilities[found], truth[found])
    print(f"\n{path}: accuracy {accuracy:.1%}, macro recall {np.mean(recalls):.1%} of {len(truth)} pictures")
    print(f"No face found in {int((~found).sum())}; calibration error of the others {error:.3f}")
    columns = [*EMOTIONS, NONE]
    counts = pd.crosstab(pd.Categorical(truth, present), pd.Categorical(predictions, range(len(columns))), dropna=False)
    counts.index, counts.columns = [EMOTIONS[label] for label in present], columns
    print(counts.to_string())
    return {
        "pictures": len(truth),
        "found": float(found.mean()),
        "accuracy": accuracy,
        "macro recall": float(np.mean(recalls)),
        "calibration error": error,
    }


if __name__ == "__main__":
    sys.exit(main())
