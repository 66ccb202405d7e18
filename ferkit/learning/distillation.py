"""Knowledge distillation: a network learns the probabilities of teachers, saved models, in addition to the labels.

    teachers = Teachers("ferplus,fer2013_large", dataset.expressions, "landmarks")
    teachers.probabilities(faces, vectors)  # (N, 48, 48) uint8, (N, size) float32 -> (N, K) float32

A label names one expression. The probabilities of a better network also say which other expressions a face could show,
and give less weight to wrong labels (knowledge distillation: Hinton, Vinyals and Dean, 2015). The teachers see the same
randomly moved and relit faces as the network, in every epoch (Beyer et al., "Knowledge distillation: a good teacher is
patient and consistent", CVPR 2022), but clear ones: what blur or erasing hides, the network learns to tell from the
rest (Xie et al., "Self-training with noisy student", CVPR 2020).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ferkit import saved_model
from ferkit.constants import TEACHER
from ferkit.errors import UserError

LEAST = 1e-6  # least probability of an expression


class Teachers:
    """The saved models of the setting `teacher`, restricted to `expressions`. Their probabilities are averaged.

    For the arguments and the errors see Teacher.
    """

    def __init__(self, setting: str, expressions: Sequence[str], kind: str):
        self._teachers = [Teacher(path, expressions, kind) for path in paths_of(setting)]

    @property
    def facts(self) -> dict[str, Any]:
        """The facts that identify the teachers, independent of their paths."""
        facts = [teacher.facts for teacher in self._teachers]
        return facts[0] if len(facts) == 1 else {"teachers": facts}

    @property
    def feature_provenance(self) -> dict[str, dict[str, Any]]:
        """How their features were computed: see features.provenance."""
        return {name: known for teacher in self._teachers for name, known in teacher.feature_provenance.items()}

    def probabilities(
        self, faces: np.ndarray, vectors: np.ndarray, frequencies: np.ndarray | None = None
    ) -> np.ndarray:
        """The mean of what the teachers say: see Teacher.probabilities."""
        return np.mean([one.probabilities(faces, vectors, frequencies) for one in self._teachers], axis=0)


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

    def probabilities(
        self, faces: np.ndarray, vectors: np.ndarray, frequencies: np.ndarray | None = None
    ) -> np.ndarray:
        """The teacher's calibrated probabilities: (N, 48, 48) uint8, (N, size) float32 -> (N, K) float32.

        If the teacher knows more expressions, the probabilities of the K expressions are scaled to sum to 1. They are
        equal for a face to which it gives none of these expressions.
        frequencies: the share of each expression among the labels of the network (K,). A model that knows how frequent
        the expressions were among its own labels answers as if they had been so frequent: the same face is Neutral
        more often among the votes of FER+ than among the labels of FER2013.
        """
        count = len(faces)
        if self._model.features == "none":
            vectors = vectors[:, :0]
        if count > saved_model.BATCH:  # padded to whole batches: a smaller last batch would allocate memory again
            rows = np.arange(count + -count % saved_model.BATCH) % count
            faces, vectors = faces[rows], vectors[rows]
        moved = frequencies is not None and self._model.frequencies is not None
        answers = self._model.predict(faces, vectors, balance=1.0 if moved else None)[:count, self._columns]
        if moved:
            answers = answers * np.asarray(frequencies, np.float32)
        known = np.maximum(answers, np.float32(LEAST))
        return known / known.sum(axis=1, keepdims=True)


def paths_of(setting: str) -> list[str]:
    """The paths or short names in the setting `teacher`, which commas separate."""
    return [setting] if Path(setting).exists() else [path.strip() for path in setting.split(",")]


def find_teacher(path: str) -> str:
    """The path of the file; the included models are found from every working directory."""
    if path == TEACHER and not Path(path).exists():
        return str(saved_model.shipped("fer2013"))
    return str(saved_model.find(path))
