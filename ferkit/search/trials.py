"""The finished trials of a search, and what is read off them."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

STATUSES = ("ok", "stopped", "failed")  # stopped: early, as hopeless; its accuracy counts
DIVERGED = "diverged: "  # begins the reason of a trial that failed because of its hyperparameters
FAILURES = 4  # so many in a row, for one reason, are the fault of the machine
FEWEST_TO_COMPARE = 5  # trials that must have come as far before one is stopped as hopeless


@dataclass(frozen=True)
class Trial:
    """One training of the search, finished."""

    number: int  # from 1
    values: dict[str, float]  # hyperopt's: a number for each label of the space
    parameters: dict[str, Any]  # the same as hyperparameters
    status: str
    accuracies: list[float]  # on PublicTest, after each epoch
    seconds: float
    reason: str = ""  # of a failure
    worker: str = ""

    @property
    def accuracy(self) -> float | None:
        """The best epoch's; None for a failure, whatever it had reached."""
        return None if self.status == "failed" else max(self.accuracies)

    @property
    def epoch(self) -> int:
        """The best one, from 1."""
        return self.accuracies.index(max(self.accuracies)) + 1

    @property
    def result(self) -> dict[str, Any]:
        """As hyperopt wants it."""
        return {"status": "fail"} if self.accuracy is None else {"status": "ok", "loss": 1 - self.accuracy}


def best(trials: Sequence[Trial]) -> Trial | None:
    """The trial of the highest validation accuracy, the first of equals; None when all failed."""
    succeeded = [trial for trial in trials if trial.accuracy is not None]
    return max(succeeded, key=lambda trial: (trial.accuracy, -trial.number), default=None)


def machine_failure(trials: Sequence[Trial]) -> str | None:
    """The reason for which the last FAILURES of `trials` all failed; None unless it is one, and not divergence."""
    reasons = [trial.reason if trial.status == "failed" else "" for trial in trials[-FAILURES:]]
    reason = reasons[0] if len(reasons) == FAILURES and len(set(reasons)) == 1 else ""
    return None if reason.startswith(DIVERGED) else reason or None


def is_hopeless(accuracies: Sequence[float], others: Sequence[Trial]) -> bool:
    """The median rule (Golovin et al., KDD 2017): worse than half of the others that came as far were by then.

    accuracies: of the trial in question, after each of its epochs so far.
    """
    epochs = len(accuracies)
    reached = [max(other.accuracies[:epochs]) for other in others if len(other.accuracies) >= epochs]
    return len(reached) >= FEWEST_TO_COMPARE and max(accuracies) < statistics.median(reached)


def check_trial(trial: Trial) -> None:
    """Raises ValueError or TypeError for what no search writes."""
    if trial.status not in STATUSES:
        raise ValueError(f"status {trial.status!r}")
    if not all(0 <= accuracy <= 1 for accuracy in trial.accuracies) or not 0 <= trial.seconds < math.inf:
        raise ValueError(f"numbers of trial {trial.number}")
    if trial.status != "failed" and not trial.accuracies:
        raise ValueError(f"trial {trial.number} without an epoch")
