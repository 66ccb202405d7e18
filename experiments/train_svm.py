"""Trains, saves and evaluates a support vector machine on landmarks and HOG, for comparison with the networks.

python -m experiments.train_svm --features=landmarks_hog_windows
python -m experiments.train_svm --train=no
"""

if __name__ == "__main__":  # Ctrl-C ends the imports below without a traceback
    from ferkit.startup import begin

    begin()

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import parameters
from ferkit.flags import Parser, add_flags, add_yes_no, check_asked, override
from ferkit.processes import command
from ferkit.settings import check


@command
def main(argv: Sequence[str] | None = None) -> int:
    flags = parser()
    arguments = flags.parse_args(argv)
    from experiments import support_vector_machine  # here, so that a missing package gives a one-line error
    from ferkit.data.dataset import open_dataset
    from ferkit.learning import evaluation

    if not arguments.train and not arguments.evaluate:
        flags.error("nothing to do: say --train=yes, --evaluate=yes or both")
    settings = override(parameters.SVM, arguments)
    check(settings)
    path = Path(settings.save_model_path)
    labels = override(parameters.TRAINING, arguments).labels
    dataset = open_dataset(override(parameters.DATASET, arguments).folder).labelled(labels)
    if arguments.train:
        support_vector_machine.check_place(path)
        support_vector_machine.train(dataset, settings).save(path)
        print(f"Saved: {path} ({path.stat().st_size / 1e6:.0f} MB)")
    if arguments.evaluate:
        machine = support_vector_machine.load(path)
        check_asked(path, machine.facts, arguments, "features")
        evaluation.evaluate_and_write(machine, dataset, path.parent)
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line of this script."""
    parser = Parser(
        prog="python -m experiments.train_svm",
        description="Train a support vector machine on landmarks and HOG; evaluate it.",
    )
    add_yes_no(parser, "--train", default=True, help="train")
    add_yes_no(parser, "--evaluate", default=True, help="evaluate the saved machine")
    add_flags(parser, parameters.SVM, "features", "components", "trial_faces", "seed", "save_model_path")
    add_flags(parser, parameters.DATASET, "folder")
    add_flags(parser, parameters.TRAINING, "labels")
    return parser


if __name__ == "__main__":
    sys.exit(main())
