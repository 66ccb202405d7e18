"""Converts FER2013 into arrays of faces, labels, landmarks and HOG features.

    python convert_fer2013_to_images_and_landmarks.py
    python convert_fer2013_to_images_and_landmarks.py --landmarks=yes --hog=no --how_windows=no --expressions=1,4,6

Reads `fer2013.csv` (plain or compressed), Kaggle's `icml_face_data.csv`, or a folder of pictures, and writes
`fer2013_features/<Training|PublicTest|PrivateTest>/*.npy` with a `manifest.json`.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

from ferkit.constants import EMOTIONS
from ferkit.flags import Parser, add_flags, add_processes, add_yes_no, local_path, override, positive
from ferkit.processes import command
from parameters import DATASET


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    import pandas  # noqa: F401 here, so that a missing package gives a one-line error at once

    from ferkit.data.conversion import HOG_IMAGES, convert
    from ferkit.features import PARTS

    dataset = override(DATASET, arguments)
    started = time.perf_counter()
    manifest = convert(
        dataset.input,
        dataset.folder,
        arguments.expressions,
        [name for name in (*PARTS, HOG_IMAGES) if getattr(arguments, name)],
        one_hot=arguments.onehot,
        jpg=arguments.jpg,
        limit=arguments.limit,
        processes=arguments.processes,
        shape_predictor_path=dataset.shape_predictor_path,
        ferplus_path=arguments.ferplus,
    )
    print(summary(manifest))
    print(f"Written to {dataset.folder} in {time.perf_counter() - started:.1f} s")
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line of this script."""
    from ferkit.features import PARTS

    parser = Parser(description="Convert FER2013 into arrays of faces, labels, landmarks and HOG features.")
    add_yes_no(parser, "-j", "--jpg", default=False, help="also write every face as a jpg")
    for name, part in PARTS.items():
        options = [f"-{flag}" if len(flag) <= 2 else f"--{flag}" for flag in part.flags]
        add_yes_no(parser, *options, dest=name, default=True, help=part.help)
    add_yes_no(parser, "-hi", "--hog_images", default=False, help="also write pictures of the HOG, as an array")
    add_yes_no(parser, "-o", "--onehot", default=True, help="one-hot labels; no: indices")
    parser.add_argument(
        "-e",
        "--expressions",
        type=expressions,
        default=tuple(range(len(EMOTIONS))),
        metavar="0,1,…",
        help="which to keep (default: all): " + ", ".join(f"{label} {name}" for label, name in enumerate(EMOTIONS)),
    )
    add_flags(parser, DATASET, "input")
    parser.add_argument(
        "--folder", "--output", type=local_path, metavar="PATH", help=f"the folder to write (default: {DATASET.folder})"
    )
    parser.add_argument(
        "--limit",
        type=positive,
        metavar="N",
        help="keep only the first N rows of each split; of a folder, its expressions in turns (default: all)",
    )
    add_processes(parser)
    add_flags(parser, DATASET, "shape_predictor_path")
    parser.add_argument(
        "--ferplus", type=local_path, metavar="PATH", help="join FER+'s votes: Microsoft's fer2013new.csv"
    )
    return parser


def expressions(text: str) -> tuple[int, ...]:
    """Parses `6,1,4` as the ascending labels (1, 4, 6)."""
    try:
        labels = [int(label) for label in text.split(",")]
    except ValueError:
        labels = []
    if len(set(labels)) != len(labels) or len(labels) < 2 or not set(labels) <= set(range(len(EMOTIONS))):
        raise argparse.ArgumentTypeError(f"'{text}' is not two or more different numbers of 0 to 6, like 0,3,4")
    return tuple(sorted(labels))


def summary(manifest: dict[str, Any]) -> str:
    """The counts of a conversion, as a table."""
    import pandas as pd

    counts = {split: facts["expressions"] for split, facts in manifest["splits"].items()}
    table = pd.DataFrame(counts).T
    table["all"] = table.sum(axis=1)
    lines = [table.to_string()]
    blank = sum(facts["blank"] for facts in manifest["splits"].values())
    if blank:
        lines.append(f"Blank images, kept: {blank}")
    lines += [f"Dropped, {reason}: {count}" for reason, count in manifest["dropped"].items()]
    if "ferplus" in manifest:
        counts = {split: facts["with_majority"] for split, facts in manifest["ferplus"]["splits"].items()}
        listed = ", ".join(f"{split} {count}" for split, count in counts.items())
        lines.append(f"FER+ joined, faces with a majority for one of the seven expressions: {listed}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
