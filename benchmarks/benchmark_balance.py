"""Accuracy and macro recall of a saved model on PublicTest for several values of --balance, to choose one.

    python benchmarks/benchmark_balance.py --model_path=ferplus --labels=ferplus --folder=fer2013_features

Prints a table as CSV: the balance, the accuracy, the macro recall (the mean of the expressions' shares of right
answers), and the mean of the two. The balance that is saved in the model is left out.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.metrics import balanced_accuracy_score

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ferkit import saved_model
from ferkit.data.dataset import open_dataset
from ferkit.flags import add_flags, override
from ferkit.processes import command
from parameters import DATASET, TRAINING

BALANCES = [round(0.04 * step, 2) for step in range(16)]  # 0 to 0.6


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure values of --balance on PublicTest.")
    add_flags(parser, DATASET, "folder")
    add_flags(parser, TRAINING, "labels")
    parser.add_argument("--model_path", required=True, metavar="PATH", help="the saved model")
    arguments = parser.parse_args(argv)
    model = saved_model.load(arguments.model_path)
    model.balance = None
    dataset = open_dataset(override(DATASET, arguments).folder).labelled(arguments.labels or TRAINING.labels)
    share = model.facts["hyperparams"].get("fer2013_share", 0.0)
    frequencies = dataset.mixed(share).load("Training", model.features).targets.mean(axis=0)
    public = dataset.load("PublicTest", model.features)
    probabilities = model.predict(public.images, public.features) ** model.temperature  # as before the calibration
    print("balance,accuracy,macro_recall,mean")
    for balance in BALANCES:
        predictions = (probabilities * np.maximum(frequencies, 1e-6) ** -balance).argmax(axis=1)
        accuracy = float((predictions == public.labels).mean())
        recall = float(balanced_accuracy_score(public.labels, predictions))
        print(f"{balance},{accuracy:.4f},{recall:.4f},{(accuracy + recall) / 2:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
