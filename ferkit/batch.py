"""Recognition of many pictures: in several processes, with a log that a later run continues.

with PictureLog("faces.csv", recognizer) as log:
    left = log.left(paths, {}, {})
    for answer in answers(recognizer, left, processes=2):
        log.write(answer)
"""

import contextlib
import csv
import dataclasses
import functools
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from io import FileIO, StringIO
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ferkit.errors import UserError
from ferkit.files import lock, open_file, place_for, written
from ferkit.interpreter import use_one_thread
from ferkit.processes import one_opencv_thread, parallel
from ferkit.recognition import Face, Recognizer, as_row
from ferkit.vision.albums import explanation_of
from ferkit.vision.boxes import Box
from ferkit.vision.pictures import STDIN, read_scaled

LOGS = (".csv", ".jsonl")
_FEWEST = 4  # pictures for which another process is worth its start
Finish = Callable[[str, np.ndarray, list[Face], list[np.ndarray]], None]

# Settings that change nothing of what is found in a picture.
_ELSEWHERE = {
    "show_confidence", "camera_source", "small_faces_in_video", "smoothing", "lost_face", "every",
    "empty_frames", "window", "show_chart", "show_frame_rate", "snapshot_folder",
}  # fmt: skip


def check_log(path: str | None, images: Sequence[str]) -> None:
    """Raises UserError when `path` has a suffix that no log has, and for a picture that no log can tell from others."""
    if path is None:
        return
    if Path(path).suffix.lower() not in LOGS:
        raise UserError(f"--log={path} has none of the suffixes {' '.join(LOGS)}")
    if not {*STDIN}.isdisjoint(images):
        raise UserError("standard input has no name for --log: save the picture as a file first, or leave out --log")


class Answer(NamedTuple):
    """What was found in one picture. The boxes are in pixels of the file, also if it was read scaled down."""

    path: str
    faces: list[Face] | None  # None: the picture could not be read
    seconds: float  # of recognition alone
    error: str | None  # why the picture could not be read, or what belongs to it could not be written


def answers(
    recognizer: Recognizer, paths: Sequence[str], processes: int, finish: Finish | None = None
) -> Generator[Answer, None, None]:
    """Reads and recognizes each picture, in this order. Each of several processes uses one core.

    Only this process has a standard input, so if that is among the pictures, this process does all.

    finish: is called with the path, image, faces and crops (48, 48) of each picture that can be read, in the process
    that read it. A UserError that it raises becomes the answer's error.
    """
    work = functools.partial(_answer, recognizer, finish)
    processes = min(processes, max(1, len(paths) // _FEWEST))
    if processes == 1 or not {*STDIN}.isdisjoint(paths):
        if paths:
            recognizer.warm_up()  # so that the seconds of the first picture are those of recognition alone
        yield from map(work, paths)
        return
    with one_opencv_thread():
        yield from parallel(work, paths, processes, prepare=functools.partial(_prepare, recognizer))


def _prepare(recognizer: Recognizer) -> None:
    """Begins one of several processes."""
    use_one_thread()
    recognizer.warm_up()


def _answer(recognizer: Recognizer, finish: Finish | None, path: str) -> Answer:
    faces, seconds = None, 0.0
    try:
        image, scale = read_scaled(path)
        if scale != 1:
            recognizer = recognizer.with_settings(smallest_face=math.ceil(recognizer.settings.smallest_face / scale))
        started = time.perf_counter()
        found, crops = recognizer.cut(image)
        inside = recognizer.classify(found, crops)
        seconds = time.perf_counter() - started
        faces = [dataclasses.replace(face, box=Box(*(round(side * scale) for side in face.box))) for face in inside]
        if finish is not None:
            finish(path, image, inside, crops)
    except UserError as error:
        return Answer(path, faces, seconds, str(error))
    return Answer(path, faces, seconds, None)


def as_json(answer: Answer, **more: str) -> str:
    """A picture's faces as one line of JSON; a box is x, y, width, height in pixels."""
    rows = [as_row(face) for face in answer.faces or []]
    return json.dumps({"image": answer.path, "seconds": round(answer.seconds, 4), "faces": rows, **more})


def made_with(recognizer: Recognizer) -> str:
    """Eight characters that stand for the model and for the settings that decide what is found in a picture."""
    settings = dataclasses.asdict(recognizer.settings)
    deciding = {name: value for name, value in settings.items() if name not in _ELSEWHERE}
    described = json.dumps([recognizer.model.facts, deciding], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:8]


class PictureLog:
    """A table of the faces in pictures: a CSV file with a row for each face, or one JSON object for each picture.

    A picture is added in one piece, so an interruption loses no picture that was added. A picture without a face has a
    row too. The names of the pictures become absolute, so that a run from another folder knows them; relative ones, of
    earlier versions, are taken as relative to the working directory. A log that exists is continued; an incomplete end,
    which a crash or a full disk can leave, is removed. Raises UserError for a file that is no such log, for the log of
    another model or other settings, and when another process is writing it.
    """

    def __init__(self, path: str | Path, recognizer: Recognizer):
        self.path = Path(path)
        self.faces = 0  # in all of its pictures
        self._done: dict[str, int] = {}  # the faces in its pictures, by their real paths
        self._made_with = made_with(recognizer)
        self._json = self.path.suffix.lower() == ".jsonl"
        face = ("face", "x", "y", "width", "height", "expression", "confidence", "score", *recognizer.expressions)
        self._columns = ("image", "faces", *face, "made_with")
        self._resources = contextlib.ExitStack()
        self._file: FileIO

    def __enter__(self) -> "PictureLog":
        with contextlib.ExitStack() as opened:
            place = place_for(self.path)
            if not opened.enter_context(lock(place)):
                raise UserError(f"another process is writing {self.path}: wait for it, or end it")
            with written(self.path):
                self._file = opened.enter_context(FileIO(place, "a"))
            end = self._read()
            self._file.truncate(end)
            if end == 0 and not self._json:
                self._append(_csv_line(self._columns))
            self._resources = opened.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._resources.close()

    def left(self, paths: Sequence[str], outputs: Mapping[str, Path], stems: Mapping[str, Path]) -> list[str]:
        """Those of `paths` that are not in the log, or whose annotated copy or explanations are missing.

        outputs, stems: see albums.output_paths and albums.explanation_stems.

        Raises UserError for a name that does not fit into a line of CSV.
        """
        broken = [path for path in paths if not self._json and ("\n" in path or "\r" in path)]
        if broken:
            raise UserError(f"{broken[0]!r} has a line break in its name: use a --log with the suffix .jsonl")
        return [path for path in paths if path not in self or self._lacks(outputs.get(path), stems.get(path), path)]

    def _lacks(self, copy: Path | None, stem: Path | None, path: str) -> bool:
        numbers = range(1, self._done[os.path.realpath(path)] + 1)
        wanted = [] if stem is None else [explanation_of(stem, number) for number in numbers]
        return not all(place.exists() for place in (*wanted, *([] if copy is None else [copy])))

    def __len__(self) -> int:
        return len(self._done)

    def __contains__(self, path: str) -> bool:
        return os.path.realpath(path) in self._done

    def write(self, answer: Answer) -> None:
        """Adds a picture, unless it is in the log already, or has an error, so that another run tries it again."""
        if answer.error is not None or answer.path in self:
            return
        answer = answer._replace(path=_absolute(answer.path))
        faces = answer.faces or []
        if self._json:
            self._append(as_json(answer, made_with=self._made_with).encode() + b"\n")
        else:
            rows = [[number, *_cells(face)] for number, face in enumerate(faces, 1)]
            rows = rows or [[""] * (len(self._columns) - 3)]
            self._append(b"".join(_csv_line([answer.path, len(faces), *row, self._made_with]) for row in rows))
        self._add(answer.path, len(faces))

    def _add(self, path: str, faces: int) -> None:
        self._done[os.path.realpath(path)] = faces
        self.faces += faces

    def _append(self, content: bytes) -> None:
        with written(self.path):
            while content:  # after an incomplete write, the next one raises what is wrong, such as a full disk
                content = content[self._file.write(content) :]

    def _read(self) -> int:
        """Reads what earlier runs wrote. Returns where the last whole picture ends, in bytes."""
        end = offset = 0
        opening = b'{"image": ' if self._json else _csv_line(self._columns)
        with open_file(self.path) as file:
            for number, line in enumerate(file, 1):
                offset += len(line)
                if number == 1 and line[: len(opening)] != opening[: len(line)]:
                    raise UserError(f"{self.path} is no log of this command with this model: name another --log")
                if not line.endswith(b"\n"):
                    break
                if number == 1 and not self._json:
                    end = offset
                    continue
                try:
                    path, faces, is_last, origin = self._parsed(line)
                except (ValueError, LookupError, TypeError) as error:
                    raise UserError(
                        f"line {number} of {self.path} is damaged: delete it, or name another --log"
                    ) from error
                if origin != self._made_with:
                    raise UserError(
                        f"{self.path} was made with another model or other settings: name another --log, or delete it"
                    )
                if is_last:
                    self._add(path, faces)
                    end = offset
        return end

    def _parsed(self, line: bytes) -> tuple[str, int, bool, str]:
        """A line's path, number of faces in the picture, whether it is the picture's last, and `made_with`."""
        if self._json:
            entry = json.loads(line)
            return entry["image"], len(entry["faces"]), True, entry["made_with"]
        row = next(csv.reader([line.decode(errors="surrogateescape")]))
        if len(row) != len(self._columns):
            raise ValueError("too few or too many columns")
        faces = int(row[1])
        return row[0], faces, faces == 0 or int(row[2]) == faces, row[-1]


def _absolute(path: str) -> str:
    """The path from the root. The file keeps its own name, also if it is a link."""
    folder, name = os.path.split(path)
    return path if os.path.isabs(path) else os.path.join(os.path.realpath(folder), name)


def _cells(face: Face) -> list[object]:
    """A face as the columns from x to the last expression."""
    numbers = (face.confidence, face.score, *face.probabilities.values())
    return [*face.box, face.expression, *(round(number, 4) for number in numbers)]


def _csv_line(row: Sequence[object]) -> bytes:
    line = StringIO()
    csv.writer(line, lineterminator="\n").writerow(row)
    return line.getvalue().encode(errors="surrogateescape")
