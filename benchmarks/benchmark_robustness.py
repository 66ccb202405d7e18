"""How often models are right on faces as cameras and detectors deliver them: blurred, dark, compressed, badly cropped.

    python benchmarks/benchmark_robustness.py --model_path fer2013 ferplus --labels=ferplus --folder=fer2013_features

Every face of PublicTest is changed by one setting of the augmentation at a time, always by the same random numbers.
Prints a table: accuracy and, in brackets, macro recall of each model. PublicTest is for choosing, so this table may
choose between models. They answer with VIDEO_PREDICTOR's balance in parameters.py, as on photographs.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.metrics import balanced_accuracy_score

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ferkit import ensemble
from ferkit.data.dataset import open_dataset
from ferkit.flags import add_flags, override
from ferkit.learning.augmentation import augment
from ferkit.markdown import table
from ferkit.processes import command
from ferkit.settings import Augmentation
from parameters import DATASET, TRAINING, VIDEO_PREDICTOR

SEED = 0
CHANGES = {
    "as they are": Augmentation(),
    "blurred": Augmentation(blur=1.0),
    "darkened": Augmentation(darkness=1.0),
    "compressed": Augmentation(jpeg=1.0),
    "shifted by up to 15%": Augmentation(shift=0.15),
    "enlarged or shrunk by up to 25%": Augmentation(zoom=0.25),
    "turned by up to 30 degrees": Augmentation(rotation=30.0),
    "all of it at once": Augmentation(
        blur=0.5, darkness=0.5, jpeg=0.5, shift=0.15, zoom=0.25, rotation=30.0, contrast=0.3
    ),
}


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure models on faces that are harder than FER2013's.")
    add_flags(parser, DATASET, "folder")
    add_flags(parser, TRAINING, "labels")
    add_flags(parser, VIDEO_PREDICTOR, "balance")
    parser.add_argument("--model_path", required=True, nargs="+", metavar="PATH", help="models of raw pixels")
    arguments = parser.parse_args(argv)
    models = [ensemble.load(path) for path in arguments.model_path]
    dataset = open_dataset(override(DATASET, arguments).folder).labelled(override(TRAINING, arguments).labels)
    public = dataset.load("PublicTest", "none")
    balance = override(VIDEO_PREDICTOR, arguments).balance
    lines = []
    for name, change in CHANGES.items():
        faces, vectors = augment(public.images, public.features, "none", change, np.random.default_rng(SEED))
        cells = []
        for model in models:
            columns = [model.expressions.index(expression) for expression in dataset.expressions]
            predictions = model.predict(faces, vectors, balance=balance)[:, columns].argmax(axis=1)
            recall = balanced_accuracy_score(public.labels, predictions)
            cells.append(f"{(predictions == public.labels).mean():.1%} ({recall:.1%})")
        lines.append([name, *cells])
    print(table([f"{len(public)} faces of PublicTest", *arguments.model_path], lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
