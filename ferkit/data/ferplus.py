"""FER+: the votes of ten people on each face of FER2013 (Barsoum et al., ICMI 2016, arXiv 1608.01041).

    votes = read_votes("fer2013new.csv")  # usages (N,), votes (N, 10) uint8
    chosen = majority(votes.votes, columns_of(EMOTIONS))

Microsoft's `fer2013new.csv` has a row for each row of Kaggle's `fer2013.csv`, in the same order. The official rule for
evaluation: a single vote for a column is dropped; a face's label is the column with more than half of the votes that
remain; faces without such a column, and those called unknown or no face, are left out.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ferkit.constants import EMOTIONS
from ferkit.data.archives import DAMAGE, open_texts
from ferkit.errors import UserError
from ferkit.files import open_file

ADDRESS = "https://raw.githubusercontent.com/microsoft/FERPlus/master/fer2013new.csv"
# The columns of votes.npy, in this order. Unknown and NF (no face) are no expressions.
COLUMNS = (
    "neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF"
)  # fmt: skip
NOT_A_FACE = COLUMNS.index("NF")
CONTEMPT = "Contempt"
# The column of each expression of ours.
COLUMN_OF = dict(
    zip((*EMOTIONS, CONTEMPT), map(COLUMNS.index, ("anger", "disgust", "fear", "happiness", "sadness", "surprise",
                                                   "neutral", "contempt")), strict=True)
)  # fmt: skip
# The folders of pictures that Microsoft's generate_training_data.py makes, each with its label.csv, and their splits.
FOLDERS = {"FER2013Train": "Training", "FER2013Valid": "PublicTest", "FER2013Test": "PrivateTest"}
LABEL_FILE = "label.csv"
LEAST_AGREEMENT = 0.5  # with FER2013's labels: 64% is normal, 17% is another order of the rows


class Votes(NamedTuple):
    """The rows of FER+."""

    usages: list[str]  # the split of each row
    votes: np.ndarray  # (N, 10) uint8, see COLUMNS


def read_votes(path: str | Path) -> Votes:
    """The votes in Microsoft's csv, plain or compressed. Raises UserError when it is missing or another file."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"no FER+ votes at {path}: get fer2013new.csv from {ADDRESS}")
    usages: list[str] = []
    rows: list[list[int]] = []
    try:
        with open_file(path) as raw:
            for text in open_texts(path, raw):
                lines = csv.reader(text)
                names = [name.strip().lower() for name in next(lines, [])]
                if not {"usage", *(column.lower() for column in COLUMNS)} <= set(names):
                    continue
                usage, *places = (names.index(name) for name in ("usage", *(column.lower() for column in COLUMNS)))
                for fields in filter(None, lines):
                    usages.append(fields[usage].strip())
                    rows.append([int(fields[place]) for place in places])
                break
    except (IndexError, ValueError, csv.Error) as error:
        raise UserError(
            f"row {len(rows) + 2} of {path} is no row of FER+ ({error}): get it again from {ADDRESS}"
        ) from error
    except DAMAGE as error:
        reason = " ".join(str(error).split())  # tarfile's messages have several lines
        raise UserError(f"{path} is cut off, damaged or locked ({reason}): get it again from {ADDRESS}") from error
    votes = np.array(rows, np.int64).reshape(-1, len(COLUMNS))
    if not len(votes):
        raise UserError(f"{path} has no FER+ votes: it needs the columns Usage, {', '.join(COLUMNS)}")
    if votes.min() < 0 or votes.max() > 255:
        raise UserError(f"{path} has votes below 0 or above 255: get it again from {ADDRESS}")
    return Votes(usages, votes.astype(np.uint8))


def is_own_layout(folder: Path) -> bool:
    """Whether the folder is laid out as FER+'s own scripts do: `FER2013Train/fer0000000.png` with its `label.csv`."""
    return any((folder / name / LABEL_FILE).is_file() for name in FOLDERS)


def read_own_layout(folder: Path) -> tuple[Votes, list[Path]]:
    """The votes of all label files in the folder, and the picture of each row. Raises UserError for another file."""
    usages: list[str] = []
    rows: list[list[int]] = []
    paths: list[Path] = []
    for name, split in FOLDERS.items():
        path = folder / name / LABEL_FILE
        if not path.is_file():
            continue
        try:
            with path.open(encoding="utf-8", newline="") as file:
                for number, fields in enumerate(filter(None, csv.reader(file)), 1):  # noqa: B007 the error names it
                    if len(fields) <= len(COLUMNS):
                        raise ValueError("it needs the name of a picture and ten numbers of votes")
                    counts = [int(float(field)) for field in fields[-len(COLUMNS) :]]  # before them: name, perhaps box
                    if not 0 <= min(counts) <= max(counts) <= 255:
                        raise ValueError("a number of votes is below 0 or above 255")
                    usages.append(split)
                    rows.append(counts)
                    paths.append(path.with_name(Path(fields[0].strip()).name))
        except (ValueError, OverflowError, csv.Error) as error:
            raise UserError(f"row {number} of {path} is no row of FER+ ({error}): make the folders again") from error
    if not rows:
        raise UserError(f"the {LABEL_FILE} of {folder} name no picture: make the folders again")
    return Votes(usages, np.array(rows, np.uint8)), paths


def check_join(votes: Votes, rows: Sequence[tuple[str | None, int]], path: str, source: str) -> None:
    """Raises UserError unless the rows of FER+ are those of FER2013, in the same order.

    rows: split and label of each row of FER2013; None and -1 for a row that cannot be used. path and source: the files
    of FER+ and of FER2013, for the error.
    """
    splits, labels = [split for split, _ in rows], [label for _, label in rows]
    if len(votes.usages) != len(splits):
        raise UserError(f"{path} has {len(votes.usages)} rows, {source} has {len(splits)}: they are of different files")
    other = next(
        (row for row, (one, two) in enumerate(zip(votes.usages, splits, strict=True)) if two not in (None, one)), None
    )
    if "" in splits:
        raise UserError(f"{source} has no column Usage, by which --ferplus joins the rows: take Kaggle's whole file")
    if other is not None:
        raise UserError(
            f"{path} has its rows in another order than {source}: row {other + 2} is of {votes.usages[other]}, not of "
            f"{splits[other]}"
        )
    usable = np.array(labels) >= 0
    columns = np.array([COLUMN_OF[name] for name in EMOTIONS])
    agrees = votes.votes[usable][:, columns].argmax(axis=1) == np.array(labels)[usable]
    if usable.any() and agrees.mean() < LEAST_AGREEMENT:
        raise UserError(
            f"{path} has its rows in another order than {source}: its likeliest expression is the label of "
            f"{agrees.mean():.0%} of the faces, where 64% is normal; take the files that belong together"
        )


def without_single_votes(votes: np.ndarray) -> np.ndarray:
    """The votes (N, 10) without those of one person alone, who may have been mistaken: the official rule."""
    return np.where(votes > 1, votes, 0)


def majority(votes: np.ndarray, expressions: Sequence[str]) -> np.ndarray:
    """The label of each face (N,) by the official rule, as an index into `expressions`; -1 for a face without one."""
    kept = without_single_votes(votes)
    best = kept.argmax(axis=1)
    decided = 2 * kept.max(axis=1).astype(int) > kept.sum(axis=1)
    index = np.full(len(COLUMNS), -1)
    for label, name in enumerate(expressions):
        index[COLUMN_OF[name]] = label
    return np.where(decided, index[best], -1)


def distributions(votes: np.ndarray, expressions: Sequence[str]) -> np.ndarray:
    """What people see in each face: (N, K) float32 that sum to 1; zeros for a face that is not to be learned from.

    Single votes are dropped, then the votes for these expressions are divided by their sum. Left out are faces for
    which no other answer has more votes than "no face", and faces without a vote that remains.
    """
    kept = without_single_votes(votes)[:, [COLUMN_OF[name] for name in expressions]].astype(np.float32)
    kept[votes[:, NOT_A_FACE] >= np.delete(votes, NOT_A_FACE, axis=1).max(axis=1)] = 0
    return kept / np.maximum(kept.sum(axis=1, keepdims=True), 1)
