"""Recognizes the expression of every face in a picture.

    python predict.py --image photo.jpg
    python predict.py --image photo.jpg --output annotated.jpg
    python predict.py --image holidays/ portrait.png --json
    python predict.py --image photo.jpg --explain=explained/
    python predict.py --image holidays/ --log=faces.csv  # started again, it goes on where it was ended

Exit status: 0 when a face was found, 1 when no face was found, 2 when a picture or the model cannot be read;
130 after Ctrl-C; 143 after SIGTERM.
"""

if __name__ == "__main__":  # Ctrl-C ends the imports below without a traceback
    from ferkit.startup import begin

    begin()

import argparse
import contextlib
import functools
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ferkit.errors import UserError
from ferkit.flags import Parser, add_flags, add_processes, add_yes_no, local_path, override, path_or_address
from ferkit.model_flags import add_model_flags, recognizer_of
from ferkit.processes import command, complain, ended_by_signals
from ferkit.settings import check
from parameters import DATASET, TRAINING, VIDEO_PREDICTOR

if TYPE_CHECKING:
    import numpy as np

    from ferkit.batch import Answer, PictureLog
    from ferkit.recognition import Face, Recognizer


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    from tqdm import tqdm  # here, so that a missing package gives a one-line error

    from ferkit.batch import PictureLog, answers, as_json, check_log
    from ferkit.vision.albums import each_once, explanation_stems, notes, output_paths, pictures

    settings = override(VIDEO_PREDICTOR, arguments)
    check(settings)
    check_log(arguments.log, arguments.image)
    failed = found = False
    albums: dict[str, list[str]] = {}
    for given in arguments.image:
        try:
            albums[given] = pictures(given)
        except UserError as error:
            complain(error)
            failed = True
    paths = each_once(path for album in albums.values() for path in album)
    outputs = output_paths(albums, paths, arguments.output)
    for note in notes(albums):
        complain(note, "note")
    recognizer = recognizer_of(arguments, settings, DATASET, TRAINING)
    stems = explanation_stems(albums, paths, arguments.explain)
    if outputs or stems:
        from ferkit.vision import drawing

        for note in drawing.notes(recognizer.expressions):
            complain(note, "note")
    finish = functools.partial(write_pictures, outputs, settings.show_confidence, stems, recognizer)
    with ended_by_signals(), contextlib.ExitStack() as stack:
        log = stack.enter_context(PictureLog(arguments.log, recognizer)) if arguments.log is not None else None
        left = paths if log is None else log.left(paths, outputs, stems)
        found = log is not None and log.faces > 0
        run = stack.enter_context(contextlib.closing(answers(recognizer, left, arguments.processes, finish)))
        done = len(paths) - len(left)
        bar = tqdm(run, total=len(paths), initial=done, unit="picture", disable=True if log is None else None)
        started, errors = time.monotonic(), 0
        for answer in bar:
            if answer.error is not None:
                with bar.external_write_mode(sys.stderr):
                    complain(answer.error)
                errors += 1
            if log is not None:
                log.write(answer)
            elif answer.faces is not None:
                print(as_json(answer) if arguments.json else as_text(answer, several=len(paths) > 1), flush=True)
            found = found or bool(answer.faces)
        if log is not None:
            print(summary(log, len(left) - errors, time.monotonic() - started))
    return 2 if failed or errors else 0 if found else 1


def parser() -> argparse.ArgumentParser:
    """The command line of this script."""
    parser = Parser(description="Recognize the expression of every face in a picture.")
    parser.add_argument(
        "--image",
        action="extend",
        nargs="+",
        required=True,
        type=path_or_address,
        metavar="PATH",
        help="pictures, folders of pictures, - for standard input",
    )
    parser.add_argument(
        "--output",
        type=local_path,
        metavar="PATH",
        help="write the annotated picture to this file; with several pictures, to this folder",
    )
    parser.add_argument(
        "--explain",
        type=local_path,
        metavar="FOLDER",
        help="write what the network saw of each face, and which parts of it decided, to this folder",
    )
    told = parser.add_mutually_exclusive_group()
    add_yes_no(told, "--json", default=False, help="print one line of JSON for each picture instead of text")
    told.add_argument(
        "--log",
        type=local_path,
        metavar="PATH",
        help="print nothing, but write a table to this file, .csv or .jsonl; pictures that are in it already are not "
        "recognized again",
    )
    add_processes(parser)
    add_model_flags(parser, DATASET, TRAINING)
    found = ("detector", "detector_model", "detection_confidence", "small_faces", "smallest_face", "most_faces")
    add_flags(parser, VIDEO_PREDICTOR, *found, "margin", "test_time_augmentation", "balance", "show_confidence")
    return parser


def write_pictures(
    outputs: Mapping[str, Path],
    show_confidence: bool,
    stems: Mapping[str, Path],
    recognizer: "Recognizer",
    path: str,
    image: "np.ndarray",
    faces: Sequence["Face"],
    crops: Sequence["np.ndarray"],
) -> None:
    """Writes the annotated copy of a picture, and the explanations of its faces, where these are asked for."""
    from ferkit.recognition import label
    from ferkit.vision.drawing import draw_faces
    from ferkit.vision.pictures import write_image

    if path in outputs:
        labels = [label(face, show_confidence) for face in faces]
        write_image(outputs[path], draw_faces(image, [face.box for face in faces], labels))
    if path in stems and faces:
        from ferkit.explanation import write_explanations

        write_explanations(stems[path], recognizer, faces, crops)


def summary(log: "PictureLog", recognized: int, seconds: float) -> str:
    """The result in one line: `Pictures recognized: 580 (35.2 per second); in faces.csv: 1000 (faces: 1287)`."""
    rate = f" ({recognized / seconds:.1f} per second)" if recognized else ""
    return f"Pictures recognized: {recognized}{rate}; in {log.path}: {len(log)} (faces: {log.faces})"


def as_text(answer: "Answer", several: bool) -> str:
    """A picture's faces as text: with boxes if there are several faces, with the path if there are several pictures."""
    faces = answer.faces or []
    lines = [f"{answer.path}:"] if several else []
    if not faces:
        lines.append("No face found")
    for face in faces:
        box = face.box
        where = f" at x={box.x} y={box.y} width={box.width} height={box.height}" if len(faces) > 1 else ""
        lines.append(f"Prediction: {face.expression} (confidence: {face.confidence:.1%}){where}")
    lines.append(f"Time: {answer.seconds:.3f} s")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
