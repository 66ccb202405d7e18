"""The finished trials of a search, and conclusions from them."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ferkit.errors import one_line

STATUSES = ("ok", "stopped", "failed")  # stopped: ended early as hopeless; its accuracy counts
DIVERGED = "diverged: "  # start of the reason for a trial that failed because of its hyperparameters
FAILURES = 4  # this many in a row with the same reason are the fault of the machine
FEWEST_TO_COMPARE = 5  # a trial is stopped as hopeless only if this many trials have reached the same epoch


@dataclass(frozen=True)
class Trial:
    """A finished training of the search."""

    number: int  # from 1
    values: dict[str, float]  # hyperopt's values: a number for each label of the space
    parameters: dict[str, Any]  # the hyperparameters that correspond to `values`
    status: str
    accuracies: list[float]  # on PublicTest, after each epoch
    seconds: float
    reason: str = ""  # why it failed
    worker: str = ""

    @property
    def accuracy(self) -> float | None:
        """The accuracy of the best epoch; None for a failed trial, even if it finished epochs."""
        return None if self.status == "failed" else max(self.accuracies)

    @property
    def epoch(self) -> int:
        """The number of the best epoch, from 1."""
        return self.accuracies.index(max(self.accuracies)) + 1

    @property
    def result(self) -> dict[str, Any]:
        """The result in hyperopt's form."""
        return {"status": "fail"} if self.accuracy is None else {"status": "ok", "loss": 1 - self.accuracy}


def best(trials: Sequence[Trial]) -> Trial | None:
    """The first trial with the highest validation accuracy; None if all failed."""
    succeeded = [trial for trial in trials if trial.accuracy is not None]
    return max(succeeded, key=lambda trial: (trial.accuracy, -trial.number), default=None)


def machine_failure(trials: Sequence[Trial]) -> str | None:
    """The reason if the last FAILURES of `trials` all failed for the same one, not because of divergence; else None."""
    reasons = [trial.reason if trial.status == "failed" else "" for trial in trials[-FAILURES:]]
    reason = reasons[0] if len(reasons) == FAILURES and len(set(reasons)) == 1 else ""
    return None if reason.startswith(DIVERGED) else reason or None


def is_hopeless(accuracies: Sequence[float], others: Sequence[Trial]) -> bool:
    """The median rule (Golovin et al., KDD 2017): whether a trial is below the median of the others at this epoch.

    accuracies: those of the trial, after each of its epochs so far.
    """
    epochs = len(accuracies)
    reached = [max(other.accuracies[:epochs]) for other in others if len(other.accuracies) >= epochs]
    return len(reached) >= FEWEST_TO_COMPARE and max(accuracies) < statistics.median(reached)


def read_trial(facts: Mapping[str, Any]) -> Trial:
    """The trial with these facts, which a file or a database may have damaged; its texts are on one line.

    `parameters` must be compared with those that the space gives for `values`. Raises ValueError, TypeError or KeyError
    for facts that no search writes.
    """
    texts = {name: one_line(check_text(facts.get(name, ""))) for name in ("reason", "worker")}
    trial = Trial(**{**facts, **texts})
    if type(trial.number) is not int or trial.number < 1:
        raise ValueError(f"number {trial.number!r}")
    if not isinstance(trial.values, dict) or not all(is_number(value) for value in trial.values.values()):
        raise ValueError(f"values of trial {trial.number}")
    if not isinstance(trial.accuracies, list) or not all(map(is_number, (*trial.accuracies, trial.seconds))):
        raise ValueError(f"numbers of trial {trial.number}")
    if trial.status not in STATUSES:
        raise ValueError(f"status {trial.status!r}")
    if not all(0 <= accuracy <= 1 for accuracy in trial.accuracies) or not 0 <= trial.seconds < math.inf:
        raise ValueError(f"numbers of trial {trial.number}")
    if trial.status != "failed" and not trial.accuracies:
        raise ValueError(f"trial {trial.number} without an epoch")
    return trial


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def check_text(value: Any) -> str:
    """`value`. Raises TypeError unless it is a text."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
