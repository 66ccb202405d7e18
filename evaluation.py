"""How good a saved model is: accuracy, the table per expression, the confusion matrix. Needs no TensorFlow.

metrics = evaluate(saved_model.load(path), dataset)
print(report(metrics))
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd

from command_line import UserError
from data_loader import Dataset, Split
from files import whole_file
from saved_model import SavedModel, at_temperature

CALIBRATION_BINS = 15
EVALUATED = {"PublicTest": "Validation", "PrivateTest": "Test"}  # the split that chooses, the split that reports


def evaluate(model: SavedModel, dataset: Dataset, augmented: bool = False) -> dict:
    """Metrics of `model` on each evaluation split that `dataset` has, with the model's facts.

    augmented: with test-time augmentation. Where the dataset has but some of the model's expressions, the model is
    asked which of those it is.

    Raises UserError when the dataset lacks the model's features, or has others, or expressions that the model has not.
    """
    check_splits(dataset)
    if not set(dataset.expressions) <= set(model.expressions):
        raise UserError(
            f"{dataset.folder} has the expressions {', '.join(dataset.expressions)} but the model was trained on "
            f"{', '.join(model.expressions)}: convert those, or train again"
        )
    dataset.check(model.features, len(dataset.expressions))
    if dataset.recipes(model.features) != model.recipes:
        raise UserError(
            f"{dataset.folder} has features computed otherwise than those the model was trained on "
            "(another landmark predictor?): convert again, or train again"
        )
    learned = dataset.load("Training", "none").images if _has_learned_all_of(model, dataset) else None
    splits = {
        split: split_metrics(model, dataset.load(split, model.features), learned, augmented, dataset.expressions)
        for split in EVALUATED
        if split in dataset.counts
    }
    return {
        "expressions": list(dataset.expressions),
        "test_time_augmentation": augmented,
        "model": model.facts,
        "splits": splits,
    }


def _has_learned_all_of(model: SavedModel, dataset: Dataset) -> bool:
    """Whether the dataset's training faces are those of the model: of some of them, too many others would seem new."""
    known = model.facts.get("dataset", {}).get("counts", {}).get("Training")
    return set(dataset.expressions) == set(model.expressions) and known == dataset.counts.get("Training", 0)


def evaluate_and_write(model: SavedModel, dataset: Dataset, folder: Path, augmented: bool = False) -> dict:
    """Evaluates `model` as `evaluate` does; prints the report, and writes it into `folder` as JSON and a picture."""
    metrics = evaluate(model, dataset, augmented)
    print(report(metrics))
    asked = len(metrics["expressions"])
    suffix = f"_asked_for_{asked}" if asked < len(model.expressions) else ""  # the model's own metrics stay
    suffix += "_augmented" if augmented else ""
    numbers, picture = folder / f"metrics{suffix}.json", folder / f"confusion_matrix{suffix}.png"
    write_metrics(metrics, numbers)
    draw_confusion_matrix(metrics, picture)
    print(f"Metrics and confusion matrix: {numbers}, {picture}")
    return metrics


def check_splits(dataset: Dataset) -> None:
    """Raises UserError when there is nothing to evaluate on."""
    if not set(EVALUATED) & set(dataset.counts):
        raise UserError(f"{dataset.folder} has neither a {' nor a '.join(EVALUATED)} split: nothing to evaluate on")


def split_metrics(
    model: SavedModel,
    faces: Split,
    learned: np.ndarray | None,
    augmented: bool,
    expressions: Sequence[str] | None = None,
) -> dict:
    """Metrics of `model` on one split, with the confusion matrix and the seconds it took.

    learned: the images (N, 48, 48) that the model was trained on, or None where they are not known: some of FER2013's
    faces occur in two splits, and accuracy is also given for those that do not. expressions: the names of the labels,
    where they are not all of the model's.
    """
    expressions = expressions or model.expressions
    started = time.perf_counter()
    probabilities = model.predict(faces.images, faces.features, augmented)
    probabilities = probabilities[:, [model.expressions.index(name) for name in expressions]]
    probabilities /= np.maximum(probabilities.sum(axis=1, keepdims=True), 1e-9)
    seconds = time.perf_counter() - started
    predictions = probabilities.argmax(axis=1)
    matrix = confusion_matrix(faces.labels, predictions, len(expressions))
    metrics = {
        **scores(matrix),
        "calibration_error": calibration_error(probabilities, faces.labels),
        "confusion_matrix": matrix.tolist(),
        "seconds": seconds,
    }
    if learned is not None:
        known = {image.tobytes() for image in learned}
        new = np.array([image.tobytes() not in known for image in faces.images], bool)
        hits = int((predictions == faces.labels)[new].sum())
        metrics["deduplicated"] = {"count": int(new.sum()), "accuracy": hits / max(int(new.sum()), 1)}
    return metrics


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error (Guo et al., ICML 2017): how far confidence and accuracy lie apart, 0 to 1.

    Faces are grouped by their confidence into bins of equal width; the mean over all faces of their bin's difference.
    """
    confidence, hits = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=hits - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / max(len(labels), 1))


def best_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature, from 0.1 to 10, at which the mean confidence is the accuracy.

    Where a network's confidence is not wrong by a temperature alone, the one at which the labels are likeliest (Guo et
    al., ICML 2017) can leave it too low or too high for all faces together; this one cannot.
    """
    accuracy = float((probabilities.argmax(axis=1) == labels).mean())
    candidates = np.geomspace(0.1, 10, 401)
    confidences = [at_temperature(probabilities, candidate).max(axis=1).mean() for candidate in candidates]
    return float(candidates[int(np.argmin(np.abs(np.array(confidences) - accuracy)))])


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
    others = [name for name in metrics["model"]["expressions"] if name not in metrics["expressions"]]
    if others:
        lines.append(f"Asked which of the dataset's expressions it is: the model knows {', '.join(others)} as well")
    last, values = list(metrics["splits"].items())[-1]
    columns = {name: values[name] for name in ("precision", "recall", "f1", "support")}
    table = pd.DataFrame(columns, index=metrics["expressions"])
    lines += [f"Per expression, {last}:", table.to_string(float_format="{:.3f}".format)]
    if "deduplicated" in values:
        count, accuracy = values["deduplicated"]["count"], values["deduplicated"]["accuracy"]
        lines.append(f"Without the {values['count'] - count} faces that also occur in Training: {accuracy:.1%}")
    lines.append(f"Expected calibration error: {values['calibration_error']:.3f}")
    count = sum(values["count"] for values in metrics["splits"].values())
    seconds = sum(values["seconds"] for values in metrics["splits"].values())
    lines.append(f"Evaluated {count} faces in {seconds:.1f} s ({1000 * seconds / count:.2f} ms a face)")
    return "\n".join(lines)


def write_metrics(metrics: dict, path: Path) -> None:
    """The metrics as JSON."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")


def draw_learning_curve(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Accuracy over a training's epochs as a picture. history: a row an epoch, as train.State has it."""
    plt = plots()
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    epochs = [row["epoch"] for row in history]
    for key, name in (("accuracy", "Training, while it learns"), ("validation_accuracy", "PublicTest")):
        if math.isnan(history[0][key]):
            continue  # without that split
        axes.plot(epochs, [row[key] for row in history], marker="." if len(epochs) < 30 else None, label=name)
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.set_xlabel("epoch")
    axes.set_ylabel("accuracy")
    axes.grid(alpha=0.3)
    axes.legend()
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)


def draw_confusion_matrix(metrics: dict, path: Path, name: str = "") -> None:
    """The confusion matrix of the last evaluated split as a picture: each row's shares, with the counts.

    name: of the model, for the title.
    """
    plt = plots()
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
    reached = f"{split}: {values['accuracy']:.1%} of {values['count']} faces"
    axes.set_title(f"{name}\n{reached}" if name else reached, fontsize=10 if name else None)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)


def plots() -> ModuleType:
    """matplotlib's plotting without a screen; here, because it is slow to import."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt
