"""Trains a network on the converted dataset, and evaluates the saved model.

    python train.py --train=yes
    python train.py --train=yes --evaluate=yes --model=A --features=landmarks
    python train.py --evaluate=yes
    python train.py --train=yes --start_from=ferplus --folder=my_features

After each epoch the network is validated on PublicTest and a checkpoint is written; the best epoch becomes the saved
model. `--resume=yes` continues an interrupted training.
"""

if __name__ == "__main__":  # Ctrl-C ends the imports below without a traceback
    from ferkit.startup import begin

    begin()

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import parameters
from ferkit.errors import UserError
from ferkit.flags import check_asked, override
from ferkit.processes import command


@command
def main(argv: Sequence[str] | None = None) -> int:
    flags = parser()
    arguments = flags.parse_args(argv)
    from data_loader import open_dataset  # here, so that a missing package gives a one-line error
    from ferkit import ensemble
    from ferkit.learning import evaluation, training
    from ferkit.learning.architecture import find_architecture
    from ferkit.learning.configuration import training_settings
    from ferkit.learning.run import Run
    from ferkit.learning.starting import Start
    from model import ARCHITECTURES

    if not arguments.train and not arguments.evaluate:
        flags.error("nothing to do: say --train=yes, --evaluate=yes or both")
    if arguments.resume and not arguments.train:
        flags.error("--resume=yes goes on with a training: say --train=yes too")
    if arguments.start_from and not arguments.train:
        flags.error("--start_from says where a training begins: say --train=yes too")
    start = Start(arguments.start_from) if arguments.start_from else None
    settings = training_settings(arguments, parameters, ARCHITECTURES, start)
    settings.check()
    if arguments.train and arguments.evaluate and not settings.training.save_model:
        raise UserError("evaluation needs the saved model: set TRAINING.save_model to True, or use --save_model=yes")
    if arguments.train:
        training.check_places(settings.training)
        training.check_teacher(settings.hyperparams, settings.training)
    if start is not None:
        training.check_start(start, settings.training)
    dataset = open_dataset(override(parameters.DATASET, arguments).folder).labelled(settings.training.labels)
    if arguments.evaluate:
        evaluation.check_splits(dataset)
    if arguments.train:
        architecture = find_architecture(ARCHITECTURES, settings.network.model)
        if start is not None and arguments.output_size is None:
            settings = settings.for_expressions(len(dataset.expressions))
        training.train(Run(dataset, architecture, *settings, start), resume=arguments.resume)
    if arguments.evaluate:
        path = Path(settings.training.save_model_path)
        model = ensemble.load(path)
        check_asked(path, model.facts.get("network", {}), arguments, "model", "features")
        folder = path.parent if path.is_file() else Path()  # not beside an included model, in the installed package
        evaluation.evaluate_and_write(model, dataset, folder, arguments.test_time_augmentation)
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line of this script."""
    from ferkit.learning.configuration import training_parser
    from model import ARCHITECTURES

    return training_parser(parameters, ARCHITECTURES)


if __name__ == "__main__":
    sys.exit(main())
