"""How good a saved model is: accuracy, the table per expression, the confusion matrix. Needs no TensorFlow.

metrics = evaluate(saved_model.load(path), dataset)
print(report(metrics))
"""

import json
import time
from pathlib import Path

import numpy as np
import pandas as pd

from command_line import UserError
from data_loader import Dataset, Split
from files import whole_file
from saved_model import SavedModel

EVALUATED = {"PublicTest": "Validation", "PrivateTest": "Test"}  # the split that chooses, the split that reports


def evaluate(model: SavedModel, dataset: Dataset) -> dict:
    """Metrics of `model` on each evaluation split that `dataset` has, with the model's facts.

    Raises UserError when the dataset lacks the model's features, or has others, or other expressions than the model's.
    """
    check_splits(dataset)
    if dataset.expressions != model.expressions:
        raise UserError(
            f"{dataset.folder} has the expressions {', '.join(dataset.expressions)} but the model was trained on "
            f"{', '.join(model.expressions)}: convert those, or train again"
        )
    dataset.check(model.features, len(model.expressions))
    if dataset.recipes(model.features) != model.recipes:
        raise UserError(
            f"{dataset.folder} has features computed otherwise than those the model was trained on "
            "(another landmark predictor?): convert again, or train again"
        )
    splits = {
        split: split_metrics(model, dataset.load(split, model.features))
        for split in EVALUATED
        if split in dataset.counts
    }
    return {"expressions": list(model.expressions), "model": model.facts, "splits": splits}


def check_splits(dataset: Dataset) -> None:
    """Raises UserError when there is nothing to evaluate on."""
    if not set(EVALUATED) & set(dataset.counts):
        raise UserError(f"{dataset.folder} has neither a {' nor a '.join(EVALUATED)} split: nothing to evaluate on")


def split_metrics(model: SavedModel, faces: Split) -> dict:
    """Metrics of `model` on one split, with the confusion matrix and the seconds it took."""
    started = time.perf_counter()
    predictions = model.predict(faces.images, faces.features).argmax(axis=1)
    seconds = time.perf_counter() - started
    matrix = confusion_matrix(faces.labels, predictions, len(model.expressions))
    return {**scores(matrix), "confusion_matrix": matrix.tolist(), "seconds": seconds}


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Counts (classes, classes) int64: a row for each label, a column for each prediction."""
    return np.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)


def scores(matrix: np.ndarray) -> dict:
    """Accuracy, macro F1, and precision, recall, F1 and support of each class; 0 where a division has no meaning."""
    hits, support, predicted = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    precision = hits / np.maximum(predicted, 1)
    recall = hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(support + predicted, 1)
    return {
        "count": int(support.sum()),
        "accuracy": float(hits.sum() / max(support.sum(), 1)),
        "macro_f1": float(f1.mean()),
        "precision": precision.tolist(),
        "recall": recall.tolist(),
        "f1": f1.tolist(),
        "support": support.tolist(),
    }


def report(metrics: dict) -> str:
    """The metrics for a reader: an accuracy a line, the table per expression, the time."""
    lines = []
    for split, name in EVALUATED.items():
        if split in metrics["splits"]:
            lines.append(f"{name} accuracy: {metrics['splits'][split]['accuracy']:.1%} ({split})")
        else:
            lines.append(f"{name} accuracy: none, the dataset has no {split} split")
    last, values = list(metrics["splits"].items())[-1]
    columns = {name: values[name] for name in ("precision", "recall", "f1", "support")}
    table = pd.DataFrame(columns, index=metrics["expressions"])
    lines += [f"Per expression, {last}:", table.to_string(float_format="{:.3f}".format)]
    count = sum(values["count"] for values in metrics["splits"].values())
    seconds = sum(values["seconds"] for values in metrics["splits"].values())
    lines.append(f"Evaluated {count} faces in {seconds:.1f} s ({1000 * seconds / count:.2f} ms a face)")
    return "\n".join(lines)


def write_metrics(metrics: dict, path: Path) -> None:
    """The metrics as JSON."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")


def draw_confusion_matrix(metrics: dict, path: Path) -> None:
    """The confusion matrix of the last evaluated split as a picture: each row's shares, with the counts."""
    import matplotlib  # here, because it is slow to import

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    split, values = list(metrics["splits"].items())[-1]
    names, matrix = metrics["expressions"], np.array(values["confusion_matrix"])
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = 1.6 + 0.75 * len(names)
    figure, axes = plt.subplots(figsize=(side, side), layout="constrained")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(matrix.shape):
        colour = "white" if shares[row, column] > 0.5 else "black"
        text = f"{shares[row, column]:.0%}\n{matrix[row, column]}"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("labelled")
    axes.set_title(f"{split}: {values['accuracy']:.1%} of {values['count']} faces")
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)
