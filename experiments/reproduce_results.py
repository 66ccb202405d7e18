"""Reproduces the published experiments, one row after another, and writes the report.

    python -m experiments.reproduce_results                       # all rows that are missing, the most important first
    python -m experiments.reproduce_results --list
    python -m experiments.reproduce_results --only='SVM_*,A_none_*'
    python -m experiments.reproduce_results --report              # the tables of docs/experiment.md and the pictures

Each row is trained and evaluated in a process of its own. Its command is printed first. A finished row is immediately
written to `results/results.csv`. After an interruption at any time, the same command continues.
"""

if __name__ == "__main__":  # Ctrl-C ends the imports below without a traceback
    from ferkit.startup import begin

    begin()

import argparse
import sys
from collections.abc import Sequence

import parameters
from ferkit.flags import Parser, add_flags, add_yes_no, local_path
from ferkit.processes import command


@command
def main(argv: Sequence[str] | None = None) -> int:
    flags = parser()
    arguments = flags.parse_args(argv)
    if arguments.list and arguments.report:
        flags.error("--list and --report are two things: one at a time")
    if arguments.report and arguments.only is not None:
        flags.error("--report is of all rows: leave out --only")
    if arguments.keep_models and (arguments.list or arguments.report):
        flags.error("--keep_models is for training: leave it out")
    from experiments import runner  # here, so that a missing package gives a one-line error

    experiment = runner.experiment_of(arguments)
    patterns = runner.patterns_of(arguments.only, experiment)
    if arguments.list:
        print(runner.listing(experiment, patterns))
        return 0
    if arguments.report:
        runner.write_report(experiment)
        return 0
    if arguments.quick:
        runner.prepare_quick(experiment, draw=arguments.input is None)
    failed = runner.run(experiment, patterns)
    for row in failed:
        print(f"failed: {row.name}", file=sys.stderr)
    return 1 if failed else 0


def parser() -> argparse.ArgumentParser:
    """The command line of this script."""
    parser = Parser(
        prog="python -m experiments.reproduce_results",
        description="Reproduce the published experiments on FER2013 and write them up.",
    )
    add_yes_no(parser, "--list", default=False, help="list the rows, and which are finished")
    add_yes_no(
        parser,
        "--report",
        default=False,
        help="make the tables of docs/experiment.md and the pictures from the results",
    )
    parser.add_argument(
        "--only",
        metavar="NAMES",
        help="train or list only these rows: names separated by commas; * stands for any letters (default: all)",
    )
    add_yes_no(parser, "--quick", default=False, help="two small rows on drawn faces, to see that everything works")
    add_yes_no(parser, "--keep_models", default=False, help="keep each row's saved model in the work folder")
    add_flags(parser, parameters.DATASET, "input")
    parser.add_argument(
        "--ferplus",
        type=local_path,
        metavar="PATH",
        help="the votes of FER+, for the last rows (default: fer2013new.csv)",
    )
    parser.add_argument(
        "--work",
        type=local_path,
        metavar="PATH",
        help="folder for the converted dataset and the row in training (default: results_work)",
    )
    parser.add_argument(
        "--results", type=local_path, metavar="PATH", help="folder of results.csv and the pictures (default: results)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
