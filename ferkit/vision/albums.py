"""Pictures in files and folders, and where their annotated copies go."""

import glob
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import imutils.paths

from ferkit.errors import UserError, without_credentials
from ferkit.files import real_path
from ferkit.vision.pictures import WRITTEN_SUFFIXES, is_animated, is_hidden, picture_suffixes

_ANIMATED_SUFFIXES = (".apng", ".avif", ".avifs", ".gif", ".png", ".webp")


def pictures(path: str) -> list[str]:
    """The file `path`, the files that match a pattern like *.jpg, or the pictures inside the folder `path`, sorted.

    Raises UserError when there is none, and for an address in the internet.
    """
    if re.match("https?://", path, re.IGNORECASE):
        raise UserError(f"cannot read {without_credentials(path)}: download the picture first, and name its file")
    if not os.path.lexists(path) and glob.has_magic(path):  # Windows' shell leaves patterns to us
        matching = sorted(file for file in glob.glob(path, recursive=True) if os.path.isfile(file))
        if not matching:
            raise UserError(f"no file matches {path}")
        return matching
    if not os.path.isdir(path):
        return [path]
    _check_readable(path)
    inside = [file for file in _files(path) if Path(file).suffix.lower() in picture_suffixes()]
    if not inside:
        raise UserError(f"no picture in the folder {path}")
    return inside


def _files(folder: str) -> list[str]:
    """The files inside a folder, without hidden ones such as macOS's companion files and thumbnails, sorted."""
    return sorted(file for file in imutils.paths.list_files(folder) if not is_hidden(Path(file).relative_to(folder)))


def notes(albums: Mapping[str, Sequence[str]]) -> list[str]:
    """What is left out of the files and folders that the user gave, each in a line: other files, frames of animations.

    albums: see `output_paths`.
    """
    lines = []
    for given, album in albums.items():
        if os.path.isdir(given):
            others = {Path(file).suffix.lower() or "no suffix" for file in {*_files(given)} - {*album}}
            count = len({*_files(given)} - {*album})
            if count:
                left_out = "1 file in {} is no picture" if count == 1 else f"{count} files in {{}} are no pictures"
                lines.append(f"{left_out.format(given)} by name: {', '.join(sorted(others))}")
        moving = [path for path in album if path.lower().endswith(_ANIMATED_SUFFIXES) and is_animated(path)]
        if moving:
            lines.append(f"only the first picture of {', '.join(moving[:3])}{' …' if moving[3:] else ''} is read")
    return lines


def _check_readable(folder: str) -> None:
    """Raises UserError for a folder, in `folder` or itself, that may not be read: its pictures would be left out."""

    def refuse(error: OSError) -> NoReturn:
        raise UserError(f"no permission to read the folder {error.filename}") from error

    for _ in os.walk(folder, onerror=refuse):
        pass


def each_once(paths: Iterable[str]) -> list[str]:
    """`paths` without repeated names of the same file."""
    first: dict[str, str] = {}
    for path in paths:
        first.setdefault(os.path.realpath(path), path)  # unlike resolve(), accepts links in a circle
    return list(first.values())


def output_paths(albums: Mapping[str, Sequence[str]], paths: Sequence[str], output: str | None) -> dict[str, Path]:
    """The path of each picture's annotated copy; empty without `output`.

    The copy of a single file goes to `output`. Otherwise `output` is a folder, and the copies are laid out in it as in
    the folder that they came from. If there are several folders, each one gets a subfolder with its name.

    albums: the files and folders that the user gave, each with its pictures. Raises UserError when `output` does not
    fit, and when a copy would replace a picture that is read, or another copy.
    """
    if output is None or not paths:
        return {}
    if [*albums] == [*paths] and len(paths) == 1:  # a single file, neither a folder nor a pattern
        if os.path.isdir(output):
            raise UserError(f"{output} is a folder: for one picture --output must be a file, like annotated.jpg")
        outputs = {path: Path(output) for path in paths}
    else:
        if Path(output).suffix.lower() in WRITTEN_SUFFIXES and not os.path.isdir(output):
            raise UserError(f"--output={output}: for several pictures it must be a folder, like annotated/")
        places = _places_below(albums, paths, output, "--output")
        outputs = {
            path: place if place.suffix.lower() in WRITTEN_SUFFIXES else Path(f"{place}.png")
            for path, place in places.items()
        }
    read = {os.path.realpath(path) for path in paths}
    for place in outputs.values():
        if place.suffix.lower() not in WRITTEN_SUFFIXES:
            raise UserError(f"{place} has no suffix of a picture: use .jpg or .png")
        if os.path.realpath(place) in read:
            raise UserError(f"--output={output} would overwrite {place}, which is to be read: name another place")
    _check_apart(outputs, "copy")
    return outputs


def explanation_stems(albums: Mapping[str, Sequence[str]], paths: Sequence[str], folder: str | None) -> dict[str, Path]:
    """How the names of each picture's explanations in `folder` begin; empty without a folder. See `explanation_of`.

    Raises UserError when the explanations would be written among the pictures that are read, or over others.
    """
    if folder is None:
        return {}
    stems = _places_below(albums, paths, folder, "--explain")
    _check_apart(stems, "explanation")
    return stems


def explanation_of(stem: Path, number: int) -> Path:
    """The file with the explanation of one of a picture's faces, which are counted from 1."""
    return Path(f"{stem}_{number}.png")


def _check_apart(places: Mapping[str, Path], what: str) -> None:
    """Raises UserError when two pictures have the same place."""
    taken: set[str] = set()
    for path, place in places.items():
        if os.path.realpath(place) in taken:
            raise UserError(
                f"the {what} of {path} would overwrite another in {place}: recognize them one after another, each into "
                "a place of its own"
            )
        taken.add(os.path.realpath(place))


def _places_below(albums: Mapping[str, Sequence[str]], paths: Sequence[str], folder: str, flag: str) -> dict[str, Path]:
    """A place inside `folder` for each of `paths`, laid out as in the folder that it came from.

    If there are several folders among the `albums`, each one gets a subfolder with its name. Raises UserError when
    `folder`, which `flag` names, is a file, and when a later run would find there what this one writes.
    """
    if os.path.isfile(folder):
        raise UserError(f"{folder} is a file: {flag} must be a folder for several pictures")
    folders = [given for given in albums if os.path.isdir(given)]
    searched = [*folders, *(given.partition("**")[0] or "." for given in albums if "**" in given)]
    if any(real_path(folder).is_relative_to(real_path(place)) for place in searched):
        raise UserError(f"{flag}={folder} lies in a folder that is read: name another folder")
    places: dict[str, Path] = {}
    for given, album in albums.items():
        below = Path(folder) / Path(given).resolve().name if len(folders) > 1 else Path(folder)
        for path in album:
            places.setdefault(path, below / (Path(path).relative_to(given) if given in folders else Path(path).name))
    return {path: places[path] for path in paths}
