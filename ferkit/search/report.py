"""The output of a hyperparameter search: a line for each trial, a table of all trials, and files.

print(trials_table(trials))
write_results(settings, trials, folder)
draw(settings, trials, folder)
"""

import dataclasses
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ferkit.files import whole_file
from ferkit.flags import shown
from ferkit.learning.configuration import TrainingSettings
from ferkit.learning.plots import pyplot
from ferkit.search.space import RANGES
from ferkit.search.trials import Trial, best
from ferkit.settings import DatasetPaths, Hyperparams

BEST = "best_hyperparams.json"
SHOWN = 20  # trials in the table


def counted(number: int) -> str:
    return f"{number} trial" if number == 1 else f"{number} trials"


def line(trial: Trial, total: int, leader: Trial | None) -> str:
    """One line with the result of a trial. leader: the best trial so far."""
    return f"Trial {trial.number}/{total}: {described(trial.parameters)}: {ending(trial, leader)}"


def described(parameters: dict[str, Any]) -> str:
    return " ".join(f"{name}={_number(value)}" for name, value in parameters.items())


def ending(trial: Trial, leader: Trial | None) -> str:
    if trial.accuracy is None:
        return f"failed: {trial.reason} ({trial.seconds:.0f} s)"
    stopped = f" when stopped in epoch {len(trial.accuracies)}" if trial.status == "stopped" else ""
    known = "" if leader is None else f" (best {leader.accuracy:.1%})"
    return f"validation accuracy {trial.accuracy:.1%}{stopped}{known}, {trial.seconds:.0f} s"


def trials_table(trials: Sequence[Trial]) -> str:
    """The table of the trials, the best first, and the number of trials with each outcome."""
    ranked = sorted(trials, key=lambda trial: -1 if trial.accuracy is None else trial.accuracy, reverse=True)
    rows = [{**_row(trial), **{k: _number(v) for k, v in trial.parameters.items()}} for trial in ranked[:SHOWN]]
    lines = []
    if rows:
        table = pd.DataFrame(rows).drop(columns=["reason", "worker", "epochs"]).astype(object)
        lines.append(table.where(table.notna(), "").to_string(index=False, float_format="{:.4g}".format))
    if len(trials) > SHOWN:
        lines.append(f"… and {len(trials) - SHOWN} more")
    counts = {status: sum(trial.status == status for trial in trials) for status in ("failed", "stopped")}
    parts = [f"{count} {status}" for status, count in counts.items() if count]
    lines.append(counted(len(trials)) + (f", {', '.join(parts)}" if parts else ""))
    return "\n".join(lines)


def workers_table(trials: Sequence[Trial]) -> str:
    """A table of who trained which trials, and for how long; empty for a search on one machine."""
    rows = []
    for worker in sorted({trial.worker for trial in trials} - {""}):
        own = [trial for trial in trials if trial.worker == worker]
        leader, failed = best(own), sum(trial.status == "failed" for trial in own)
        rows.append(
            {
                "worker": worker,
                "trials": len(own),
                "failed": failed,
                "minutes": f"{sum(trial.seconds for trial in own) / 60:.1f}",
                "best": "" if leader is None else f"{leader.accuracy:.1%}",
                "which": _ranges([trial.number for trial in own]),
            }
        )
    return pd.DataFrame(rows).to_string(index=False) if rows else ""


def _ranges(numbers: Sequence[int]) -> str:
    """Whole numbers in short: `1-3, 7`."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ", ".join("-".join(map(str, part)) for part in parts)


def verdict(trials: Sequence[Trial]) -> str:
    """The best trial."""
    winner = best(trials)
    if winner is None:
        return "No trial succeeded"
    accuracy = f"validation accuracy {winner.accuracy:.1%} after epoch {winner.epoch}"
    return f"Best: trial {winner.number}, {accuracy}: {described(winner.parameters)}"


def training_command(settings: dict[str, Any], usual: TrainingSettings, dataset: str, folder: Path) -> str:
    """The command that trains with the best hyperparameters. The user chooses the number of epochs.

    usual: settings with which train.py trains this model if no other flag is given. dataset: folder of the dataset.
    """
    flags = [*_flags(settings, usual, dataset), f"--hyperparams={folder / BEST}"]
    return f"python train.py --train=yes {shlex.join(flags)}"


def _flags(settings: dict[str, Any], usual: TrainingSettings, dataset: str) -> list[str]:
    """The flags with which train.py uses the network, the augmentation and the labels of the search."""
    wanted = {**settings["network"], **settings["augmentation"], "labels": settings["training"]["labels"]}
    given = [f"--model={settings['network']['model']}"]
    for name, value in {name: value for part in usual for name, value in dataclasses.asdict(part).items()}.items():
        if name in wanted and name != "model" and wanted[name] != value:
            given.append(f"--{name}={shown(wanted[name])}")
    return given if dataset == DatasetPaths().folder else [*given, f"--folder={dataset}"]


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _row(trial: Trial) -> dict[str, Any]:
    known = trial.accuracy is not None
    return {
        "trial": trial.number,
        "status": trial.status,
        "accuracy": trial.accuracy,
        "epoch": trial.epoch if known else None,
        "epochs": len(trial.accuracies),
        **trial.parameters,
        "seconds": round(trial.seconds, 1),
        "worker": trial.worker,
        "reason": trial.reason,
    }


def write_results(settings: dict[str, Any], trials: Sequence[Trial], folder: Path) -> None:
    """Writes `trials.csv` and, if a trial has succeeded, `best_hyperparams.json` for train.py."""
    with whole_file(folder / "trials.csv") as temporary:
        pd.DataFrame([_row(trial) for trial in trials]).to_csv(temporary, index=False)
    winner = best(trials)
    if winner is not None:
        hyperparams = Hyperparams(**settings["hyperparams"], **winner.parameters)
        with whole_file(folder / BEST) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(hyperparams), indent=2) + "\n", encoding="utf-8")


def draw(settings: dict[str, Any], trials: Sequence[Trial], folder: Path) -> list[Path]:
    """Draws two pictures: the best accuracy so far over the trials, and the accuracy over each parameter."""
    succeeded = [trial for trial in trials if trial.accuracy is not None]
    if not succeeded:
        return []
    return [draw_progress(trials, folder / "progress.png"), draw_parameters(settings, succeeded, folder / "space.png")]


def draw_progress(trials: Sequence[Trial], path: Path) -> Path:
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for status, marker, colour in (("ok", "o", "C0"), ("stopped", "v", "C1")):
        some = [trial for trial in trials if trial.status == status]
        if some:
            axes.scatter([t.number for t in some], [t.accuracy for t in some], marker=marker, c=colour, label=status)
    leaders = [(trial.number, best(trials[:count])) for count, trial in enumerate(trials, 1)]
    reached = [(number, leader.accuracy) for number, leader in leaders if leader is not None]
    axes.step(*zip(*reached, strict=True), where="post", color="C2", label="best so far")
    failed = [trial.number for trial in trials if trial.accuracy is None]
    if failed:  # they have no accuracy and are drawn at the bottom
        floor = axes.get_xaxis_transform()
        axes.scatter(failed, [0.02] * len(failed), marker="x", c="C3", label="failed", transform=floor)
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("trial")
    axes.set_ylabel("validation accuracy")
    axes.grid(alpha=0.3)
    axes.legend()
    return _saved(plt, figure, path)


def draw_parameters(settings: dict[str, Any], succeeded: Sequence[Trial], path: Path) -> Path:
    plt = pyplot()
    names = [name for name in ("optimizer", *RANGES) if len({trial.parameters.get(name) for trial in succeeded}) > 1]
    names = names or ["learning_rate"]  # a single trial
    figure, row = plt.subplots(
        1, len(names), figsize=(1 + 2.6 * len(names), 3.4), sharey=True, squeeze=False, layout="constrained"
    )
    optimizers = settings["space"]["optimizer"]
    for name, axes in zip(names, row[0], strict=True):
        for number, optimizer in enumerate(optimizers):
            own = [t for t in succeeded if t.parameters.get("optimizer", optimizer) == optimizer]
            for status, marker, label in (("ok", "o", optimizer), ("stopped", "1", f"{optimizer}, stopped")):
                some = [trial for trial in own if trial.status == status and name in trial.parameters]
                if some:
                    values, accuracies = [t.parameters[name] for t in some], [t.accuracy for t in some]
                    axes.scatter(values, accuracies, c=f"C{number}", marker=marker, alpha=0.7, label=label)
        axes.set_xlabel(name)
        axes.grid(alpha=0.3)
        if name == "learning_rate":
            axes.set_xscale("log")
        if name == "optimizer":
            axes.tick_params(axis="x", rotation=45)
    row[0][0].set_ylabel("validation accuracy")
    row[0][0].yaxis.set_major_formatter("{x:.0%}")
    if len(row[0][-1].collections) > 1:
        figure.legend(*row[0][-1].get_legend_handles_labels(), loc="outside right center")
    return _saved(plt, figure, path)


def _saved(plt: Any, figure: Any, path: Path) -> Path:
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)
    return path
