"""A training: all that decides it, how far it has come, and the ways in which it can end early."""

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

from ferkit.data.dataset import Dataset
from ferkit.errors import UserError
from ferkit.learning.architecture import Architecture
from ferkit.learning.distillation import Teacher
from ferkit.settings import Augmentation, Hyperparams, Network, Training


@dataclasses.dataclass(frozen=True)
class Run:
    """All that decides a training."""

    dataset: Dataset
    architecture: Architecture
    network: Network
    hyperparams: Hyperparams
    training: Training
    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)

    @property
    def steps_per_epoch(self) -> int:
        return max(1, self.dataset.counts["Training"] // self.hyperparams.batch_size)

    @property
    def steps(self) -> int:
        return self.training.epochs * self.steps_per_epoch

    @functools.cached_property
    def teacher(self) -> Teacher | None:
        """What is learned beside the labels, loaded when first asked for. Raises UserError when it cannot be used."""
        if not self.hyperparams.teacher_share:
            return None
        teacher = Teacher(self.hyperparams.teacher, self.dataset.expressions, self.network.features)
        ours = self.dataset.feature_provenance(self.network.features)
        if any(ours[name] != provenance for name, provenance in teacher.feature_provenance.items()):
            raise UserError(
                f"{self.dataset.folder} has features computed otherwise than the teacher's (another landmark "
                "predictor?): convert again, or name another --teacher"
            )
        return teacher

    @property
    def teacher_facts(self) -> dict[str, dict[str, Any]]:
        """What tells the teacher from others, under its name; nothing without one."""
        return {"teacher": self.teacher.facts} if self.teacher else {}

    def resumable(self) -> dict[str, Any]:
        """What must not change between a training and its resumption; epochs only in a cosine."""
        hyperparams = dataclasses.asdict(self.hyperparams)
        del hyperparams["teacher"]  # wherever it lies, so long as it is the same
        return {
            **dataclasses.asdict(self.network),
            **hyperparams,
            **dataclasses.asdict(self.augmentation),
            **({"epochs": self.training.epochs} if self.hyperparams.schedule == "cosine" else {}),
            "seed": self.training.seed,
            "bfloat16": uses_bfloat16(self.training),
            "dataset": self.dataset.fingerprint,
            "feature_provenance": self.dataset.feature_provenance(self.network.features),
            **self.teacher_facts,
        }


@dataclasses.dataclass
class State:
    """How far a training has come; written after each epoch's checkpoint."""

    settings: dict[str, Any]  # Run.resumable()
    log: str  # name of the log's folder
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)  # one row an epoch

    @property
    def best(self) -> dict[str, float]:
        """The epoch of the highest validation accuracy, the first of equals; without validation, the last epoch."""
        if math.isnan(self.history[-1]["validation_accuracy"]):
            return self.history[-1]
        return max(self.history, key=lambda row: row["validation_accuracy"])


class Diverged(UserError):
    """The loss is no number any more."""

    status = 3  # an outcome to report, unlike a mistake to mend


class CannotResume(UserError):
    """There is nothing to go on from: nothing at all, of another training, or damaged."""

    status = 4  # for those who start anew then


def check_steps(run: Run) -> None:
    """Raises UserError when the warm-up would not end within the training."""
    if run.hyperparams.warmup_steps > run.steps:
        raise UserError(
            f"warmup_steps is {run.hyperparams.warmup_steps}, but the training has only {run.steps} steps: "
            "use fewer --warmup_steps, or more --epochs"
        )


def uses_bfloat16(training: Training) -> bool:
    """The setting; "auto" is yes where the CPU multiplies bf16 itself, as elsewhere it would be slower than fp32."""
    if training.bfloat16 != "auto":
        return training.bfloat16 == "yes"
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
