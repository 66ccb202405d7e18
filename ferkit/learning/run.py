"""A training: its inputs, its state, and the errors that end it early."""

import dataclasses
import functools
import importlib.util
import math
from datetime import datetime
from pathlib import Path
from typing import Any

from ferkit.data.dataset import Dataset
from ferkit.errors import UserError
from ferkit.learning.architecture import Architecture
from ferkit.learning.distillation import Teacher
from ferkit.learning.starting import Start
from ferkit.settings import Augmentation, Hyperparams, Network, Training


@dataclasses.dataclass(frozen=True)
class Run:
    """All inputs of a training."""

    dataset: Dataset
    architecture: Architecture
    network: Network
    hyperparams: Hyperparams
    training: Training
    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)
    start: Start | None = None  # the saved model whose weights the network has at first
    own_teachers: bool = False  # its teachers are networks that pytorch.TorchTraining is given, not saved models

    @property
    def steps_per_epoch(self) -> int:
        return max(1, self.dataset.counts["Training"] // self.hyperparams.batch_size)

    @property
    def steps(self) -> int:
        return self.training.epochs * self.steps_per_epoch

    @property
    def smoothing(self) -> float:
        """The share of label smoothing in what is learned: only the labels are smoothed, not the teachers' answers."""
        return self.hyperparams.label_smoothing * (1 - self.hyperparams.teacher_share)

    @functools.cached_property
    def teacher(self) -> Teacher | None:
        """The teacher, loaded at the first access; None without one. Raises UserError when it cannot be used."""
        if not self.hyperparams.teacher_share or self.own_teachers:
            return None
        teacher = Teacher(self.hyperparams.teacher, self.dataset.expressions, self.network.features)
        self.dataset.check_computed(teacher.feature_provenance, "the teacher's", "name another --teacher")
        return teacher

    @property
    def teacher_facts(self) -> dict[str, dict[str, Any]]:
        """The facts that identify the teacher, under the key "teacher"; empty without a teacher."""
        return {"teacher": self.teacher.facts} if self.teacher else {}

    def resumable(self) -> dict[str, Any]:
        """The settings that must not change when a training is resumed; the number of epochs only for a cosine."""
        hyperparams = dataclasses.asdict(self.hyperparams)
        del hyperparams["teacher"]  # its path may change; teacher_facts identify it
        return {
            **dataclasses.asdict(self.network),
            **hyperparams,
            **dataclasses.asdict(self.augmentation),
            **({"epochs": self.training.epochs} if self.hyperparams.schedule == "cosine" else {}),
            "seed": self.training.seed,
            "bfloat16": uses_bfloat16(self.training),
            "engine": self.training.engine,
            "labels": self.dataset.label_source,
            "dataset": self.dataset.fingerprint,
            "feature_provenance": self.dataset.feature_provenance(self.network.features),
            **self.teacher_facts,
            **(self.start.facts if self.start else {}),
        }


@dataclasses.dataclass
class State:
    """The progress of a training; written after each epoch's checkpoint."""

    settings: dict[str, Any]  # Run.resumable()
    log: str  # name of the log folder
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)  # one row per epoch

    @property
    def best(self) -> dict[str, float]:
        """The epoch with the highest validation accuracy; without validation, the last epoch.

        Of several, the first. In fine-tuning the last: among few faces many epochs are equal, and the later ones have
        learned at a lower rate.
        """
        if math.isnan(self.history[-1]["validation_accuracy"]):
            return self.history[-1]
        history = reversed(self.history) if "start" in self.settings else self.history
        return max(history, key=lambda row: row["validation_accuracy"])


def log_name(network: Network) -> str:
    """The name of a training's log, which begins now."""
    return f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{network.model}_{network.features}"


class Diverged(UserError):
    """The loss or the weights became infinite or NaN."""

    status = 3  # a result to report, not a mistake of the user


class CannotResume(UserError):
    """There is no state to resume from, or it is damaged or of another training."""

    status = 4  # tells callers that they can start again from the beginning


def check_engine(training: Training) -> None:
    """Raises UserError when the library that should train is not installed."""
    if training.engine == "pytorch" and importlib.util.find_spec("torch") is None:
        raise UserError("engine=pytorch needs PyTorch: pip install torch, or use --engine=tensorflow")


def check_trainable(run: Run) -> None:
    """Raises UserError when the dataset does not fit the network, or when the warm-up is longer than the training."""
    run.dataset.check(run.network.features, run.network.output_size)
    run.dataset.check_learnable()
    if run.hyperparams.warmup_steps > run.steps:
        raise UserError(
            f"warmup_steps is {run.hyperparams.warmup_steps}, but the training has only {run.steps} steps: "
            "use fewer --warmup_steps, or more --epochs"
        )


def uses_bfloat16(training: Training) -> bool:
    """The setting. "auto" means yes on a GPU, and on a CPU with bf16 instructions: others are slower in bf16."""
    if training.bfloat16 != "auto":
        return training.bfloat16 == "yes"
    if training.engine == "pytorch":
        import torch  # slow to import, and optional

        if torch.cuda.is_available():
            return True
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
