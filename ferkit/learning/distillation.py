"""Knowledge distillation: a network learns the probabilities of a teacher, a saved model, in addition to the labels.

    teacher = Teacher("pretrained/saved_model.bin", dataset.expressions, "landmarks")
    teacher.probabilities(faces, vectors)  # (N, 48, 48) uint8, (N, size) float32 -> (N, K) float32

A label names one expression. The probabilities of a better network also say which other expressions a face could show,
and give less weight to wrong labels (knowledge distillation: Hinton, Vinyals and Dean, 2015). The teacher sees the same
randomly changed faces as the network, in every epoch (Beyer et al., "Knowledge distillation: a good teacher is patient
and consistent", CVPR 2022).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ferkit import saved_model
from ferkit.constants import TEACHER
from ferkit.errors import UserError

LEAST = 1e-6  # least probability of an expression


class Teacher:
    """The saved model at `path`, restricted to `expressions`.

    kind: the features of the network in training. The teacher must use the same features, or raw pixels only.
    Raises UserError when the model cannot be read, uses other features, or lacks one of the expressions.
    """

    def __init__(self, path: str, expressions: Sequence[str], kind: str):
        found = find_teacher(path)
        if not Path(found).is_file():
            raise UserError(f"no teacher at {path}: name another --teacher, or copy it there")
        self._model = saved_model.load(found, threads=1)  # the network needs the other cores
        if self._model.features not in ("none", kind):
            raise UserError(
                f"the teacher {found} wants features={self._model.features}, which the network in training has not: "
                "name another --teacher, or use its --features"
            )
        if unknown := [name for name in expressions if name not in self._model.expressions]:
            raise UserError(f"the teacher {found} does not know {', '.join(unknown)}: name another --teacher")
        self._columns = [self._model.expressions.index(name) for name in expressions]

    @property
    def facts(self) -> dict[str, str | float]:
        """The facts that identify the teacher, independent of its path."""
        model = self._model
        calibration = {"teacher_label_smoothing": model.smoothing, "teacher_temperature": model.temperature}
        return {"teacher_sha256": model.facts["network_sha256"], **calibration}

    @property
    def feature_provenance(self) -> dict[str, dict[str, Any]]:
        """How its features were computed: see features.provenance."""
        return self._model.feature_provenance

    def probabilities(self, faces: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """The teacher's calibrated probabilities: (N, 48, 48) uint8, (N, size) float32 -> (N, K) float32.

        If the teacher knows more expressions, the probabilities of the K expressions are scaled to sum to 1. They are
        equal for a face to which it gives none of these expressions.
        """
        count = len(faces)
        if self._model.features == "none":
            vectors = vectors[:, :0]
        if count > saved_model.BATCH:  # padded to whole batches: a smaller last batch would allocate memory again
            rows = np.arange(count + -count % saved_model.BATCH) % count
            faces, vectors = faces[rows], vectors[rows]
        known = np.maximum(self._model.predict(faces, vectors)[:count, self._columns], np.float32(LEAST))
        return known / known.sum(axis=1, keepdims=True)


def find_teacher(path: str) -> str:
    """The path of the file; the included model fer2013 is found from every working directory."""
    return str(saved_model.shipped("fer2013")) if path == TEACHER and not Path(path).exists() else path
