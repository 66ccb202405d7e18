"""Reads FER2013 from Kaggle's csv files, plain, compressed or in an archive, and from folders of pictures.

source = open_source("fer2013.csv")
for row in source.rows:  # (split, label, face), or the reason why the row cannot be used
"""

import contextlib
import csv
import hashlib
import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from ferkit.constants import EMOTIONS, IMAGE_SIZE, SPLITS
from ferkit.data import ferplus
from ferkit.data.archives import DAMAGE, open_texts
from ferkit.data.folders import Picture, expressions_of, find_pictures
from ferkit.errors import UserError
from ferkit.files import open_file
from ferkit.vision.pictures import read_image

COLUMNS = ("emotion", "pixels", "usage")

# A usable row: split ("" where the source has none), label, (48, 48) uint8 face. An unusable row: the reason.
Row = tuple[str, int, np.ndarray] | str


class Source(NamedTuple):
    """An open source of faces."""

    names: tuple[str, ...]  # of the labels, from 0
    labels: tuple[int, ...]  # that occur, as far as is known before the rows are read
    rows: Iterator[Row]


def open_source(source: str, labels_map: Mapping[str, str] | str | None = None) -> Source:
    """FER2013, or a folder of pictures. The rows come in order, with a progress bar.

    labels_map: what the classes of a folder mean, see folders.expressions_of. Raises UserError when there is no FER2013
    at `source`. If a compressed file is cut off, the rows raise UserError after the last readable one.
    """
    path, all_seven = Path(source), tuple(range(len(EMOTIONS)))
    if path.is_dir() and ferplus.is_own_layout(path):
        return Source(EMOTIONS, all_seven, _read_voted(path))
    if path.is_dir():
        pictures, others = find_pictures(path)
        names, label_of = expressions_of(pictures, labels_map)
        return Source(names, tuple(sorted({*label_of.values()})), _read_folder(pictures, others, label_of))
    if labels_map is not None:
        raise UserError(f"--labels_map is for a folder of pictures, and {source} is none: leave it out")
    if not path.exists():
        raise UserError(
            f"no FER2013 at {source}: put Kaggle's fer2013.csv or icml_face_data.csv there, or name it with --input"
        )
    return Source(EMOTIONS, all_seven, _read_csv(path))


def hash_of(source: str) -> str:
    """SHA-256 of the file, or of the names and contents of the pictures in a folder."""
    digest = hashlib.sha256()
    path = Path(source)
    for file in files_of(path):
        if file != path:
            digest.update(file.relative_to(path).as_posix().encode())
        try:
            with open_file(file) as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        except (UserError, OSError):
            if file == path:  # an unreadable picture in a folder does not stop the conversion
                raise
    return digest.hexdigest()


def files_of(source: Path) -> list[Path]:
    """The file, or in a folder the files with faces and labels."""
    if not source.is_dir():
        return [source]
    if not ferplus.is_own_layout(source):
        return sorted(picture.path for picture in find_pictures(source)[0])
    labels = [source / name / ferplus.LABEL_FILE for name in ferplus.FOLDERS]
    return [*filter(Path.is_file, labels), *filter(Path.is_file, ferplus.read_own_layout(source)[1])]


# --- csv -------------------------------------------------------------------------------------------------------------


def _read_csv(path: Path) -> Iterator[Row]:
    """The rows of the first csv in `path` that has the columns emotion, pixels and perhaps Usage, in any order."""
    names: list[str] = []
    try:
        with open_file(path) as raw, tqdm(desc="Reading", total=path.stat().st_size, unit="B", unit_scale=True) as bar:
            for text in open_texts(path, raw):
                first = text.readline()
                delimiter = ";" if ";" in first and "," not in first else ","
                rows = csv.reader(itertools.chain([first], text), delimiter=delimiter)
                header = next(rows, [])
                names = [heading.strip().lower() for heading in header] or names  # icml_face_data.csv has spaces
                if not {"emotion", "pixels"} <= set(names):
                    continue
                places = [names.index(column) for column in COLUMNS if column in names]
                for fields in filter(None, rows):
                    bar.update(raw.tell() - bar.n)
                    yield _parse_row(fields, places, len(header))
                return
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a csv ({error})") from error
    except DAMAGE as error:
        reason = " ".join(str(error).split())  # tarfile's messages have several lines
        raise UserError(f"{path} is cut off, damaged or locked ({reason}): fetch it again") from error
    if not names:
        raise UserError(f"{path} is empty, or an archive without a csv: fetch it again, or unpack it")
    if "pixels" not in names and {"neutral", "contempt"} <= set(names):
        raise UserError(f"{path} has FER+'s votes and no faces: name it with --ferplus, and fer2013.csv with --input")
    missing = " nor ".join(column for column in ("emotion", "pixels") if column not in names)
    raise UserError(f"{path} has no column {missing}: FER2013 has emotion, pixels and Usage")


def _parse_row(fields: Sequence[str], columns: Sequence[int], width: int) -> Row:
    """One row of the csv, or the reason why it cannot be used. columns: the places of COLUMNS, or without Usage."""
    if len(fields) > width:
        return "too many fields"
    padded = [*fields, *[""] * (width - len(fields))]  # the last row of a cut-off file may be too short
    emotion, pixels, *usage = (padded[column].strip() for column in columns)
    if usage and usage[0] not in SPLITS:
        return "unknown or missing Usage"
    if emotion not in [str(label) for label in range(len(EMOTIONS))]:
        return "label is not 0 to 6"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # NumPy before 2.3 reports letters this way
            values = np.fromstring(pixels, dtype=np.int64, sep=" ")
    except (ValueError, DeprecationWarning):
        return "pixels are not whole numbers"
    if len(values) != IMAGE_SIZE * IMAGE_SIZE:
        return f"not {IMAGE_SIZE * IMAGE_SIZE} pixels"
    if values.min() < 0 or values.max() > 255:
        return "pixels are not 0 to 255"
    return usage[0] if usage else "", int(emotion), values.astype(np.uint8).reshape(IMAGE_SIZE, IMAGE_SIZE)


# --- folders ---------------------------------------------------------------------------------------------------------


def _read_folder(pictures: Sequence[Picture], others: Sequence[Path], label_of: Mapping[str, int]) -> Iterator[Row]:
    """The rows of the folder's pictures. Pictures of another size are scaled to 48×48."""
    for other in others:
        yield f"no picture by its suffix, {other.suffix.lower() or 'none'}"
    for picture in tqdm(pictures, desc="Reading", unit="picture"):
        if picture.split is None:
            yield f"folder {picture.folder} is not train, validation or test"
        elif picture.name.lower() not in label_of:
            yield f"folder {picture.name} is not an expression"
        else:
            yield _row_of_picture(picture.split, label_of[picture.name.lower()], picture.path)


def _read_voted(folder: Path) -> Iterator[Row]:
    """The rows of FER+'s own folders. The label of a face is the likeliest of FER2013's expressions."""
    votes, paths = ferplus.read_own_layout(folder)
    columns = [ferplus.COLUMN_OF[name] for name in EMOTIONS]
    labels = votes.votes[:, columns].argmax(axis=1)
    rows = zip(votes.usages, map(int, labels), paths, strict=True)
    for split, label, path in tqdm(rows, desc="Reading", total=len(paths), unit="picture"):
        yield _row_of_picture(split, label, path)


def _row_of_picture(split: str, label: int, path: Path) -> Row:
    grey = None
    with contextlib.suppress(UserError):
        grey = cv2.cvtColor(read_image(path), cv2.COLOR_BGR2GRAY)
    if grey is None:
        return "not a readable picture"
    if grey.shape != (IMAGE_SIZE, IMAGE_SIZE):
        grey = cv2.resize(grey, (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_AREA)
    return split, label, grey
