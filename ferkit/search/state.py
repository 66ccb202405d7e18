"""The settings of a search, and the state of a search on disk.

settings = search_settings(run, OPTIMIZER)
write_state(path, settings, trials)
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ferkit.errors import UserError, in_short
from ferkit.files import read_bytes, whole_file
from ferkit.flags import shown
from ferkit.learning.run import Run, check_trainable
from ferkit.search.space import RANGES, searched_hyperparams, space
from ferkit.search.trials import Trial, read_trial
from ferkit.settings import (
    OPTIMIZERS,
    Augmentation,
    Hyperparams,
    Network,
    Optimizer,
    Training,
    check,
    upgraded,
    with_added,
    with_values,
)

FORMAT = 1
TRAINED = ("epochs", "seed", "bfloat16", "engine", "labels")  # the fields of Training that affect a search


# --- the settings of a search ----------------------------------------------------------------------------------------


def search_settings(run: Run, optimizer: Optimizer) -> dict[str, Any]:
    """All settings that the result of a search depends on, as JSON values. Raises UserError if they cannot work.

    run: the training of each trial; its values of the searched hyperparameters are left out.
    """
    check_search(run, optimizer)
    space = {name: getattr(optimizer, name) for name in ("optimizer", *RANGES)}
    space["optimizer"] = optimizer.optimizer or (run.hyperparams.optimizer,)
    if run.hyperparams.schedule == "cosine":
        del space["learning_rate_decay"]  # it has no effect
    fixed = {name: value for name, value in dataclasses.asdict(run.hyperparams).items() if name not in space}
    if len(space["optimizer"]) == 1:
        (fixed["optimizer"],) = space["optimizer"]
    training = {name: getattr(run.training, name) for name in TRAINED}
    settings = {
        "network": dataclasses.asdict(run.network),
        "hyperparams": fixed,
        "augmentation": dataclasses.asdict(run.augmentation),
        "training": training,
        "samples": optimizer.samples,
        "space": space,
        "random_trials": optimizer.random_trials,
        "stop_early": optimizer.stop_early,
        "dataset": run.dataset.fingerprint,
        "feature_provenance": run.dataset.feature_provenance(run.network.features),
        **run.teacher_facts,
    }
    return json.loads(json.dumps(settings))  # tuples become lists, as in a file that is read back


def check_search(run: Run, optimizer: Optimizer) -> None:
    """Raises UserError if the settings, any part of the space, or the dataset cannot be used."""
    check(optimizer)
    names = optimizer.optimizer
    known = isinstance(names, tuple | list) and all(name in OPTIMIZERS for name in names)
    if not known or len(set(names)) < len(names):
        raise UserError(f"OPTIMIZER.optimizer is {names!r}: it must be a tuple of {', '.join(OPTIMIZERS)}, each once")
    for name in RANGES:
        bounds = getattr(optimizer, name)
        if not _are_bounds(bounds):
            raise UserError(f"OPTIMIZER.{name} is {bounds!r}: it must be (lowest, highest)")
        for bound in bounds:
            try:
                end = dataclasses.replace(run.hyperparams, **{name: bound})
                check(end)
            except UserError as error:
                raise UserError(f"OPTIMIZER.{error}") from error
    for split, purpose in (("Training", "learn from"), ("PublicTest", "choose by")):
        if split not in run.dataset.counts:
            raise UserError(f"{run.dataset.folder} has no {split} split to {purpose}: convert a source that has one")
    check_trainable(dataclasses.replace(run, dataset=run.dataset.sampled(optimizer.samples, run.training.seed)))


def _are_bounds(bounds: Any) -> bool:
    two = isinstance(bounds, tuple | list) and len(bounds) == 2
    return two and all(type(bound) in (int, float) for bound in bounds) and bounds[0] < bounds[1]


def difference(was: dict[str, Any], now: dict[str, Any]) -> str | None:
    """The first setting that differs between two searches, in words; None if all are equal."""
    before, after = dict(_flat(was)), dict(_flat(now))
    names = {**before, **after}
    # Settings that only one search has come last, because they follow from other settings.
    for name in sorted(names, key=lambda name: name not in before or name not in after):
        if before.get(name) != after.get(name):
            if name in ("dataset", "feature_provenance"):
                return "another dataset"
            return f"{name}={shown(before.get(name))}, not {shown(after.get(name))}"
    return None


def _flat(settings: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if name == "space":
            yield from ((f"OPTIMIZER.{part}", bounds) for part, bounds in value.items())
        elif isinstance(value, dict) and name != "feature_provenance":
            yield from value.items()
        else:
            yield name, value


# --- the state on disk -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def understood(place: str) -> Iterator[None]:
    """Turns any error of the code inside, which reads the data of a search in `place`, into a one-line UserError."""
    try:
        yield
    except MemoryError:  # not the fault of the data
        raise
    except Exception as error:
        raise UserError(
            f"{place} is damaged or of another version of this toolkit ({in_short(error)}), and left as it is: go on "
            "with the version that began it, restore it, or search under another --name"
        ) from error


def check_kept(version: int, settings: dict[str, Any]) -> None:
    """Raises an exception of any type for settings that `search_settings` of this version does not make."""
    if version != FORMAT:
        raise ValueError(f"format {version}, not {FORMAT}")
    with_values(Optimizer(), {name: settings[name] for name in ("samples", "random_trials", "stop_early")}, "search")
    _ = settings["dataset"], settings["feature_provenance"]
    for end in (0, -1):
        searched = {name: bounds[end] for name, bounds in settings["space"].items()}
        check(
            _whole(Network(), settings["network"]),
            _whole(Hyperparams(), {**searched, **settings["hyperparams"]}),
            with_values(Training(), {name: settings["training"][name] for name in TRAINED}, "training"),
            _whole(Augmentation(), settings["augmentation"]),
        )
    space(settings)


def _whole(default: Any, values: dict[str, Any]) -> Any:
    group = type(default).__name__.lower()
    missing = {field.name for field in dataclasses.fields(default)} - values.keys()
    if missing:
        raise ValueError(f"no {', '.join(sorted(missing))} in {group}")
    return with_values(default, values, group)


def current(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a search that an earlier version may have begun, as today's version has them."""
    settings = with_added(upgraded(settings))
    if isinstance(settings["stop_early"], bool):  # of a version that had only one rule
        settings["stop_early"] = "median" if settings["stop_early"] else "no"
    return {**settings, "training": {name: settings["training"][name] for name in TRAINED}}


def write_state(path: Path, settings: dict[str, Any], trials: Sequence[Trial]) -> None:
    """Writes the settings and the finished trials as JSON. An incomplete file never appears."""
    state = {"format": FORMAT, "settings": settings, "trials": [dataclasses.asdict(trial) for trial in trials]}
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(state, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_state(path: Path) -> tuple[dict[str, Any], list[Trial]] | None:
    """Reads the settings and the finished trials; None if there is no file. Raises UserError when it is damaged."""
    try:
        text = read_bytes(path)
    except FileNotFoundError:
        return None
    with understood(str(path)):
        state = json.loads(text)
        state["settings"] = current(state["settings"])
        check_kept(state["format"], state["settings"])
        trials = [understood_trial(state["settings"], facts) for facts in state["trials"]]
        for number, trial in enumerate(trials, 1):
            if trial.number != number:
                raise ValueError(f"trial {trial.number} in place of trial {number}")
        return state["settings"], trials


def understood_trial(settings: dict[str, Any], facts: dict[str, Any]) -> Trial:
    """The trial of a search with these settings. Raises an exception of any type for one that no search writes."""
    trial = read_trial(facts)
    if searched_hyperparams(settings, trial.values) != trial.parameters:
        raise ValueError(f"trial {trial.number} has other parameters than the space gives")
    return trial
