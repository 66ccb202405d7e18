"""Knowledge distillation: a network learns the probabilities of a teacher, a saved model, in addition to the labels.

    teacher = Teacher("ferplus+fer2013_large", dataset.expressions, "landmarks")  # two that answer together
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
from ferkit.features import JOINED
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
        self._model = ensemble.load(JOINED.join(found), threads=1)  # the network needs the other cores
        if self._model.features not in ("none", kind):
            raise UserError(
                f"the teacher {path} wants features={self._model.features}, which the network in training has not: "
                "name another --teacher, or use its --features"
            )
        if unknown := [name for name in expressions if name not in self._model.expressions]:
            raise UserError(f"the teacher {path} does not know {', '.join(unknown)}: name another --teacher")
        self._columns = [self._model.expressions.index(name) for name in expressions]

    @property
    def facts(self) -> dict[str, Any]:
        """The facts that identify the teacher, independent of its path."""
        if isinstance(self._model, SavedModel):
            return _facts_of(self._model)
        return {"teachers": [_facts_of(model) for model in self._model.models]}

    @property
    def feature_provenance(self) -> dict[str, dict[str, Any]]:
        """How its features were computed: see features.provenance."""
        return self._model.feature_provenance

    def probabilities(
        self, faces: np.ndarray, vectors: np.ndarray, frequencies: np.ndarray | None = None
    ) -> np.ndarray:
        """The teacher's calibrated probabilities: (N, 48, 48) uint8, (N, size) float32 -> (N, K) float32.

        If the teacher knows more expressions, the probabilities of the K expressions are scaled to sum to 1. They are
        equal for a face to which it gives none of these expressions.
        frequencies: the share of each expression among the labels of the network (K,). If the model tells how frequent
        they were among its own labels, it answers as if they had been so frequent: see Ensemble.
        """
        count = len(faces)
        if self._model.features == "none":
            vectors = vectors[:, :0]
        if count > saved_model.BATCH:  # padded to whole batches: a smaller last batch would allocate memory again
            rows = np.arange(count + -count % saved_model.BATCH) % count
            faces, vectors = faces[rows], vectors[rows]
        own = self._model.frequencies
        if frequencies is None or own is None:
            answers = self._model.predict(faces, vectors)[:count, self._columns]
        else:
            moved = np.asarray(frequencies, np.float32) / np.maximum(own[self._columns], saved_model.LEAST_FREQUENCY)
            answers = self._model.predict(faces, vectors, balance=0.0)[:count, self._columns] * moved
        known = np.maximum(answers, np.float32(LEAST))
        return known / known.sum(axis=1, keepdims=True)


def _facts_of(model: SavedModel) -> dict[str, Any]:
    calibration = {"teacher_label_smoothing": model.smoothing, "teacher_temperature": model.temperature}
    return {"teacher_sha256": model.facts["network_sha256"], **calibration}


def find_teachers(path: str) -> list[str]:
    """The paths of the files; the included models are found from every working directory."""
    return [
        str(saved_model.shipped("fer2013") if one == TEACHER and not Path(one).exists() else saved_model.find(one))
        for one in ensemble.paths_of(path)
    ]
