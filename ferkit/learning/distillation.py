"""Knowledge distillation: a network learns the probabilities of a teacher, a saved model, in addition to the labels.

    teacher = Teacher("ferplus+fer2013_large", dataset.expressions, "landmarks")  # the mean of two
    teacher.probabilities(faces, vectors)  # (N, 48, 48) uint8, (N, size) float32 -> (N, K) float32

A label names one expression. The probabilities of a better network also say which other expressions a face could show,
and give less weight to wrong labels (knowledge distillation: Hinton, Vinyals and Dean, 2015). The teacher sees the same
randomly moved and relit faces as the network, in every epoch (Beyer et al., "Knowledge distillation: a good teacher is
patient and consistent", CVPR 2022), but clear ones: what blur or erasing hides, the network learns to tell from the
rest (Xie et al., "Self-training with noisy student", CVPR 2020).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ferkit import ensemble, saved_model
from ferkit.constants import TEACHER
from ferkit.errors import UserError
from ferkit.saved_model import SavedModel

LEAST = 1e-6  # least probability of an expression


class Teacher:
    """The saved model at `path`, or several joined by a plus, restricted to `expressions`.

    kind: the features of the network in training. The teacher must use the same features, or raw pixels only.
    Raises UserError when the model cannot be read, uses other features, or lacks one of the expressions.
    """

    def __init__(self, path: str, expressions: Sequence[str], kind: str):
        found = find_teachers(path)
        if missing := [one for one in found if not Path(one).is_file()]:
            raise UserError(f"no teacher at {missing[0]}: name another --teacher, or copy it there")
        self._models = {  # one thread each, as the network needs the other cores
            one: saved_model.load(one, threads=1, flag="--teacher") for one in found
        }
        self._weights = found
        for name, model in self._models.items():
            if model.features not in ("none", kind):
                raise UserError(
                    f"the teacher {name} wants features={model.features}, which the network in training has not: "
                    "name another --teacher, or use its --features"
                )
            if unknown := [one for one in expressions if one not in model.expressions]:
                raise UserError(f"the teacher {name} does not know {', '.join(unknown)}: name another --teacher")
        self._expressions = tuple(expressions)

    @property
    def facts(self) -> dict[str, Any]:
        """The facts that identify the teacher, independent of its path."""
        facts = [_facts_of(model) for model in self._models.values()]
        return facts[0] if len(facts) == 1 else {"teachers": facts, "teacher_weights": [*self._weights.values()]}

    @property
    def feature_provenance(self) -> dict[str, dict[str, Any]]:
        """How its features were computed: see features.provenance."""
        return {name: known for model in self._models.values() for name, known in model.feature_provenance.items()}

    def probabilities(
        self, faces: np.ndarray, vectors: np.ndarray, frequencies: np.ndarray | None = None
    ) -> np.ndarray:
        """The teacher's calibrated probabilities: (N, 48, 48) uint8, (N, size) float32 -> (N, K) float32.

        If the teacher knows more expressions, the probabilities of the K expressions are scaled to sum to 1. They are
        equal for a face to which it gives none of these expressions.
        frequencies: the share of each expression among the labels of the network (K,). A model that tells how frequent
        they were among its own labels answers as if they had been so frequent: the same face is Neutral more often
        among the votes of FER+ than among the labels of FER2013.
        """
        count = len(faces)
        if count > saved_model.BATCH:  # padded to whole batches: a smaller last batch would allocate memory again
            rows = np.arange(count + -count % saved_model.BATCH) % count
            faces, vectors = faces[rows], vectors[rows]
        answers = [self._answers(model, faces, vectors, frequencies)[:count] for model in self._models.values()]
        return np.average(answers, axis=0, weights=[*self._weights.values()])

    def _answers(
        self, model: SavedModel, faces: np.ndarray, vectors: np.ndarray, frequencies: np.ndarray | None
    ) -> np.ndarray:
        columns = [model.expressions.index(name) for name in self._expressions]
        own = vectors if model.features != "none" else vectors[:, :0]
        if frequencies is None or model.frequencies is None:
            answers = model.predict(faces, own)[:, columns]
        else:
            moved = frequencies / np.maximum(model.frequencies[columns], saved_model.LEAST_FREQUENCY)
            answers = model.predict(faces, own, balance=0.0)[:, columns] * moved.astype(np.float32)
        known = np.maximum(answers, np.float32(LEAST))
        return known / known.sum(axis=1, keepdims=True)


def _facts_of(model: SavedModel) -> dict[str, Any]:
    calibration = {"teacher_label_smoothing": model.smoothing, "teacher_temperature": model.temperature}
    return {"teacher_sha256": model.facts["network_sha256"], **calibration}


def find_teachers(path: str) -> dict[str, int]:
    """The paths of the files, and how much each counts; the included models are found from every working directory.

    Raises UserError when no teacher is named.
    """
    if not path:
        raise UserError("teacher_share is above 0, but no teacher is named: use --teacher=PATH, or --teacher_share=0")
    return {
        str(
            saved_model.shipped("fer2013") if one == TEACHER and not Path(one).is_file() else saved_model.find(one)
        ): weight
        for one, weight in ensemble.weights_of(path).items()
    }
