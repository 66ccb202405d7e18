"""The space of a search in hyperopt's form, and the suggestion of the next point to try.

values = suggest(settings, trials, number=8)
hyperparams = searched_hyperparams(settings, values)
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ferkit.search.trials import Trial
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
    from hyperopt import space_eval

    found = space_eval(space(settings), values)
    found.update(found.pop("optimizer"))
    names = [field.name for field in dataclasses.fields(Hyperparams)]
    return {name: found[name] for name in names if name in found and name not in settings["hyperparams"]}


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
    """The values in one of hyperopt's documents. A list there is empty if the parameter does not apply."""
    values = {label: value[0] for label, value in document["misc"]["vals"].items() if len(value)}
    return {label: value.item() if isinstance(value, np.generic) else value for label, value in values.items()}
