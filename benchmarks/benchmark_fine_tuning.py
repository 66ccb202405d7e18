"""How good a network of a few own faces is: fine-tuned from an included model, or trained from scratch.

    python benchmarks/benchmark_fine_tuning.py --folder=fer2013_features
    python benchmarks/benchmark_fine_tuning.py --faces=jaffe_by_person

The first command draws 40 faces of each of five expressions from FER2013's Training, gives the expressions names that
no model knows, and tests on all faces of PrivateTest with these expressions. The included model has seen the drawn
faces before, with the votes of FER+, but none of PrivateTest. The second command takes the faces of a folder with the
splits train and test, such as prepare_faces.py leaves; the faces of one person should be in one split.

Both go the way of a user: pictures, conversion, training, the saved model. Prints a table in Markdown: accuracy on the
test faces, and seconds of the processor from the start of the training to the saved model.
"""

import argparse
import contextlib
import io
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import parameters
from ferkit import saved_model
from ferkit.constants import SPLITS
from ferkit.data.conversion import convert
from ferkit.data.dataset import Dataset, open_dataset
from ferkit.data.folders import OWN
from ferkit.flags import add_flags, override
from ferkit.learning.configuration import training_parser, training_settings
from ferkit.learning.run import Run
from ferkit.learning.starting import Start
from ferkit.learning.training import train
from ferkit.markdown import table
from ferkit.processes import command
from model import ARCHITECTURES
from parameters import DATASET

DRAWN = ("Angry", "Happy", "Sad", "Surprise", "Neutral")
SCRATCH = [
    "--model=C",
    "--warmup_steps=10",
    "--ema_decay=0",
    "--batch_size=32",
]  # 448 steps of warm-up would be most of the training
WAYS = {  # flags of train.py
    "from scratch": [*SCRATCH, "--epochs=100"],
    "from ferplus, last layer alone": ["--start_from=ferplus", "--body_rate=0"],
    "from ferplus, others at 0.3 of the rate": ["--start_from=ferplus", "--body_rate=0.3"],
    "from ferplus, all at the same rate": ["--start_from=ferplus", "--body_rate=1"],
}
UNTRAINED = "ferplus itself"  # where it has the classes


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compare fine-tuning with training from scratch.")
    add_flags(parser, DATASET, "folder")
    parser.add_argument("--faces", type=Path, metavar="FOLDER", help="own faces, as train/<class>/* and test/<class>/*")
    parser.add_argument("--each", type=int, default=40, metavar="N", help="faces of each expression (default: 40)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="draws and trainings (default: 3)")
    parser.add_argument(
        "--only", nargs="+", choices=WAYS, default=list(WAYS), help="the ways to compare (default: all)"
    )
    arguments = parser.parse_args(argv)
    rows: dict[str, list[tuple[float, float]]] = {way: [] for way in arguments.only}
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory() as place:
            faces = arguments.faces
            if faces is None:
                faces = Path(place, "faces")
                draw(open_dataset(override(DATASET, arguments).folder), faces, arguments.each, seed)
            with quiet_output():
                convert(
                    str(faces), f"{place}/features", None, [], labels_map=OWN, validation_share=0.1, split_seed=seed
                )
            dataset = open_dataset(f"{place}/features")
            if {*dataset.expressions} <= {*saved_model.load("ferplus").expressions}:
                rows.setdefault(UNTRAINED, []).append((accuracy_of("ferplus", dataset), 0.0))
            for way, found in rows.items():
                if way == UNTRAINED:
                    continue
                found.append(trained(WAYS[way], dataset, Path(place), seed))
                print(f"seed {seed}, {way}: {found[-1][0]:.1%}, {found[-1][1]:.0f} s", flush=True)
    lines = []
    for way, found in rows.items():
        accuracies, seconds = zip(*found, strict=True)
        each = " ".join(f"{accuracy:.1%}" for accuracy in accuracies)
        lines.append([way, each, f"{np.mean(accuracies):.1%}", f"{np.mean(seconds):.0f} s"])
    print(f"\n{table(['training', 'accuracy, by seed', 'mean', 'processor time'], lines)}")
    return 0


def draw(dataset: Dataset, folder: Path, each: int, seed: int) -> None:
    """Writes `each` faces of every drawn expression of Training as train/*, and all of PrivateTest's as test/*."""
    for split, most in (("Training", each), ("PrivateTest", None)):
        faces = dataset.load(split, "none")
        for number, name in enumerate(DRAWN, 1):
            places = np.flatnonzero(faces.labels == dataset.expressions.index(name))
            for place in np.random.default_rng(seed).permutation(places)[:most]:
                path = folder / ("train" if most else "test") / f"class {number}" / f"{place}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), faces.images[place])


def trained(flags: Sequence[str], dataset: Dataset, place: Path, seed: int) -> tuple[float, float]:
    """Trains with these flags of train.py; returns the accuracy on PrivateTest, and seconds of the processor."""
    places = [
        f"--checkpoint_folder={place}/checkpoints",
        f"--logs_folder={place}/logs",
        f"--model_path={place}/own.bin",
    ]
    arguments = training_parser(parameters, ARCHITECTURES).parse_args([*flags, *places, f"--seed={seed}"])
    started = time.process_time()
    start = Start(arguments.start_from) if arguments.start_from else None
    settings = training_settings(arguments, parameters, ARCHITECTURES, start)
    settings = settings.for_expressions(len(dataset.expressions))
    with quiet_output():
        train(Run(dataset, ARCHITECTURES[settings.network.model], *settings, start))
    seconds = time.process_time() - started
    shutil.rmtree(place / "checkpoints")
    return accuracy_of(place / "own.bin", dataset), seconds


def accuracy_of(path: str | Path, dataset: Dataset) -> float:
    """The share of PrivateTest that a saved model answers as it is labelled, among the classes of the dataset."""
    model = saved_model.load(path)
    test = dataset.load(SPLITS[2], model.features)
    probabilities = model.predict(test.images, test.features)[:, [*map(model.expressions.index, dataset.expressions)]]
    return float((probabilities.argmax(axis=1) == test.labels).mean())


@contextlib.contextmanager
def quiet_output():
    """Drops what conversion and training print."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


if __name__ == "__main__":
    sys.exit(main())
