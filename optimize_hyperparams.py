"""Searches the training's hyperparameters with hyperopt's TPE, on this machine or on many over MongoDB.

    python optimize_hyperparams.py --max_evals=20 --model=A --features=none --epochs=3 --samples=5000
    python optimize_hyperparams.py --max_evals=200 --mongo=mongodb://host:27017/faces --name=machines
    python optimize_hyperparams.py --worker --mongo=mongodb://host:27017/faces --name=machines

Every finished trial is written to disk or to the database immediately, so the same command continues an interrupted
search. The search space is OPTIMIZER in parameters.py.
"""

if __name__ == "__main__":  # Ctrl-C ends the imports below without a traceback
    from ferkit.startup import begin

    begin()

import argparse
import dataclasses
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import parameters
from ferkit.errors import UserError
from ferkit.flags import Parser, add_flags, add_yes_no, override
from ferkit.processes import command, ended_by_signals

if TYPE_CHECKING:
    from ferkit.learning.configuration import TrainingSettings
    from ferkit.search.mongo import Server
    from ferkit.search.trials import Trial

OF_A_WORKER = {"name", "mongo", "worker", "report", "folder"}
TRIAL = "--trial"  # with this flag, the script is the process of one trial
TRIAL_COMMAND = (sys.executable, str(Path(__file__).resolve()), TRIAL)


@command
def main(argv: Sequence[str] | None = None) -> int:
    if argv is None and sys.argv[1:] == [TRIAL]:
        return train_trial()
    flags = parser()
    arguments = flags.parse_args(argv)
    if arguments.worker and arguments.mongo is None:
        flags.error("--worker takes its trials from a database: say --mongo=mongodb://host:port/database too")
    if arguments.worker and arguments.report:
        flags.error("--worker has nothing to report: leave out --report=yes")
    others = [f"--{flag}" for flag, value in vars(arguments).items() if flag not in OF_A_WORKER and value is not None]
    if arguments.worker and others:
        flags.error(f"--worker takes its settings from the search: leave out {' '.join(others)}")
    if not re.fullmatch(r"\w[\w.-]*", arguments.name):
        is_address = "@" in arguments.name or "://" in arguments.name  # it may have a password
        given = "looks like an address" if is_address else f"is '{arguments.name}'"
        raise UserError(f"--name {given}: it must be of letters, digits, '_', '-' and '.'")
    server = None
    if arguments.mongo is not None:
        from ferkit.search import mongo  # only a search across machines needs PyMongo

        server = mongo.connect(arguments.mongo, os.environ)
    with ended_by_signals():  # so that this process releases jobs and locks
        if arguments.worker and server is not None:
            work(arguments, server)
            return 0
        return show_search(arguments, server) if arguments.report else lead(arguments, server)


def work(arguments: argparse.Namespace, server: "Server") -> None:
    """Trains trials of the search at `server` until the search is finished."""
    from ferkit.search import mongo
    from model import ARCHITECTURES

    dataset = override(parameters.DATASET, arguments).folder
    mongo.work(server, arguments.name, dataset, ARCHITECTURES, TRIAL_COMMAND)


def lead(arguments: argparse.Namespace, server: "Server | None") -> int:
    """Runs the search on this machine or at `server`, and shows the result; returns the exit status."""
    from data_loader import open_dataset  # here, so that a missing package gives a one-line error
    from ferkit.learning.architecture import find_architecture
    from ferkit.learning.configuration import training_settings
    from ferkit.learning.run import Run, check_engine
    from ferkit.search.folder import own, write_search
    from ferkit.search.local import search
    from ferkit.search.state import search_settings
    from model import ARCHITECTURES

    optimizer = override(parameters.OPTIMIZER, arguments)
    dataset = override(parameters.DATASET, arguments).folder
    trained = training_settings(arguments, parameters, ARCHITECTURES)
    trained.check()
    architecture = find_architecture(ARCHITECTURES, trained.network.model)
    faces = open_dataset(dataset).labelled(trained.training.labels)
    if server is None:  # elsewhere, the workers train
        check_engine(trained.training)
    settings = search_settings(Run(faces, architecture, *trained), optimizer)
    folder, origin = place_of(arguments, server)
    with own(folder, origin) as owned:
        if not owned:
            raise UserError(f"another search is at work in {folder}: wait for it, or search under another --name")
        if server is None:
            trials = search(settings, optimizer.max_evals, dataset, folder, TRIAL_COMMAND)
        else:
            from ferkit.search import mongo

            asked = arguments.heartbeat is not None
            trials = mongo.lead(server, arguments.name, settings, optimizer, asked)
        status = show(trials)
        write_search(settings, trials, usual_settings(settings), dataset, folder, origin)
    return status


def show_search(arguments: argparse.Namespace, server: "Server | None") -> int:
    """Shows the results of a search so far, and updates its files; returns the exit status."""
    from ferkit.search.folder import own, write_search
    from ferkit.search.local import kept

    folder, origin = place_of(arguments, server)
    if server is None and not folder.exists() and not folder.parent.is_file():
        kept(folder)  # raises the error for a missing search before a folder is made
    with own(folder, origin) as owned:
        if server is None:
            settings, trials = kept(folder)
        else:
            from ferkit.search import mongo

            settings, trials = mongo.kept(server, arguments.name)
        status = show(trials)
        if owned:
            dataset = override(parameters.DATASET, arguments).folder
            write_search(settings, trials, usual_settings(settings), dataset, folder, origin)
        else:
            print(f"A search is at work in {folder}: its files are left to it")
    return status


def parser() -> argparse.ArgumentParser:
    """The command line of this script."""
    from ferkit.search.space import RANGES
    from model import ARCHITECTURES

    searched = {"optimizer", *RANGES}
    parser = Parser(description="Search the training's hyperparameters, on this machine or on many over MongoDB.")
    parser.add_argument("--name", default="default", metavar="NAME", help="the search's name (default: default)")
    add_flags(parser, parameters.OPTIMIZER, "max_evals", "random_trials", "samples", "stop_early", "search_folder")
    add_yes_no(parser, "--report", default=False, help="show what a search has found so far, and search nothing")
    group = parser.add_argument_group("across machines")
    address = "the database: mongodb://host:port/database; user and password in it, or in MONGO_USER and MONGO_PASSWORD"
    group.add_argument("--mongo", metavar="ADDRESS", help=address)
    add_yes_no(group, "--worker", default=False, help="train the trials of the search at --mongo until it ends")
    add_flags(group, parameters.OPTIMIZER, "heartbeat")
    group = parser.add_argument_group("what each trial trains")
    for settings in (parameters.NETWORK, parameters.HYPERPARAMS, parameters.AUGMENTATION):
        names = [field.name for field in dataclasses.fields(settings) if field.name not in searched]
        add_flags(group, settings, *names, choices={"model": ARCHITECTURES})
    add_flags(group, parameters.TRAINING, "settings", "labels", "epochs", "seed", "engine", "bfloat16")
    add_flags(group, parameters.DATASET, "folder")
    return parser


def train_trial() -> int:
    """Runs as the process of one trial, which a search has started; returns the exit status."""
    from ferkit.search import trial
    from model import ARCHITECTURES

    return trial.train_trial(ARCHITECTURES)


def place_of(arguments: argparse.Namespace, server: "Server | None") -> tuple[Path, str]:
    """The folder of the search, and a text that says where its trials are."""
    from ferkit.search.folder import HERE

    origin = HERE if server is None else f"search {arguments.name} in {server.place}"
    return Path(override(parameters.OPTIMIZER, arguments).search_folder) / arguments.name, origin


def usual_settings(settings: dict[str, Any]) -> "TrainingSettings":
    """The settings that train.py would use for the model of the search without other flags."""
    from ferkit.learning.configuration import training_settings
    from model import ARCHITECTURES

    return training_settings(argparse.Namespace(model=settings["network"]["model"]), parameters, ARCHITECTURES)


def show(trials: "list[Trial]") -> int:
    """Prints the result; returns the exit status, which is 1 when no trial succeeded."""
    from ferkit.search.report import trials_table, verdict, workers_table
    from ferkit.search.trials import best

    print(trials_table(trials))
    print(verdict(trials))
    if workers := workers_table(trials):
        print(workers)
    return 1 if best(trials) is None else 0


if __name__ == "__main__":
    sys.exit(main())
