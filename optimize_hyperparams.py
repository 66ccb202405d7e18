"""Searches the training's hyperparameters with hyperopt's TPE, on this machine or on many over MongoDB.

    python optimize_hyperparams.py --max_evals=20 --model=A --features=none --epochs=3 --samples=5000
    python optimize_hyperparams.py --max_evals=200 --mongo=mongodb://host:27017/faces --name=machines
    python optimize_hyperparams.py --worker --mongo=mongodb://host:27017/faces --name=machines

Every finished trial is on disk, or in the database, at once: the same command goes on after an interruption. The space
is OPTIMIZER in parameters.py.
"""

import argparse
import contextlib
import dataclasses
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import search_report
from command_line import UserError, add_flags, add_yes_no, command, ended_by_signals, override, uninterrupted
from data_loader import open_dataset
from files import lock, whole_file
from parameters import AUGMENTATION, DATASET, HYPERPARAMS, NETWORK, OPTIMIZER, TRAINING
from search import (
    FAILURES,
    RANGES,
    Trial,
    best,
    difference,
    is_hopeless,
    machine_failure,
    parameters,
    read_state,
    settings_of,
    suggest,
    write_state,
)
from train import Run, check_settings
from train import settings_of as training_settings_of
from trial import run_trial

if TYPE_CHECKING:  # only a search across machines needs PyMongo
    from search_mongo import Server

STATE = "state.json"
ORIGIN = "origin.txt"  # says of which search the folder's results are
HERE = "a search on this machine"
SEARCHED = {"optimizer", *RANGES}
OF_A_WORKER = {"name", "mongo", "worker", "report", "folder"}


class _Parser(argparse.ArgumentParser):
    """Shows no password where the address, or the password itself, was given to a mistyped flag, or to another one."""

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> argparse.Namespace:
        arguments, others = self.parse_known_args(args, namespace)
        if others:
            flags = [other.partition("=")[0] for other in others if other.startswith("-")]
            self.error(f"unrecognized arguments: {' '.join(flags) or 'a value without its flag'}")
        return arguments

    def error(self, message: str) -> NoReturn:
        super().error(re.sub(r"""([='"]).*@""", r"\1…@", message, flags=re.DOTALL))


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.worker and arguments.mongo is None:
        parser.error("--worker takes its trials from a database: say --mongo=mongodb://host:port/database too")
    if arguments.worker and arguments.report:
        parser.error("--worker has nothing to report: leave out --report=yes")
    others = [f"--{flag}" for flag, value in vars(arguments).items() if flag not in OF_A_WORKER and value is not None]
    if arguments.worker and others:
        parser.error(f"--worker takes its settings from the search: leave out {' '.join(others)}")
    if not re.fullmatch(r"\w[\w.-]*", arguments.name):
        is_address = "@" in arguments.name or "://" in arguments.name  # which may have a password
        given = "looks like an address" if is_address else f"is '{arguments.name}'"
        raise UserError(f"--name {given}: it must be of letters, digits, '_', '-' and '.'")
    server = None
    if arguments.mongo is not None:
        import search_mongo

        server = search_mongo.connect(arguments.mongo, os.environ)
    with ended_by_signals():  # which gives back what this process holds
        if arguments.worker:
            search_mongo.work(server, arguments.name, override(DATASET, arguments).folder)
            return 0
        return report(arguments, server) if arguments.report else lead(arguments, server)


def lead(arguments: argparse.Namespace, server: "Server | None") -> int:
    """Searches, on this machine or at `server`, and shows the result; returns the exit status."""
    optimizer, dataset = override(OPTIMIZER, arguments), override(DATASET, arguments).folder
    network, hyperparams, training, augmentation = training_settings_of(arguments)
    check_settings(network, hyperparams, training, augmentation)
    settings = settings_of(Run(open_dataset(dataset), network, hyperparams, training, augmentation), optimizer)
    folder, origin = place_of(arguments, server)
    with own(folder, origin) as owned:
        if not owned:
            raise UserError(f"another search is at work in {folder}: wait for it, or search under another --name")
        if server is None:
            trials = search(settings, optimizer.max_evals, dataset, folder)
        else:
            import search_mongo

            asked = arguments.heartbeat is not None
            trials = search_mongo.lead(server, arguments.name, settings, optimizer, asked)
        status = show(trials)
        write(settings, trials, dataset, folder, origin)
    return status


def report(arguments: argparse.Namespace, server: "Server | None") -> int:
    """Shows what a search has found so far, and brings its files up to date; returns the exit status."""
    folder, origin = place_of(arguments, server)
    if server is None and not folder.exists() and not folder.parent.is_file():
        kept(folder)  # which says that there is none, before a folder is made for it
    with own(folder, origin) as owned:
        if server is None:
            settings, trials = kept(folder)
        else:
            import search_mongo

            settings, trials = search_mongo.kept(server, arguments.name)
        status = show(trials)
        if owned:
            write(settings, trials, override(DATASET, arguments).folder, folder, origin)
        else:
            print(f"A search is at work in {folder}: its files are left to it")
    return status


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(description="Search the training's hyperparameters, on this machine or on many over MongoDB.")
    parser.add_argument("--name", default="default", metavar="NAME", help="the search's name (default: default)")
    add_flags(parser, OPTIMIZER, "max_evals", "random_trials", "samples", "stop_early", "search_folder")
    add_yes_no(parser, "--report", default=False, help="show what a search has found so far, and search nothing")
    group = parser.add_argument_group("across machines")
    address = "mongodb://host:port/database; user and password there or in MONGO_USER and MONGO_PASSWORD"
    group.add_argument("--mongo", metavar="ADDRESS", help=address)
    add_yes_no(group, "--worker", default=False, help="train what the search at --mongo wants trained, until it ends")
    add_flags(group, OPTIMIZER, "heartbeat")
    group = parser.add_argument_group("what each trial trains")
    for settings in (NETWORK, HYPERPARAMS, AUGMENTATION):
        add_flags(group, settings, *(f.name for f in dataclasses.fields(settings) if f.name not in SEARCHED))
    add_flags(group, TRAINING, "settings", "epochs", "seed", "bfloat16")
    add_flags(group, DATASET, "folder")
    return parser


# --- on one machine --------------------------------------------------------------------------------------------------


def search(settings: dict[str, Any], max_evals: int, dataset: str, folder: Path) -> list[Trial]:
    """Trains trial after trial until there are `max_evals`; goes on with those that `folder` has.

    dataset: its folder. Raises UserError when the folder's search is another one, or damaged, and when trial after
    trial fails for one reason, lest a full disk, say, use up the search in a minute.
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
            trial = try_next(settings, trials, max_evals, dataset)
            with uninterrupted():  # a trial that was reported is kept
                trials.append(trial)
                write_state(state, settings, trials)
            search_report.write_results(settings, trials, folder)
            reason = machine_failure(trials[before:])
            if reason is not None and len(trials) < max_evals:
                raise UserError(
                    f"{FAILURES} trials in a row failed ({reason}): mend that, and the same command goes on, or search "
                    "under another --name"
                )
    except KeyboardInterrupt:
        counted = search_report.counted(len(trials))
        print(f"\nStopped: {folder} keeps {counted}, the same command goes on", file=sys.stderr)
        raise
    return trials


def try_next(settings: dict[str, Any], trials: Sequence[Trial], max_evals: int, dataset: str) -> Trial:
    number = len(trials) + 1
    values = suggest(settings, trials, number)
    chosen = parameters(settings, values)
    print(f"Trial {number}/{max_evals}: {search_report.described(chosen)}", flush=True)
    job = {"settings": settings, "parameters": chosen, "folder": dataset}
    outcome = run_trial(job, lambda accuracies: settings["stop_early"] and is_hopeless(accuracies, trials))
    trial = Trial(number, values, chosen, **dataclasses.asdict(outcome))
    leader = best([*trials, trial])
    print(f"Trial {number}/{max_evals}: {search_report.ending(trial, leader)}", flush=True)
    return trial


def kept(folder: Path) -> tuple[dict[str, Any], list[Trial]]:
    """Settings and trials of the search in `folder`. Raises UserError when there is none."""
    found = read_state(folder / STATE)
    if found is None:
        raise UserError(f"no search in {folder}: start one, or give its --name")
    return found


# --- the folder and its files ----------------------------------------------------------------------------------------


def place_of(arguments: argparse.Namespace, server: "Server | None") -> tuple[Path, str]:
    """The search's folder, and in words where its trials are."""
    origin = HERE if server is None else f"search {arguments.name} in {server.place}"
    return Path(override(OPTIMIZER, arguments).search_folder) / arguments.name, origin


@contextlib.contextmanager
def own(folder: Path, origin: str) -> Iterator[bool]:
    """Whether this process alone may write `folder`. Raises UserError when its files are another search's."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise UserError(f"{folder.parent} is a file, not a folder: use another --search_folder") from error
    with lock(folder) as locked:
        known = origin_of(folder)
        if known not in (None, origin):
            raise UserError(f"{folder} is of {known}, not of {origin}: use another --search_folder")
        yield locked


def origin_of(folder: Path) -> str | None:
    """Where the trials are of which `folder` has files; None without files."""
    try:
        return (folder / ORIGIN).read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return HERE if (folder / STATE).exists() else None


def show(trials: list[Trial]) -> int:
    """Prints the result; the exit status is 1 when no trial succeeded."""
    print(search_report.report(trials))
    print(search_report.verdict(trials))
    return 1 if best(trials) is None else 0


def write(settings: dict[str, Any], trials: list[Trial], dataset: str, folder: Path, origin: str) -> None:
    """Writes the result's files, and prints what they are good for. dataset: its folder."""
    with whole_file(folder / ORIGIN) as temporary:
        temporary.write_text(f"{origin}\n", encoding="utf-8")
    search_report.write_results(settings, trials, folder)
    pictures = search_report.draw(settings, trials, folder)
    if pictures:
        print(f"Train with it: {search_report.training_command(settings, dataset, folder)}")
    print(f"Trials: {', '.join(str(path) for path in (folder / 'trials.csv', *pictures))}")


if __name__ == "__main__":
    sys.exit(main())
