"""Prepares ordinary photographs for training: finds the face in each one, cuts it out, and keeps it as a picture.

    with Preparation("photos", "my_faces", VideoPredictor(), size=48) as preparation:
        for result in preparation.run(processes=2):
            print(result.picture, result.note)

The photographs lie in folders by class, as conversion reads them, and so do the faces. They are found and cut out as in
recognition. `prepared.jsonl` among the faces says what became of each photograph; a later run goes on from there.
"""

import contextlib
import dataclasses
import functools
import json
import math
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

from ferkit.data.folders import find_pictures, root_of
from ferkit.errors import UserError
from ferkit.files import check_writable, lock, open_file, real_path, written
from ferkit.interpreter import use_one_thread
from ferkit.processes import one_opencv_thread, parallel
from ferkit.recognition import cut_faces
from ferkit.settings import PREPARING, VideoPredictor
from ferkit.vision.pictures import read_scaled, write_image

RECORD = "prepared.jsonl"


class Result(NamedTuple):
    """What became of one photograph."""

    picture: str  # its path below the folder of the photographs
    face: str | None  # the path of its face below the folder of the faces; None if there is none
    faces: int  # that were found
    note: str  # what the user should know of it; empty if there was one face
    modified: int | None = None  # when the photograph was, in nanoseconds; None in records of earlier versions
    size: int | None = None  # of the photograph, in bytes


class Preparation:
    """The photographs in the folder `source`, and their faces in the folder `output`.

    settings: how faces are found and cut out. size: of the faces, in pixels. Raises UserError when there is no
    photograph, and when `output` cannot be used: it lies in `source`, holds other files, was made with other settings,
    or another process is preparing faces there.
    """

    def __init__(self, source: str | Path, output: str | Path, settings: VideoPredictor, size: int):
        self.output = Path(output)
        if real_path(output).is_relative_to(real_path(source)):
            raise UserError(f"{output} lies in the photographs' folder {source}: name another --output")
        pictures, others = find_pictures(source)
        self._root = root_of(source)
        self.pictures = [picture.path.relative_to(self._root).as_posix() for picture in pictures]
        self.others = len(others)
        self._settings, self._size = settings, size
        self._made_with = {"size": size, **{name: getattr(settings, name) for name in PREPARING}}
        self.results: dict[str, Result] = {}  # of this run and of those before
        self._resources = contextlib.ExitStack()
        self._record: FileIO

    def __enter__(self) -> "Preparation":
        path = self.output / RECORD
        check_writable(self.output)
        if self.output.is_dir() and not path.exists() and any(self.output.iterdir()):
            raise UserError(f"{self.output} holds other files: name another --output, or empty it")
        with contextlib.ExitStack() as opened, written(path):
            self.output.mkdir(parents=True, exist_ok=True)
            if not opened.enter_context(lock(path)):
                raise UserError(f"another process is preparing faces in {self.output}: wait for it, or end it")
            end = self._read(path) if path.exists() else 0
            self._record = opened.enter_context(FileIO(path, "ab"))
            self._record.truncate(end)  # without a line that was cut off
            if end == 0:
                self._append(self._made_with)
            self._resources = opened.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._resources.close()

    @property
    def left(self) -> list[str]:
        """The photographs that are still to be prepared.

        Also those that were unreadable, that were changed since, and whose face was deleted.
        """
        return [name for name in self.pictures if not self._is_done(name)]

    @property
    def orphans(self) -> list[Path]:
        """The faces of photographs that are not among these any more, for example of those in another class now."""
        known = set(self.pictures)
        faces = [
            self.output / result.face for result in self.results.values() if result.face and result.picture not in known
        ]
        return sorted(face for face in faces if face.exists())

    def run(self, processes: int = 1) -> Iterator[Result]:
        """Prepares the photographs that are left, in their order."""
        work = functools.partial(_prepare, self._root, self.output, self._settings, self._size)
        with one_opencv_thread():
            for result in parallel(work, self.left, processes, prepare=use_one_thread):
                self.results[result.picture] = result
                self._append(result._asdict())
                yield result

    def _is_done(self, name: str) -> bool:
        result = self.results.get(name)
        if result is None or result.faces < 0:
            return False
        state = _state_of(self._root / name)
        face = None if result.face is None else _state_of(self.output / result.face)
        if result.modified is None:  # an earlier version looked at the time of the face alone
            return state is not None and face is not None and state[0] <= face[0]
        return state == (result.modified, result.size) and (result.face is None or face is not None)

    def _append(self, line: dict[str, Any]) -> None:
        with written(self.output / RECORD):
            content = json.dumps(line).encode() + b"\n"
            while content:  # after an incomplete write, the next one raises what is wrong, such as a full disk
                content = content[self._record.write(content) :]

    def _read(self, path: Path) -> int:
        """Reads what earlier runs recorded. Returns where the last whole line ends, in bytes."""
        end, head = 0, None
        with open_file(path) as file:
            for number, line in enumerate(file):
                if not line.endswith(b"\n"):
                    break
                try:
                    content = json.loads(line)
                    if number and not isinstance(content["faces"], int):
                        raise ValueError("no number of faces")
                    result = Result(**content) if number else None
                except (ValueError, TypeError, LookupError) as error:
                    raise UserError(f"line {number + 1} of {path} is damaged: delete it") from error
                if result is not None:
                    self.results[result.picture] = result
                else:
                    head = content
                end += len(line)
        if head == self._made_with:
            return end
        if self.results:
            raise UserError(f"{self.output} was prepared with other settings: name another --output, or delete it")
        return 0  # a run that failed before its first photograph binds nobody to its settings


def _prepare(root: Path, output: Path, settings: VideoPredictor, size: int, name: str) -> Result:
    """Finds the face in one photograph, and writes it. Deletes that of an earlier photograph of this name."""
    face = f"{name}.png"  # with the suffix of the photograph, as `1.jpg` and `1.png` may lie side by side
    state = _state_of(root / name) or ()  # before it is read: the next run notices what changes meanwhile
    try:
        image, scale = read_scaled(root / name)
    except UserError as error:
        _delete(output / face)
        return Result(name, None, -1, str(error))
    settings = dataclasses.replace(settings, smallest_face=math.ceil(settings.smallest_face / scale))
    found, crops = cut_faces(image, settings, size=size)
    if not found:
        _delete(output / face)
        return Result(name, None, 0, f"{name}: no face was found", *state)
    largest = max(range(len(found)), key=lambda place: found[place].box.width)
    write_image(output / face, crops[largest])
    note = f"{name}: {len(found)} faces, the largest was taken" if len(found) > 1 else ""
    return Result(name, face, len(found), note, *state)


def _state_of(path: Path) -> tuple[int, int] | None:
    """When a file was modified, in nanoseconds, and its size in bytes; None if there is none."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size


def _delete(path: Path) -> None:
    with written(path):
        path.unlink(missing_ok=True)
