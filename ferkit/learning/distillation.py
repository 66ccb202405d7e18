"""Knowledge distillation: a network learns the probabilities of a teacher, a saved model, beside the labels.

    teacher = Teacher("pretrained/saved_model.bin", dataset.expressions, "landmarks")
    teacher.probabilities(faces, vectors)  # (N, 48, 48) uint8, (N, size) float32 -> (N, K) float32

A label names one expression; a better network's probabilities also say what else a face could show, and doubt wrong
labels (knowledge distillation: Hinton, Vinyals and Dean, 2015). The teacher is asked of each face as it was changed for
the network, anew in every epoch (Beyer et al., "Knowledge distillation: a good teacher is patient and consistent", CVPR
2022).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ferkit import saved_model
from ferkit.constants import SHIPPED_MODEL
from ferkit.errors import UserError

LEAST = 1e-6  # no expression has a smaller share


class Teacher:
    """The saved model at `path`, asked which of `expressions` a face shows.

    kind: the features that the network in training has; the teacher must have the same, or be one of raw pixels.
    Raises UserError when it cannot be read, has other features, or does not know all of the expressions.
    """

    def __init__(self, path: str, expressions: Sequence[str], kind: str):
        found = find_teacher(path)
        if not Path(found).is_file():
            raise UserError(f"no teacher at {path}: name another --teacher, or copy it there")
        self._model = saved_model.load(found, threads=1)  # the other core is the network's
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
        """What tells it from other teachers, wherever it lies."""
        model = self._model
        calibration = {"teacher_label_smoothing": model.smoothing, "teacher_temperature": model.temperature}
        return {"teacher_sha256": model.facts["network_sha256"], **calibration}

    @property
    def feature_provenance(self) -> dict[str, dict[str, Any]]:
        """How its features were computed: see features.provenance."""
        return self._model.feature_provenance

    def probabilities(self, faces: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """What it makes of the faces, calibrated: (N, 48, 48) uint8, (N, size) float32 -> (N, K) float32.

        Of a teacher with more expressions, the shares that these have among each other; even ones where it sees none.
        """
        count = len(faces)
        if self._model.features == "none":
            vectors = vectors[:, :0]
        if count > saved_model.BATCH:  # filled up to whole batches: memory would be laid out anew for what is left over
            rows = np.arange(count + -count % saved_model.BATCH) % count
            faces, vectors = faces[rows], vectors[rows]
        known = np.maximum(self._model.predict(faces, vectors)[:count, self._columns], np.float32(LEAST))
        return known / known.sum(axis=1, keepdims=True)


def find_teacher(path: str) -> str:
    """Where the file is: the shipped model is found from every working directory."""
    return str(saved_model.shipped()) if path == SHIPPED_MODEL and not Path(path).exists() else path
