"""Pictures of training and evaluation: the learning curve and the confusion matrix."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ferkit.files import whole_file


def draw_learning_curve(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draws the accuracy over the epochs of a training. history: one row per epoch, as in run.State."""
    plt = pyplot()
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


def draw_confusion_matrix(metrics: Mapping[str, Any], path: Path, name: str = "") -> None:
    """Draws the confusion matrix of the last evaluated split: the shares of each row, with the counts.

    name: name of the model, for the title.
    """
    plt = pyplot()
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


def pyplot() -> Any:
    """matplotlib.pyplot without a screen; imported when needed, because the import is slow."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt
