"""The finished trials of a search, and conclusions from them."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ferkit.errors import one_line

STATUSES = ("ok", "stopped", "failed")  # stopped: ended early as hopeless; its accuracy counts
DIVERGED = "diverged: "  # start of the reason for a trial that failed because of its hyperparameters
FAILURES = 4  # this many in a row with the same reason are the fault of the machine
FEWEST_TO_COMPARE = 5  # the median rule stops a trial only if this many others have reached the same epoch
REDUCTION = 3  # successive halving keeps this part of the trials, after 1, 3, 9, … epochs


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


def is_hopeless(rule: str, accuracies: Sequence[float], others: Iterable[Sequence[float]]) -> bool:
    """Whether a trial is to be stopped early.

    rule: one of settings.STOP_RULES. accuracies: those of the trial, after each of its epochs so far. others: those of
    the other trials. What counts is the best epoch up to now.
    median (Golovin et al., KDD 2017): the trial is below the median of the others that have come as far.
    halving (ASHA, asynchronous successive halving; Li et al., MLSys 2020): after 1, 3, 9, … epochs, the trial is not
    among the best third of all that have come as far, itself included. Of fewer than three only the best goes on. A
    stopped trial never goes on later, as it could in the paper.
    """
    epochs, own = len(accuracies), max(accuracies)
    reached = [max(other[:epochs]) for other in others if len(other) >= epochs]
    if rule == "median":
        return len(reached) >= FEWEST_TO_COMPARE and own < statistics.median(reached)
    if rule == "halving" and _is_rung(epochs):
        return sum(other > own for other in reached) >= max(1, (len(reached) + 1) // REDUCTION)
    return False


def _is_rung(epochs: int) -> bool:
    while epochs % REDUCTION == 0:
        epochs //= REDUCTION
    return epochs == 1


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
