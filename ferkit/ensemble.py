"""Saved models, one or several that answer together.

    model = load("ferplus+fer2013_large")  # or a single one
    model.predict(faces, vectors)  # as of a SavedModel

Models that learned different labels of the same faces make different mistakes, so their mean is right more often.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ferkit import saved_model
from ferkit.errors import UserError
from ferkit.features import JOINED
from ferkit.saved_model import LEAST_FREQUENCY, SavedModel


class Ensemble:
    """Saved models whose answers are averaged.

    Each model answers as if the expressions had been as frequent among its own labels as among those of the first one:
    the same face is Neutral more often among the votes of FER+ than among the labels of FER2013. A model that does not
    tell is taken to favour no expression. If the first one does not tell, the answers are averaged as they are.
    Raises UserError for models with other expressions than the first one, and for those that need different features.
    """

    def __init__(self, models: Sequence[SavedModel], names: Sequence[str]):
        first, *others = self.models = tuple(models)
        for model, name in zip(others, names[1:], strict=True):
            if {*model.expressions} != {*first.expressions}:
                raise UserError(f"{names[0]} and {name} have different expressions: they cannot answer together")
            if model.features != first.features and "none" not in (model.features, first.features):
                raise UserError(
                    f"{names[0]} needs {first.features} and {name} {model.features}: they cannot answer together"
                )
        self.expressions = first.expressions
        self.features = next((model.features for model in models if model.features != "none"), "none")
        self.feature_provenance = {name: known for model in models for name, known in model.feature_provenance.items()}
        self.frequencies = first.frequencies
        self.facts: dict[str, Any] = {
            **first.facts,
            "features": self.features,
            "feature_provenance": self.feature_provenance,
            "together_with": [model.facts for model in others],
        }

    def predict(
        self, faces: np.ndarray, vectors: np.ndarray, augmented: bool = False, balance: float | None = None
    ) -> np.ndarray:
        """Probabilities of the expressions (N, K): see SavedModel.predict."""
        if self.frequencies is None:
            return np.mean([*self._answers(faces, vectors, augmented, balance)], axis=0)
        common = np.maximum(self.frequencies, LEAST_FREQUENCY)
        answers = []
        for model, rows in zip(self.models, self._answers(faces, vectors, augmented, balance=0.0), strict=True):
            own = model.frequencies
            known = np.ones_like(common) if own is None else np.maximum(own[self._order(model)], LEAST_FREQUENCY)
            answers.append(_scaled(rows, common / known))
        exponent = self.facts.get("training", {}).get("balance", 0.0) if balance is None else balance
        return _scaled(np.mean(answers, axis=0), common**-exponent)

    def _answers(
        self, faces: np.ndarray, vectors: np.ndarray, augmented: bool, balance: float | None
    ) -> Iterator[np.ndarray]:
        for model in self.models:
            own = vectors if model.features != "none" else vectors[:, :0]
            yield model.predict(faces, own, augmented, balance)[:, self._order(model)]

    def _order(self, model: SavedModel) -> list[int]:
        """The places of the expressions among those of a model."""
        return [model.expressions.index(name) for name in self.expressions]


def _scaled(probabilities: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """The probabilities (N, K) times the factors (K,), as probabilities."""
    product = probabilities * factors.astype(np.float32)
    return product / product.sum(axis=1, keepdims=True)


def load(path: str | Path, threads: int | None = None) -> SavedModel | Ensemble:
    """The model saved at `path`, or several joined by a plus. For the rest see saved_model.load."""
    paths = paths_of(path)
    models = [saved_model.load(one, threads) for one in paths]
    return models[0] if len(models) == 1 else Ensemble(models, paths)


def paths_of(path: str | Path) -> list[str]:
    """The paths or short names that a plus joins. A file whose name has a plus is one path."""
    text = str(path)
    return [text] if Path(text).exists() else text.split(JOINED)
