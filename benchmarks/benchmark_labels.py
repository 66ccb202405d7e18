"""How many wrong labels check_labels.py finds, and how many of those that it doubts in FER2013 are wrong.

    python benchmarks/benchmark_labels.py --folder=fer2013_features

The dataset needs the votes of FER+. First: faces on whose expression most of ten people agree get these labels, one in
ten is made wrong at random, and the doubted ones are counted. Second: FER2013's own labels are checked, and the doubted
ones are compared with what most people see.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ferkit.data.dataset import open_dataset
from ferkit.flags import add_flags, override
from ferkit.labels import Faces, check_labels
from ferkit.processes import command
from ferkit.recognition import Recognizer
from parameters import DATASET

DRAWS = 5


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure how well wrong labels are found.")
    add_flags(parser, DATASET, "folder")
    parser.add_argument("--model_path", default="ferplus", metavar="PATH", help="whose view of the faces is used")
    parser.add_argument("--faces", type=int, nargs="+", default=[200, 2000], metavar="N", help="sizes of draws")
    arguments = parser.parse_args(argv)
    dataset = open_dataset(override(DATASET, arguments).folder)
    recognizer = Recognizer(arguments.model_path)
    voted = dataset.labelled("ferplus").load("Training", "none")
    own = dataset.labelled("ferplus").own_labels("Training")
    random = np.random.default_rng(0)
    clear = np.flatnonzero(voted.targets.max(axis=1) > 0.5)
    print(f"faces,made wrong,found,share found,doubted,share of these made wrong (sums of {DRAWS} draws)")
    for count in arguments.faces:
        sums = np.zeros(3, int)
        for _ in range(DRAWS):
            rows = drawn(random, clear, voted.labels, count)
            wrong = random.random(len(rows)) < 0.1
            labels = np.where(wrong, (voted.labels[rows] + random.integers(1, 7, len(rows))) % 7, voted.labels[rows])
            doubted = doubts(recognizer, voted.images[rows], labels, dataset.expressions)
            sums += (wrong.sum(), (doubted & wrong).sum(), doubted.sum())
        made, found, of = sums
        print(f"{count},{made},{found},{found / made:.1%},{of},{found / of:.1%}", flush=True)
    doubted = doubts(recognizer, voted.images[clear], own[clear], dataset.expressions)
    differs = own[clear] != voted.labels[clear]
    print(
        f"FER2013's own labels of {len(clear)} faces: {differs.mean():.1%} are not what most people see; of the "
        f"{doubted.sum()} doubted ones {differs[doubted].mean():.1%}, of the others {differs[~doubted].mean():.1%}"
    )
    return 0


def drawn(random: np.random.Generator, places: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """`count` of the places at random, of classes that then have five faces or more."""
    rows = random.permutation(places)[:count]
    return rows[np.bincount(labels[rows], minlength=labels.max() + 1)[labels[rows]] >= 5]


def doubts(recognizer: Recognizer, images: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Which labels are doubted (N,) bool."""
    present, places = np.unique(labels, return_inverse=True)
    faces = Faces(images, places, tuple(names[label] for label in present), tuple(map(str, range(len(labels)))))
    doubted = np.zeros(len(labels), bool)
    doubted[check_labels(faces, recognizer).wrong] = True
    return doubted


if __name__ == "__main__":
    sys.exit(main())
