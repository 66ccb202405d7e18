"""A search on one machine: one trial after another. Each trial is written to disk as soon as it is finished."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ferkit.errors import UserError
from ferkit.processes import uninterrupted
from ferkit.search import report
from ferkit.search.space import searched_hyperparams, suggest
from ferkit.search.state import difference, read_state, write_state
from ferkit.search.trial import run_trial
from ferkit.search.trials import FAILURES, Trial, best, is_hopeless, machine_failure

STATE = "state.json"


def search(
    settings: dict[str, Any], max_evals: int, dataset: str, folder: Path, trial_command: Sequence[str]
) -> list[Trial]:
    """Trains one trial after another until there are `max_evals`, including those already in `folder`; returns all.

    dataset: folder of the dataset. trial_command: see trial.run_trial. Raises UserError when `folder` has a different
    or damaged search. Also raises it when several trials in a row fail for the same reason, such as a full disk, so
    that the other trials are not wasted.
    """
    state = folder / STATE
    known, trials = read_state(state) or (settings, [])
    differs = difference(known, settings)
    if differs:
        raise UserError(f"the search in {folder} has {differs}: use that, or search under another --name")
    if trials and len(trials) < max_evals:
        print(f"Going on after trial {len(trials)}")
    before = len(trials)
    try:
        while len(trials) < max_evals:
            trial = try_next(settings, trials, max_evals, dataset, trial_command)
            with uninterrupted():  # a finished trial is always kept
                trials.append(trial)
                write_state(state, settings, trials)
            report.write_results(settings, trials, folder)
            reason = machine_failure(trials[before:])
            if reason is not None and len(trials) < max_evals:
                raise UserError(
                    f"{FAILURES} trials in a row failed ({reason}): mend that, and the same command goes on, or search "
                    "under another --name"
                )
    except KeyboardInterrupt:
        counted = report.counted(len(trials))
        print(f"\nStopped: {folder} keeps {counted}, the same command goes on", file=sys.stderr)
        raise
    return trials


def try_next(
    settings: dict[str, Any], trials: Sequence[Trial], max_evals: int, dataset: str, trial_command: Sequence[str]
) -> Trial:
    """Trains the next trial and returns its result."""
    number = len(trials) + 1
    values = suggest(settings, trials, number)
    chosen = searched_hyperparams(settings, values)
    print(f"Trial {number}/{max_evals}: {report.described(chosen)}", flush=True)
    job = {"settings": settings, "parameters": chosen, "folder": dataset}
    others = [trial.accuracies for trial in trials]
    outcome = run_trial(job, trial_command, lambda accuracies: is_hopeless(settings["stop_early"], accuracies, others))
    trial = Trial(number, values, chosen, **dataclasses.asdict(outcome))
    leader = best([*trials, trial])
    print(f"Trial {number}/{max_evals}: {report.ending(trial, leader)}", flush=True)
    return trial


def kept(folder: Path) -> tuple[dict[str, Any], list[Trial]]:
    """Settings and trials of the search in `folder`. Raises UserError when there is none."""
    found = read_state(folder / STATE)
    if found is None:
        raise UserError(f"no search in {folder}: start one, or give its --name")
    return found
