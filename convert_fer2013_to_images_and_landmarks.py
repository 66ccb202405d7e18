"""Converts FER2013 into arrays of faces, labels, landmarks and HOG features.

    python convert_fer2013_to_images_and_landmarks.py
    python convert_fer2013_to_images_and_landmarks.py --landmarks=yes --hog=no --how_windows=no --expressions=1,4,6

Reads `fer2013.csv` (plain or compressed), Kaggle's `icml_face_data.csv`, or a folder of pictures, and writes
`fer2013_features/<Training|PublicTest|PrivateTest>/*.npy` with a `manifest.json`. With `--download` it
first gets FER2013 from Kaggle.
"""

if __name__ == "__main__":  # Ctrl-C ends the imports below without a traceback
    from ferkit.startup import begin

    begin()

import argparse
import dataclasses
import re
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ferkit.constants import EMOTIONS
from ferkit.errors import UserError
from ferkit.flags import (
    Parser,
    add_flags,
    add_processes,
    add_yes_no,
    local_path,
    not_negative,
    override,
    positive,
    shown,
)
from ferkit.processes import command
from ferkit.settings import Joinable
from parameters import DATASET


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    import pandas  # noqa: F401 here, so that a missing package gives a one-line error at once

    from ferkit.data.conversion import HOG_IMAGES, convert
    from ferkit.features import PARTS, parts_of

    dataset = override(DATASET, arguments)
    if arguments.download is not None:
        dataset = dataclasses.replace(dataset, input=downloaded(arguments))
    started = time.perf_counter()
    usual = [name for name, part in PARTS.items() if part.usual]
    chosen = usual if arguments.features is None else parts_of(arguments.features)
    given = {name: getattr(arguments, name) for name in (*PARTS, HOG_IMAGES)}
    manifest = convert(
        dataset.input,
        dataset.folder,
        arguments.expressions,
        [name for name, answer in given.items() if (name in chosen if answer is None else answer)],
        one_hot=arguments.onehot,
        jpg=arguments.jpg,
        limit=arguments.limit,
        processes=arguments.processes,
        shape_predictor_path=dataset.shape_predictor_path,
        ferplus_path=arguments.ferplus,
        labels_map=arguments.labels_map,
        validation_share=arguments.validation_share,
        test_share=arguments.test_share,
        split_seed=arguments.split_seed,
    )
    print(summary(manifest))
    print(f"Written to {dataset.folder} in {time.perf_counter() - started:.1f} s")
    return 0


def downloaded(arguments: argparse.Namespace) -> str:
    """The path of the FER2013 that --download names, fetched with the votes that --ferplus names, unless there."""
    from ferkit.data import download

    if arguments.input is not None:
        raise UserError("--download and --input are two sources: leave one out")
    if arguments.ferplus is not None and "/" in arguments.download:
        raise UserError("FER+'s votes join the rows of the competition's csv: leave out --ferplus, or say --download")
    path = download.fetch_faces(arguments.download if "/" in arguments.download else download.COMPETITION)
    print(f"FER2013: {path}")
    if arguments.ferplus is not None:
        download.fetch_votes(arguments.ferplus)
    return str(path)


def parser() -> argparse.ArgumentParser:
    """The command line of this script."""
    from ferkit.features import FEATURES, PARTS

    parser = Parser(description="Convert FER2013 into arrays of faces, labels, landmarks and HOG features.")
    add_yes_no(parser, "-j", "--jpg", default=False, help="also write every face as a jpg")
    for name, part in PARTS.items():
        options = [f"-{flag}" if len(flag) <= 2 else f"--{flag}" for flag in part.flags]
        add_yes_no(parser, *options, dest=name, default=None, help=f"{part.help} (default: {shown(part.usual)})")
    parser.add_argument(
        "--features",
        choices=Joinable(FEATURES),
        metavar="NAME+NAME…",
        help="extract what these features of train.py need, instead of the defaults above",
    )
    add_yes_no(parser, "-hi", "--hog_images", default=False, help="also write pictures of the HOG, as an array")
    add_yes_no(parser, "-o", "--onehot", default=True, help="one-hot labels; no: indices")
    parser.add_argument(
        "-e",
        "--expressions",
        type=expressions,
        metavar="0,1,…",
        help="which to keep (default: all that the source has): "
        + ", ".join(f"{label} {name}" for label, name in enumerate(EMOTIONS)),
    )
    add_flags(parser, DATASET, "input")
    parser.add_argument(
        "--download",
        nargs="?",
        const="competition",
        type=dataset_name,
        metavar="OWNER/DATASET",
        help="get FER2013 from Kaggle, and the votes of --ferplus, unless they are there: without a value the csv of "
        "the competition, which needs a token; msambare/fer2013 needs none",
    )
    parser.add_argument(
        "--folder", "--output", type=local_path, metavar="PATH", help=f"the folder to write (default: {DATASET.folder})"
    )
    parser.add_argument(
        "--limit",
        type=positive,
        metavar="N",
        help="keep only the first N rows of each split; of a folder, its expressions in turns (default: all)",
    )
    parser.add_argument(
        "--labels_map",
        type=labels_map,
        metavar="CLASS=NAME,…",
        help="of a folder of pictures: what its classes mean, like 1=Surprise,joy=Happy; own: their names are the "
        "expressions (default: usual names are understood; if none is, as own)",
    )
    for split, kind in (("validation", "PublicTest"), ("test", "PrivateTest")):
        parser.add_argument(
            f"--{split}_share",
            type=share,
            metavar="X",
            help=f"share of Training that becomes {kind}, where the source has none (default: 0.1 if the source has no "
            "splits, else 0)",
        )
    parser.add_argument(
        "--split_seed", type=not_negative, default=0, metavar="N", help="chooses these faces (default: 0)"
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
    if len(set(labels)) != len(labels) or len(labels) < 2 or min(labels) < 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not two or more different numbers of 0 to 6, like 0,3,4")
    return tuple(sorted(labels))


def dataset_name(text: str) -> str:
    """Parses `msambare/fer2013`, or `competition`."""
    if not re.fullmatch(r"competition|[\w-]+/[\w-]+", text):
        raise argparse.ArgumentTypeError(f"'{text}' is no dataset of Kaggle, like msambare/fer2013")
    return text


def labels_map(text: str) -> Mapping[str, str] | str:
    """Parses `1=Surprise,joy=Happy`, or `own`."""
    from ferkit.data.folders import parse_labels_map

    try:
        return parse_labels_map(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def share(text: str) -> float:
    """Parses a number from 0 to below 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 0 to below 1")
    return value


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
    if "held_out" in manifest:
        made = [f"{part:.0%} {split}" for split, part in manifest["held_out"].items() if split != "seed" and part]
        lines.append(
            f"Held out of Training, of each expression: {', '.join(made)} (seed {manifest['held_out']['seed']})"
        )
    lines += [f"Dropped, {reason}: {count}" for reason, count in manifest["dropped"].items()]
    if "ferplus" in manifest:
        counts = {split: facts["with_majority"] for split, facts in manifest["ferplus"]["splits"].items()}
        listed = ", ".join(f"{split} {count}" for split, count in counts.items())
        lines.append(f"FER+ joined, faces with a majority for one of the seven expressions: {listed}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
