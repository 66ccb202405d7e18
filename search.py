"""A hyperparameter search, wherever its trials run: its settings, its space, its trials, and the next one to try.

settings = settings_of(run, OPTIMIZER)
values = suggest(settings, trials, number=8)
trial = Trial(8, values, parameters(settings, values), ...)
"""

import contextlib
import dataclasses
import json
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from command_line import UserError, in_short, shown, with_values
from files import whole_file
from parameters import AUGMENTATION, HYPERPARAMS, NETWORK, OPTIMIZER, OPTIMIZERS, TRAINING, Hyperparams, Optimizer
from train import Run, check_settings, check_steps
from trial import DIVERGED

if TYPE_CHECKING:  # hyperopt is slow to import
    import hyperopt

FORMAT = 1  # of what a search keeps
STATUSES = ("ok", "stopped", "failed")  # stopped: early, as hopeless; its accuracy counts
RANGES = ("learning_rate", "learning_rate_decay", "optimizer_param", "keep_prob")
FAILURES = 4  # in a row, of one reason, that are taken for the machine's fault
FEWEST_TO_COMPARE = 5  # trials that must have come as far before one is stopped as hopeless
TRAINED = ("epochs", "seed", "bfloat16")  # what of Training decides a search
DAY = 86_400.0  # seconds


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


# --- what decides a search -------------------------------------------------------------------------------------------


def settings_of(run: Run, optimizer: Optimizer) -> dict[str, Any]:
    """All that decides a search's outcome, as JSON has it. Raises UserError for a search that cannot work.

    run: what each trial trains, whose searched hyperparameters are left out.
    """
    check_search(run, optimizer)
    space = {name: getattr(optimizer, name) for name in ("optimizer", *RANGES)}
    space["optimizer"] = optimizer.optimizer or (run.hyperparams.optimizer,)
    if run.hyperparams.schedule == "cosine":
        del space["learning_rate_decay"]  # without effect
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
        "recipes": run.dataset.recipes(run.network.features),
        **run.teacher_facts,
    }
    return json.loads(json.dumps(settings))  # tuples become lists: it compares equal to what is read back


def check_search(run: Run, optimizer: Optimizer) -> None:
    """Raises UserError unless the search's settings, the space from end to end, and the dataset can be used."""
    for name, valid, wanted in (
        ("max_evals", optimizer.max_evals >= 1, "1 or more"),
        ("random_trials", optimizer.random_trials >= 1, "1 or more"),
        ("samples", optimizer.samples >= 0, "0 or more"),
        ("heartbeat", 1 <= optimizer.heartbeat <= DAY, f"from 1 to {DAY:.0f}"),
    ):
        if not valid:
            raise UserError(f"{name} is {getattr(optimizer, name)}: it must be {wanted}")
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
                check_settings(run.network, end, run.training, run.augmentation)
            except UserError as error:
                raise UserError(f"OPTIMIZER.{error}") from error
    for split, purpose in (("Training", "learn from"), ("PublicTest", "choose by")):
        if split not in run.dataset.counts:
            raise UserError(f"{run.dataset.folder} has no {split} split to {purpose}: convert a source that has one")
    run.dataset.check(run.network.features, run.network.output_size)
    check_steps(dataclasses.replace(run, dataset=run.dataset.sampled(optimizer.samples, run.training.seed)))


def _are_bounds(bounds: Any) -> bool:
    two = isinstance(bounds, tuple | list) and len(bounds) == 2
    return two and all(type(bound) in (int, float) for bound in bounds) and bounds[0] < bounds[1]


def difference(was: dict[str, Any], now: dict[str, Any]) -> str | None:
    """In words, the first of the settings that differs between two searches."""
    before, after = dict(_flat(was)), dict(_flat(now))
    names = {**before, **after}
    for name in sorted(names, key=lambda name: name not in before or name not in after):  # the others follow from these
        if before.get(name) != after.get(name):
            if name in ("dataset", "recipes"):
                return "another dataset"
            return f"{name}={shown(before.get(name))}, not {shown(after.get(name))}"
    return None


def _flat(settings: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if name == "space":
            yield from ((f"OPTIMIZER.{part}", bounds) for part, bounds in value.items())
        elif isinstance(value, dict) and name != "recipes":
            yield from value.items()
        else:
            yield name, value


# --- where to look next ----------------------------------------------------------------------------------------------


def space(settings: dict[str, Any]) -> dict[str, Any]:
    """The space as hyperopt has it: a learning rate by its logarithm, each optimizer with its own parameter."""
    from hyperopt import hp

    bounds = settings["space"]
    optimizers = [{"optimizer": name} for name in bounds["optimizer"]]
    for option in optimizers:
        if option["optimizer"] != "adagrad":  # which has none
            option["optimizer_param"] = hp.uniform(f"{option['optimizer']}_param", *bounds["optimizer_param"])
    sought = {"optimizer": hp.choice("optimizer", optimizers) if len(optimizers) > 1 else optimizers[0]}
    for name in RANGES:
        if name == "learning_rate":
            sought[name] = hp.loguniform(name, *(math.log(bound) for bound in bounds[name]))
        elif name in bounds and name != "optimizer_param":
            sought[name] = hp.uniform(name, *bounds[name])
    return sought


def parameters(settings: dict[str, Any], values: dict[str, float]) -> dict[str, Any]:
    """The searched hyperparameters that hyperopt's `values` stand for."""
    from hyperopt import space_eval

    found = space_eval(space(settings), values)
    found.update(found.pop("optimizer"))
    names = [field.name for field in dataclasses.fields(Hyperparams)]
    return {name: found[name] for name in names if name in found and name not in settings["hyperparams"]}


def domain(settings: dict[str, Any]) -> "hyperopt.base.Domain":
    """The space as hyperopt's algorithms take it. Nothing is ever evaluated, hence pickled, through it."""
    from hyperopt.base import Domain

    made = Domain(None, space(settings))
    made.cmd = ("optimize_hyperparams",)  # which hyperopt's own worker refuses
    return made


def propose(settings: dict[str, Any], history: "hyperopt.Trials", number: int, tid: int) -> dict[str, Any]:
    """hyperopt's document of trial `number`, by TPE (Bergstra et al., NIPS 2011).

    It depends on the seed, the number and the history alone, so that a resumed search makes the same suggestions. tid:
    hyperopt's number of the trial.
    """
    from hyperopt import tpe

    seed = int(np.random.SeedSequence((settings["training"]["seed"], number)).generate_state(1)[0])
    random = settings["random_trials"]
    (document,) = tpe.suggest([tid], domain(settings), history, seed, n_startup_jobs=random, verbose=False)
    return document


def suggest(settings: dict[str, Any], trials: Sequence[Trial], number: int) -> dict[str, float]:
    """hyperopt's values of trial `number`, from those before it."""
    import hyperopt

    history, labels = hyperopt.Trials(), list(domain(settings).params)
    for trial in trials:
        active = {label: [trial.values[label]] if label in trial.values else [] for label in labels}
        misc = {
            "tid": trial.number,
            "cmd": None,
            "idxs": {label: [trial.number] * len(value) for label, value in active.items()},
            "vals": active,
        }
        (document,) = history.new_trial_docs([trial.number], [None], [trial.result], [misc])
        history.insert_trial_doc({**document, "state": hyperopt.JOB_STATE_DONE})
    history.refresh()
    return values_of(propose(settings, history, number, tid=number))


def values_of(document: dict[str, Any]) -> dict[str, float]:
    """The values in a document of hyperopt's, whose lists are empty for what does not apply."""
    values = {label: value[0] for label, value in document["misc"]["vals"].items() if len(value)}
    return {label: value.item() if isinstance(value, np.generic) else value for label, value in values.items()}


def is_hopeless(accuracies: Sequence[float], others: Sequence[Trial]) -> bool:
    """The median rule (Golovin et al., KDD 2017): worse than half of the others that came as far were by then.

    accuracies: of the trial in question, after each of its epochs so far.
    """
    epochs = len(accuracies)
    reached = [max(other.accuracies[:epochs]) for other in others if len(other.accuracies) >= epochs]
    return len(reached) >= FEWEST_TO_COMPARE and max(accuracies) < statistics.median(reached)


# --- what a search keeps ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def understood(place: str) -> Iterator[None]:
    """Turns whatever the code inside stumbles over in what a search has kept in `place` into one line."""
    try:
        yield
    except Exception as error:
        raise UserError(
            f"{place} is damaged or of another version of this toolkit ({in_short(error)}), and left as it is: go on "
            "with the version that began it, restore it, or search under another --name"
        ) from error


def check_kept(version: int, settings: dict[str, Any]) -> None:
    """Raises an exception, of whatever kind, for settings that `settings_of` of this version does not make."""
    if version != FORMAT:
        raise ValueError(f"format {version}, not {FORMAT}")
    with_values(OPTIMIZER, {name: settings[name] for name in ("samples", "random_trials", "stop_early")}, "search")
    _ = settings["dataset"], settings["recipes"]
    for end in (0, -1):
        searched = {name: bounds[end] for name, bounds in settings["space"].items()}
        check_settings(
            _whole(NETWORK, settings["network"]),
            _whole(HYPERPARAMS, {**searched, **settings["hyperparams"]}),
            with_values(TRAINING, {name: settings["training"][name] for name in TRAINED}, "training"),
            _whole(AUGMENTATION, settings["augmentation"]),
        )
    space(settings)


def _whole(default: Any, values: dict[str, Any]) -> Any:
    group = type(default).__name__.lower()
    missing = {field.name for field in dataclasses.fields(default)} - values.keys()
    if missing:
        raise ValueError(f"no {', '.join(sorted(missing))} in {group}")
    return with_values(default, values, group)


def write_state(path: Path, settings: dict[str, Any], trials: Sequence[Trial]) -> None:
    """Settings and finished trials as JSON, which appears whole."""
    state = {"format": FORMAT, "settings": settings, "trials": [dataclasses.asdict(trial) for trial in trials]}
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(state, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_state(path: Path) -> tuple[dict[str, Any], list[Trial]] | None:
    """Settings and finished trials; None when there is no file. Raises UserError when it is damaged."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    with understood(str(path)):
        state = json.loads(text)
        check_kept(state["format"], state["settings"])
        trials = [Trial(**trial) for trial in state["trials"]]
        for number, trial in enumerate(trials, 1):
            check_trial(trial)
            if trial.number != number:
                raise ValueError(f"trial {trial.number} in place of trial {number}")
            if parameters(state["settings"], trial.values) != trial.parameters:
                raise ValueError(f"trial {number} has other parameters than the space gives")
        return state["settings"], trials


def check_trial(trial: Trial) -> None:
    """Raises ValueError or TypeError for what no search writes."""
    if trial.status not in STATUSES:
        raise ValueError(f"status {trial.status!r}")
    if not all(0 <= accuracy <= 1 for accuracy in trial.accuracies) or not 0 <= trial.seconds < math.inf:
        raise ValueError(f"numbers of trial {trial.number}")
    if trial.status != "failed" and not trial.accuracies:
        raise ValueError(f"trial {trial.number} without an epoch")
