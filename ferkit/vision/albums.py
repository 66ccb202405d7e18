"""Pictures in files and folders, and where their annotated copies go."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import imutils.paths

from ferkit.errors import UserError
from ferkit.vision.pictures import WRITTEN_SUFFIXES

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")  # searched for in folders


def pictures(path: str) -> list[str]:
    """The file `path`, or the pictures inside the folder `path`, sorted by name.

    Raises UserError when the folder has no picture.
    """
    if not Path(path).is_dir():
        return [path]
    listed = imutils.paths.list_files(path, PICTURE_SUFFIXES)
    inside = sorted(file for file in listed if not Path(file).name.startswith("._"))  # macOS's companion files
    if not inside:
        raise UserError(f"no picture in the folder {path}")
    return inside


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
    if output is None:
        return {}
    folders = [given for given in albums if Path(given).is_dir()]
    if not folders and len(albums) == 1:
        if Path(output).is_dir():
            raise UserError(f"{output} is a folder: for one picture --output must be a file, like annotated.jpg")
        outputs = {path: Path(output) for path in paths}
    else:
        if Path(output).suffix.lower() in WRITTEN_SUFFIXES and not Path(output).is_dir():
            raise UserError(f"--output={output}: for several pictures it must be a folder, like annotated/")
        if Path(output).is_file():
            raise UserError(f"{output} is a file: for several pictures --output must be a folder")
        places = _places_below(albums, paths, output)
        outputs = {
            path: place if place.suffix.lower() in WRITTEN_SUFFIXES else Path(f"{place}.png")
            for path, place in places.items()
        }
    read = {os.path.realpath(path) for path in paths}
    written: set[str] = set()
    for path, place in outputs.items():
        if place.suffix.lower() not in WRITTEN_SUFFIXES:
            raise UserError(f"{place} has no suffix of a picture: use .jpg or .png")
        if os.path.realpath(place) in read:
            raise UserError(f"--output={output} would overwrite {place}, which is to be read: name another place")
        if os.path.realpath(place) in written:
            raise UserError(f"the copy of {path} would overwrite another in {place}: recognize them one after another")
        written.add(os.path.realpath(place))
    return outputs


def explanation_stems(albums: Mapping[str, Sequence[str]], paths: Sequence[str], folder: str | None) -> dict[str, Path]:
    """How the names of each picture's explanations in `folder` begin; empty without a folder.

    Raises UserError when the explanations would be written among the pictures that are read.
    """
    if folder is None:
        return {}
    if Path(folder).is_file():
        raise UserError(f"{folder} is a file: --explain must be a folder")
    if any(Path(given).is_dir() and Path(folder).resolve().is_relative_to(Path(given).resolve()) for given in albums):
        raise UserError(f"--explain={folder} lies in a folder that is read: name another folder")
    return _places_below(albums, paths, folder)


def _places_below(albums: Mapping[str, Sequence[str]], paths: Sequence[str], folder: str) -> dict[str, Path]:
    """A place inside `folder` for each of `paths`, laid out as in the folder that it came from.

    If there are several folders among the `albums`, each one gets a subfolder with its name.
    """
    folders = [given for given in albums if Path(given).is_dir()]
    places: dict[str, Path] = {}
    for given, album in albums.items():
        below = Path(folder) / Path(given).resolve().name if len(folders) > 1 else Path(folder)
        for path in album:
            places.setdefault(path, below / (Path(path).relative_to(given) if given in folders else Path(path).name))
    return {path: places[path] for path in paths}
