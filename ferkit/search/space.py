"""The space of a search in hyperopt's form, and the suggestion of the next point to try.

values = suggest(settings, trials, number=8)
hyperparams = searched_hyperparams(settings, values)
"""

import dataclasses
import functools
import json
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ferkit.search.trials import Trial, is_number
from ferkit.settings import Hyperparams

if TYPE_CHECKING:  # hyperopt is slow to import
    import hyperopt

RANGES = ("learning_rate", "learning_rate_decay", "optimizer_param", "keep_prob")


def space(settings: dict[str, Any]) -> dict[str, Any]:
    """The space in hyperopt's form: the learning rate on a logarithmic scale, each optimizer with its own parameter."""
    from hyperopt import hp

    bounds = settings["space"]
    optimizers = [{"optimizer": name} for name in bounds["optimizer"]]
    for option in optimizers:
        if option["optimizer"] != "adagrad":  # adagrad has no parameter
            option["optimizer_param"] = hp.uniform(f"{option['optimizer']}_param", *bounds["optimizer_param"])
    sought = {"optimizer": hp.choice("optimizer", optimizers) if len(optimizers) > 1 else optimizers[0]}
    for name in RANGES:
        if name == "learning_rate":
            sought[name] = hp.loguniform(name, *(math.log(bound) for bound in bounds[name]))
        elif name in bounds and name != "optimizer_param":
            sought[name] = hp.uniform(name, *bounds[name])
    return sought


def searched_hyperparams(settings: dict[str, Any], values: dict[str, float]) -> dict[str, Any]:
    """The searched hyperparameters that correspond to hyperopt's `values`."""
    of_the_search = json.dumps([settings["space"], list(settings["hyperparams"])])
    return dict(_searched_hyperparams(of_the_search, tuple(values.items())))


@functools.cache  # hyperopt takes 8 ms, and the trials of a search are read often
def _searched_hyperparams(of_the_search: str, values: tuple[tuple[str, float], ...]) -> dict[str, Any]:
    from hyperopt import space_eval

    bounds, fixed = json.loads(of_the_search)
    found = space_eval(space({"space": bounds}), dict(values))
    found.update(found.pop("optimizer"))
    names = [field.name for field in dataclasses.fields(Hyperparams)]
    return {name: found[name] for name in names if name in found and name not in fixed}


def domain(settings: dict[str, Any]) -> "hyperopt.base.Domain":
    """The space as a Domain for hyperopt's algorithms. It never evaluates anything, so nothing is pickled."""
    from hyperopt.base import Domain

    made = Domain(None, space(settings))
    made.cmd = ("optimize_hyperparams",)  # hyperopt's own worker refuses this command
    return made


def propose(settings: dict[str, Any], history: "hyperopt.Trials", number: int, tid: int) -> dict[str, Any]:
    """Suggests trial `number` with TPE (Bergstra et al., NIPS 2011); returns hyperopt's document of the trial.

    The suggestion depends only on the seed, the number and the history, so that a resumed search makes the same
    suggestions. tid: hyperopt's number of the trial.
    """
    from hyperopt import tpe

    seed = int(np.random.SeedSequence((settings["training"]["seed"], number)).generate_state(1)[0])
    random = settings["random_trials"]
    (document,) = tpe.suggest([tid], domain(settings), history, seed, n_startup_jobs=random, verbose=False)
    return document


def suggest(settings: dict[str, Any], trials: Sequence[Trial], number: int) -> dict[str, float]:
    """hyperopt's values for trial `number`, suggested from the earlier trials."""
    known = history(settings, [(trial.number, trial.values, trial.result) for trial in trials])
    return values_of(propose(settings, known, number, tid=number))


def history(
    settings: dict[str, Any],
    tried: Iterable[tuple[int, dict[str, float], dict[str, Any]]],
    name: str | None = None,
) -> "hyperopt.Trials":
    """hyperopt's history of what was tried: hyperopt's number, the values, and the result, {} while it is unknown.

    name: the search's, for the documents that are made from the history.
    """
    import hyperopt

    known, labels = hyperopt.Trials(exp_key=name), list(domain(settings).params)
    for tid, values, result in tried:
        active = {label: [values[label]] if label in values else [] for label in labels}
        idxs = {label: [tid] * len(value) for label, value in active.items()}
        misc = {"tid": tid, "cmd": None, "idxs": idxs, "vals": active}
        (document,) = known.new_trial_docs([tid], [None], [result or {"status": "new"}], [misc])
        done = hyperopt.JOB_STATE_DONE if result else hyperopt.JOB_STATE_NEW
        known.insert_trial_doc({**document, "state": done})
    known.refresh()
    return known


def values_of(document: dict[str, Any]) -> dict[str, float]:
    """The values in one of hyperopt's documents. A list there is empty if the parameter does not apply.

    Raises ValueError for a value that is no number: the document may come from a database.
    """
    values = {label: value[0] for label, value in document["misc"]["vals"].items() if len(value)}
    values = {label: value.item() if isinstance(value, np.generic) else value for label, value in values.items()}
    if not all(map(is_number, values.values())):
        raise ValueError("values that are no numbers")
    return values
