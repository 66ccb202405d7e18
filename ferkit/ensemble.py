"""Saved models, one or several that answer together.

    model = load("mixed")  # or "ferplus+fer2013_large", or a single one
    model.predict(faces, vectors)  # as of a SavedModel

Models that learned different labels of the same faces make different mistakes, so their mean is right more often.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ferkit import saved_model
from ferkit.constants import MIXTURES
from ferkit.errors import UserError
from ferkit.features import JOINED
from ferkit.saved_model import SavedModel


class Ensemble:
    """Saved models whose answers are averaged. names: of the models, for messages. weights: how much each counts.

    Raises UserError for models with other expressions than the first one, and for those that need different features.
    """

    def __init__(self, models: Sequence[SavedModel], names: Sequence[str], weights: Sequence[float]):
        first, *others = self.models = tuple(models)
        for model, name in zip(others, names[1:], strict=True):
            if {*model.expressions} != {*first.expressions}:
                raise UserError(f"{names[0]} and {name} have different expressions: they cannot answer together")
            if model.features != first.features and "none" not in (model.features, first.features):
                raise UserError(
                    f"{names[0]} needs {first.features} and {name} {model.features}: they cannot answer together"
                )
        self.weights = np.asarray(weights, np.float32) / sum(weights)
        self.expressions = first.expressions
        self.features = next((model.features for model in models if model.features != "none"), "none")
        self.feature_provenance = {name: known for model in models for name, known in model.feature_provenance.items()}
        self.facts: dict[str, Any] = {
            **first.facts,
            "features": self.features,
            "feature_provenance": self.feature_provenance,
            "together_with": [model.facts for model in others],
            "weights": self.weights.tolist(),
        }

    def predict(
        self, faces: np.ndarray, vectors: np.ndarray, augmented: bool = False, balance: float | None = None
    ) -> np.ndarray:
        """Probabilities of the expressions (N, K), the mean of the models': see SavedModel.predict."""
        answers = np.zeros((len(faces), len(self.expressions)), np.float32)
        for model, weight in zip(self.models, self.weights, strict=True):
            own = vectors if model.features != "none" else vectors[:, :0]
            columns = [model.expressions.index(name) for name in self.expressions]
            answers += weight * model.predict(faces, own, augmented, balance)[:, columns]
        return answers


def load(path: str | Path, threads: int | None = None, flag: str = "--model_path") -> SavedModel | Ensemble:
    """The model saved at `path`, or several joined by a plus. For the rest see saved_model.load."""
    weights = weights_of(path)
    models = [saved_model.load(one, threads, flag) for one in weights]
    return models[0] if len(models) == 1 else Ensemble(models, [*weights], [*weights.values()])


def weights_of(path: str | Path) -> dict[str, int]:
    """The paths or short names that a plus joins, and how much each counts: one that is named twice counts twice.

    A name in MIXTURES stands for what it says there. A file whose name has a plus is one path.
    """
    text = str(path)
    if Path(text).is_file():
        return {text: 1}
    names = [name for part in text.split(JOINED) for name in MIXTURES.get(part, part).split(JOINED)]
    if "" in names:
        raise UserError(f"{text} does not name a model before and after each plus")
    return dict(Counter(names))
