"""Faces in folders of pictures: `train/happy/1.jpg`, or `happy/1.jpg` without splits; and which expression each shows.

found = find_pictures("faces")
names, label_of = expressions_of(found, labels_map=None)

The names of the classes are understood in any of the usual spellings, with the numbers of RAF-DB, and in the file names
of JAFFE. If none is understood, the names of 2 to 20 folders become the expressions.
"""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ferkit.constants import EMOTIONS, SPLITS
from ferkit.errors import UserError
from ferkit.vision.pictures import is_hidden, picture_suffixes

MOST_CLASSES = 20
OWN = "own"  # the labels_map that leaves every name as it is
SPLIT_OF_FOLDER = {
    **dict.fromkeys(("train", "training"), "Training"),
    **dict.fromkeys(("validation", "valid", "val", "publictest"), "PublicTest"),
    **dict.fromkeys(("test", "testing", "privatetest"), "PrivateTest"),
}
_SPELLINGS = {
    "Angry": "angry anger an",
    "Disgust": "disgust disgusted di",
    "Fear": "fear fearful afraid scared fe",
    "Happy": "happy happiness joy ha",
    "Sad": "sad sadness sa",
    "Surprise": "surprise surprised su",
    "Neutral": "neutral ne",
}
_SYNONYMS = {word: name for name, words in _SPELLINGS.items() for word in words.split()}
_RAF_DB = dict(zip("1234567", ("Surprise", "Fear", "Disgust", "Happy", "Sad", "Angry", "Neutral"), strict=True))
_JAFFE = re.compile(r"[A-Z]{2}\.(AN|DI|FE|HA|SA|SU|NE)\d\.\d+\.", re.IGNORECASE)


class Picture(NamedTuple):
    """A picture in a folder."""

    path: Path
    split: str | None  # one of SPLITS; "" where the folder has no splits, None for an unknown one
    folder: str  # the folder that should be a split, for messages
    name: str  # of the class


def find_pictures(source: str | Path) -> tuple[list[Picture], list[Path]]:
    """The pictures, by name, with the classes taking turns, and the files that are none by their suffix.

    The turns let the first rows of a split have all classes. Raises UserError when there is no picture,
    and when the pictures lie at different depths.
    """
    folder = root_of(source)
    depths: dict[int, list[Path]] = {}  # the files at each depth that has pictures
    for depth in (1, 2, 3, 4):
        files = [path for path in _seen(folder, "/".join("*" * depth)) if not path.is_dir()]
        if any(_is_picture(path) for path in files):
            depths[depth] = files
    if len(depths.keys() - {1}) > 1:
        one, other = (next(filter(_is_picture, depths[depth])) for depth in sorted(depths.keys() - {1})[:2])
        raise UserError(
            f"{source} has pictures at two depths, such as {one.relative_to(folder)} and {other.relative_to(folder)}: "
            "lay all of them out as happy/1.jpg, or all as train/happy/1.jpg"
        )
    depth = max(depths, default=1)
    files = depths.get(depth, []) if depth <= 3 else []
    found = [_described(path, folder) for path in files if _is_picture(path)]
    if depth == 1:
        found = [picture for picture in found if _JAFFE.match(picture.path.name)]
    if not found:
        raise UserError(f"{source} has no picture laid out as train/happy/1.jpg, test/sad/2.png or happy/1.jpg")
    groups: dict[tuple[str | None, str], list[Picture]] = {}
    for picture in found:
        groups.setdefault((picture.split, picture.name.lower()), []).append(picture)
    turns = itertools.zip_longest(*groups.values())
    return [picture for turn in turns for picture in turn if picture is not None], [
        path for path in files if not _is_picture(path)
    ]


def root_of(source: str | Path) -> Path:
    """The folder in which the splits or classes lie: an unpacked archive may have a folder of its own around them."""
    folder = Path(source)
    while len(inside := _seen(folder, "*")) == 1 and inside[0].is_dir() and not _is_split(inside[0].name):
        folder = inside[0]
    return folder


def expressions_of(
    pictures: Iterable[Picture], labels_map: Mapping[str, str] | str | None
) -> tuple[tuple[str, ...], dict[str, int]]:
    """The names of the expressions, and the label of each class, by its name in small letters.

    The names are FER2013's seven, or the user's own. Classes that are not understood have no label. labels_map: the
    expression of each of some classes; OWN to use all names as they are. Raises UserError for a number of expressions
    outside 2 to 20, and for classes that may mean anything.
    """
    spelled = {picture.name.lower(): picture.name for picture in reversed(list(pictures))}
    classes = sorted(spelled, key=lambda name: (len(name) if name.isdecimal() else 0, name))
    given = labels_map if isinstance(labels_map, Mapping) else {}
    if unknown := given.keys() - spelled.keys():
        raise UserError(f"--labels_map names {min(unknown)!r}, but the classes are {', '.join(classes)}")
    known = {**_SYNONYMS, **(_RAF_DB if spelled.keys() == _RAF_DB.keys() else {}), **given}
    if labels_map != OWN and not known.keys() & spelled.keys() and all(name.isdecimal() for name in classes):
        raise UserError(
            f"the classes are {', '.join(classes)}, which may mean anything: say --labels_map={classes[0]}=Happy,… or "
            f"--labels_map={OWN}"
        )
    if labels_map == OWN or not known.keys() & spelled.keys():
        known = spelled
    expression_of = {name: known[name] for name in classes if name in known}
    chosen = list(dict.fromkeys(expression_of.values()))
    names = (
        EMOTIONS
        if {*chosen} <= {*EMOTIONS}
        else (*(name for name in EMOTIONS if name in chosen), *(name for name in chosen if name not in EMOTIONS))
    )
    if not 2 <= len(chosen) <= MOST_CLASSES:
        raise UserError(
            f"the pictures are of {len(chosen)} expressions ({', '.join(chosen[:3])}{' …' if chosen[3:] else ''}): 2 "
            f"to {MOST_CLASSES} can be told apart"
        )
    return names, {name: names.index(expression) for name, expression in expression_of.items()}


def parse_labels_map(text: str) -> Mapping[str, str] | str:
    """Parses `1=Surprise,joy=Happy`, from the name of a class to that of its expression, or `own`.

    Raises ValueError.
    """
    if text.lower() == OWN:
        return OWN
    pairs = [pair.partition("=") for pair in text.split(",")]
    if not all(name.strip() and re.fullmatch(r"[^/\\.=][^/\\=]*", new.strip()) for name, _, new in pairs):
        raise ValueError(f"'{text}' is neither {OWN} nor like 1=Surprise,joy=Happy")
    ours = {name.lower(): name for name in EMOTIONS}
    return {name.strip().lower(): ours.get(new.strip().lower(), new.strip()) for name, _, new in pairs}


def _described(path: Path, folder: Path) -> Picture:
    inside = path.relative_to(folder).parts
    split = SPLIT_OF_FOLDER.get(inside[0].lower()) if len(inside) == 3 else ""
    prefix = re.match(f"({'|'.join(SPLITS)})_", path.name)  # FER2013's own names; they say more than the folder's
    jaffe = _JAFFE.match(path.name) if len(inside) == 1 else None
    name = jaffe[1] if jaffe else path.parent.name
    return Picture(path, prefix[1] if prefix else split, inside[0], name)


def _is_split(name: str) -> bool:
    return name.lower() in SPLIT_OF_FOLDER


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in picture_suffixes()


def _seen(folder: Path, pattern: str) -> Sequence[Path]:
    """What matches in a folder, without hidden files and what lies in hidden folders, sorted."""
    return sorted(path for path in folder.glob(pattern) if not is_hidden(path.relative_to(folder)))
