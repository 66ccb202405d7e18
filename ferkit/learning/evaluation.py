"""How good a saved model is: accuracy, the table per expression, the confusion matrix. Needs no TensorFlow.

metrics = evaluate(saved_model.load(path), dataset)
print(metrics_text(metrics))
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from ferkit.data import ferplus
from ferkit.data.dataset import Dataset, Split
from ferkit.errors import UserError
from ferkit.files import whole_file
from ferkit.learning.calibration import calibration_error
from ferkit.learning.plots import draw_confusion_matrix
from ferkit.saved_model import labels_of

EVALUATED = {"PublicTest": "Validation", "PrivateTest": "Test"}  # the split to choose by, the split to report


class Classifier(Protocol):
    """A model that can be evaluated: a saved network, or a support vector machine."""

    @property
    def facts(self) -> dict[str, Any]: ...

    @property
    def expressions(self) -> tuple[str, ...]: ...

    @property
    def features(self) -> str: ...

    @property
    def feature_provenance(self) -> dict[str, dict[str, Any]]: ...

    def predict(self, faces: np.ndarray, vectors: np.ndarray, augmented: bool = False) -> np.ndarray: ...


def evaluate(model: Classifier, dataset: Dataset, augmented: bool = False) -> dict[str, Any]:
    """Metrics of `model` on each evaluation split that `dataset` has, with the model's facts.

    augmented: with test-time augmentation. If the dataset has only some of the model's expressions, the model chooses
    among these.

    Raises UserError when the dataset lacks the model's features, has features that were computed differently, or has
    expressions that the model does not know.
    """
    check_splits(dataset)
    if dataset.label_source == "ferplus8" and ferplus.CONTEMPT not in model.expressions:
        raise UserError("the model does not know Contempt: use --labels=ferplus")
    if not set(dataset.expressions) <= set(model.expressions):
        raise UserError(
            f"{dataset.folder} has the expressions {', '.join(dataset.expressions)} but the model was trained on "
            f"{', '.join(model.expressions)}: convert those, or train again"
        )
    dataset.check(model.features, len(dataset.expressions))
    dataset.check_computed(model.feature_provenance, "those the model was trained on", "train again")
    learned = images_learned_by(model, dataset)
    splits = {}
    for split in EVALUATED:
        if split in dataset.counts:
            faces = dataset.load(split, model.features)
            splits[split] = split_metrics(
                model, faces, learned, augmented, dataset.expressions, dataset.own_labels(split)
            )
    return {
        "expressions": list(dataset.expressions),
        "labels": dataset.label_source,
        "test_time_augmentation": augmented,
        "model": model.facts,
        "splits": splits,
    }


def images_learned_by(model: Classifier, dataset: Dataset) -> np.ndarray | None:
    """The training faces (N, 48, 48) of the model, or None unless they are those of the dataset.

    If the dataset had some of them only, too many other faces would seem to be new.
    """
    if labels_of(model.facts) != "fer2013" and "ferplus" not in dataset.manifest:
        return None
    same = dataset.labelled(labels_of(model.facts))
    known = model.facts.get("dataset", {}).get("counts", {}).get("Training")
    if set(same.expressions) != set(model.expressions) or known != same.counts.get("Training", 0):
        return None
    return same.load("Training", "none").images


def evaluate_and_write(model: Classifier, dataset: Dataset, folder: Path, augmented: bool = False) -> dict[str, Any]:
    """Evaluates `model` with `evaluate`, prints the report, and writes it into `folder` as JSON and as a picture."""
    metrics = evaluate(model, dataset, augmented)
    print(metrics_text(metrics))
    asked = len(metrics["expressions"])
    suffix = f"_asked_for_{asked}" if asked < len(model.expressions) else ""  # does not replace the model's own metrics
    suffix += f"_{dataset.label_source}" if dataset.label_source != labels_of(model.facts) else ""
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
    model: Classifier,
    faces: Split,
    learned: np.ndarray | None,
    augmented: bool,
    expressions: Sequence[str] | None = None,
    own_labels: np.ndarray | None = None,
) -> dict[str, Any]:
    """Metrics of `model` on one split, with the confusion matrix and the seconds it took.

    learned: the images (N, 48, 48) that the model was trained on, or None if they are not known. Some faces of FER2013
    occur in two splits, so the accuracy is also given for the faces that are not in `learned`. expressions: the names
    of the labels, if they are not all of the model's expressions. own_labels: FER2013's labels (N,) of faces that FER+
    labels.
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
    if faces.targets is not None:
        metrics["kl_divergence"] = kl_divergence(faces.targets, probabilities)
    if own_labels is not None:
        agreed = own_labels == faces.labels
        hits = int((predictions == faces.labels)[agreed].sum())
        metrics["where_labels_agree"] = {"count": int(agreed.sum()), "accuracy": hits / max(int(agreed.sum()), 1)}
    if learned is not None:
        known = {image.tobytes() for image in learned}
        new = np.array([image.tobytes() not in known for image in faces.images], bool)
        hits = int((predictions == faces.labels)[new].sum())
        metrics["deduplicated"] = {"count": int(new.sum()), "accuracy": hits / max(int(new.sum()), 1)}
    return metrics


def kl_divergence(targets: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean Kullback-Leibler divergence of the probabilities (N, K) from the shares of the votes (N, K), in nats."""
    least = np.finfo(np.float32).tiny  # no probability is 0, whose divergence would be infinite
    ratios = np.log(np.maximum(targets, least)) - np.log(np.maximum(probabilities, least))
    return float((targets * ratios).sum(axis=1).mean())


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Counts (classes, classes) int64: one row per label, one column per prediction."""
    return np.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)


def scores(matrix: np.ndarray) -> dict[str, Any]:
    """Accuracy, macro F1, and precision, recall, F1 and support of each class; 0 instead of a division by zero."""
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


def metrics_text(metrics: dict[str, Any]) -> str:
    """The metrics as text: the accuracies, one per line, a table of the expressions, and the time."""
    lines = []
    if metrics.get("labels", "fer2013") != "fer2013":
        lines.append("Labels: what more than half of the votes of FER+ say; single votes are dropped")
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
    if "where_labels_agree" in values:
        agreed = values["where_labels_agree"]
        lines.append(f"Where FER2013's own label is the same ({agreed['count']} faces): {agreed['accuracy']:.1%}")
    lines.append(f"Expected calibration error: {values['calibration_error']:.3f}")
    if "kl_divergence" in values:
        lines.append(f"Divergence from the votes (KL): {values['kl_divergence']:.3f} nats")
    count = sum(values["count"] for values in metrics["splits"].values())
    seconds = sum(values["seconds"] for values in metrics["splits"].values())
    lines.append(f"Evaluated {count} faces in {seconds:.1f} s ({1000 * seconds / count:.2f} ms a face)")
    return "\n".join(lines)


def write_metrics(metrics: dict[str, Any], path: Path) -> None:
    """Writes the metrics as JSON."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n", encoding="utf-8")
