"""Reads FER2013 from Kaggle's csv files, plain, compressed or in an archive, and from folders of pictures.

for row in read("fer2013.csv"):  # (split, label, face), or the reason why the row cannot be used
"""

import contextlib
import csv
import hashlib
import itertools
import lzma
import re
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ferkit.constants import EMOTIONS, IMAGE_SIZE, SPLITS
from ferkit.data import ferplus
from ferkit.data.archives import open_texts
from ferkit.errors import UserError
from ferkit.vision.pictures import read_image

COLUMNS = ("emotion", "pixels", "usage")
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")
SPLIT_OF_FOLDER = {"train": "Training", "validation": "PublicTest", "val": "PublicTest", "test": "PrivateTest"}
SPLIT_OF_FOLDER |= {split.lower(): split for split in SPLITS}

# A usable row: split, label 0…6, (48, 48) uint8 face. An unusable row: the reason.
Row = tuple[str, int, np.ndarray] | str


def read(source: str) -> Iterator[Row]:
    """The rows of FER2013 in order, with a progress bar. Raises UserError when there is no FER2013 at `source`.

    If a compressed file is cut off, the iterator raises UserError after the last readable row.
    """
    path = Path(source)
    if path.is_dir() and ferplus.is_own_layout(path):
        return _read_voted(path)
    if path.is_dir():
        return _read_folder(path, _in_turn(pictures(path)))
    if not path.is_file():
        raise UserError(
            f"no FER2013 at {source}: put Kaggle's fer2013.csv or icml_face_data.csv there, or name it with --input"
        )
    return _read_csv(path)


def hash_of(source: str) -> str:
    """SHA-256 of the file, or of the names and contents of the pictures in a folder."""
    digest = hashlib.sha256()
    path = Path(source)
    for file in files_of(path):
        if file != path:
            digest.update(file.relative_to(path).as_posix().encode())
        try:
            with open(file, "rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        except OSError:
            if file == path:  # an unreadable picture in a folder does not stop the conversion
                raise
    return digest.hexdigest()


def files_of(source: Path) -> list[Path]:
    """The file, or in a folder the files with faces and labels."""
    if not source.is_dir():
        return [source]
    if not ferplus.is_own_layout(source):
        return pictures(source)
    labels = [source / name / ferplus.LABEL_FILE for name in ferplus.FOLDERS]
    return [*filter(Path.is_file, labels), *filter(Path.is_file, ferplus.read_own_layout(source)[1])]


# --- csv -------------------------------------------------------------------------------------------------------------


def _read_csv(path: Path) -> Iterator[Row]:
    """The rows of the first csv in `path` that has the columns emotion, pixels and Usage, in any order."""
    seen = False
    try:
        with path.open("rb") as raw, tqdm(desc="Reading", total=path.stat().st_size, unit="B", unit_scale=True) as bar:
            for text in open_texts(path, raw):
                rows = csv.reader(text)
                header = next(rows, [])
                names = [heading.strip().lower() for heading in header]  # icml_face_data.csv has leading spaces
                seen = seen or bool(names)
                if not set(COLUMNS) <= set(names):
                    continue
                for fields in filter(None, rows):
                    bar.update(raw.tell() - bar.n)
                    yield _parse_row(fields, [names.index(column) for column in COLUMNS], len(header))
                return
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a csv ({error})") from error
    except (EOFError, OSError, RuntimeError, lzma.LZMAError, tarfile.TarError, zlib.error, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())  # tarfile's messages have several lines
        raise UserError(f"{path} is cut off, damaged or locked ({reason}): fetch it again") from error
    if not seen:
        raise UserError(f"{path} is empty, or an archive without a csv: fetch it again, or unpack it")
    missing = " nor ".join(column for column in ("emotion", "pixels", "Usage") if column.lower() not in names)
    raise UserError(f"{path} has no column {missing}: FER2013 has emotion, pixels and Usage")


def _parse_row(fields: Sequence[str], columns: Sequence[int], width: int) -> Row:
    """One row of the csv, or the reason why it cannot be used."""
    if len(fields) > width:
        return "too many fields"
    padded = [*fields, *[""] * (width - len(fields))]  # the last row of a cut-off file may be too short
    emotion, pixels, usage = (padded[column] for column in columns)
    if usage.strip() not in SPLITS:
        return "unknown or missing Usage"
    if emotion.strip() not in [str(label) for label in range(len(EMOTIONS))]:
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
    return usage.strip(), int(emotion), values.astype(np.uint8).reshape(IMAGE_SIZE, IMAGE_SIZE)


# --- folders ---------------------------------------------------------------------------------------------------------


def pictures(folder: Path) -> list[Path]:
    """The pictures in `<split>/<expression>/`, sorted by name. Raises UserError when there is none."""
    found = sorted(path for path in folder.glob("*/*/*") if path.suffix.lower() in PICTURE_SUFFIXES)
    if not found:
        raise UserError(f"{folder} has no picture laid out as train/happy/1.jpg, test/sad/2.png")
    return found


def _in_turn(paths: Sequence[Path]) -> list[Path]:
    """The paths with the expressions taking turns, so that the first rows of a split contain all expressions."""
    groups: dict[tuple[str | None, str], list[Path]] = {}
    for path in paths:
        groups.setdefault((_split_of(path), path.parts[-2].lower()), []).append(path)
    return [path for turn in itertools.zip_longest(*groups.values()) for path in turn if path is not None]


def _split_of(path: Path) -> str | None:
    """The split: from a file name that begins with Training_, PublicTest_ or PrivateTest_, else from the folder."""
    prefix = re.match(f"({'|'.join(SPLITS)})_", path.name)
    return prefix[1] if prefix else SPLIT_OF_FOLDER.get(path.parts[-3].lower())


def _read_folder(folder: Path, paths: Sequence[Path]) -> Iterator[Row]:
    """The rows of the folder's pictures. Pictures of another size are scaled to 48×48."""
    labels = {name.lower(): label for label, name in enumerate(EMOTIONS)}
    for path in tqdm(paths, desc="Reading", unit="picture"):
        split_folder, expression = path.parts[-3], path.parts[-2]
        split = _split_of(path)
        if split is None:
            yield f"folder {split_folder} is not train, validation or test"
        elif expression.lower() not in labels:
            yield f"folder {expression} is not an expression"
        else:
            yield _row_of_picture(split, labels[expression.lower()], path)


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
