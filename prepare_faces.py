"""Finds the faces in photographs that lie in folders by class, and keeps each as a picture that conversion reads.

    python prepare_faces.py photos --output=my_faces
    python convert_fer2013_to_images_and_landmarks.py --input=my_faces --folder=my_features

The photographs lie as `photos/<class>/*.jpg`, or as `photos/train/<class>/*.jpg` beside `validation` and `test`.

Exit status: 0 when a face was found, 1 when none was found, 2 when a photograph cannot be read; 130 after Ctrl-C.
"""

if __name__ == "__main__":  # Ctrl-C ends the imports below without a traceback
    from ferkit.startup import begin

    begin()

import argparse
import sys
from collections.abc import Sequence

from ferkit.constants import IMAGE_SIZE
from ferkit.errors import UserError
from ferkit.flags import Parser, add_flags, add_processes, local_path, override, positive
from ferkit.processes import command, complain, ended_by_signals
from ferkit.settings import PREPARING, check
from parameters import VIDEO_PREDICTOR

LARGEST = 1024  # pixels: more than a face has in most photographs


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    from tqdm import tqdm  # here, so that a missing package gives a one-line error

    from ferkit.preparation import Preparation

    settings = override(VIDEO_PREDICTOR, arguments)
    check(settings)
    if not IMAGE_SIZE <= arguments.size <= LARGEST:
        raise UserError(f"--size={arguments.size} is not from {IMAGE_SIZE}, which networks see, to {LARGEST}")
    with ended_by_signals(), Preparation(arguments.photos, arguments.output, settings, arguments.size) as preparation:
        done = len(preparation.pictures) - len(preparation.left)
        run = preparation.run(arguments.processes)
        with tqdm(run, total=len(preparation.pictures), initial=done, unit="picture", disable=None) as bar:
            for result in bar:
                if result.note:
                    with bar.external_write_mode(sys.stderr):
                        complain(result.note, "error" if result.faces < 0 else "note")
        results = [preparation.results[name] for name in preparation.pictures]
        orphans = preparation.orphans
    faces = sum(result.face is not None for result in results)
    print(f"Faces in {arguments.output}: {faces} of {len(results)} photographs")
    reasons = {
        "several faces, of which the largest was taken": sum(result.faces > 1 for result in results),
        "no face was found": sum(result.faces == 0 for result in results),
        "not readable": (unreadable := sum(result.faces < 0 for result in results)),
        "no picture by its suffix": preparation.others,
    }
    for reason, count in reasons.items():
        if count:
            print(f"  {reason}: {count}")
    if orphans:
        complain(
            f"faces of photographs that are gone, to be deleted if unwanted: {len(orphans)}, {orphans[0]} first", "note"
        )
    return 2 if unreadable else 0 if faces else 1


def parser() -> argparse.ArgumentParser:
    """The command line of this script."""
    parser = Parser(description="Find the faces in photographs by class, and keep each as a picture for training.")
    parser.add_argument("photos", type=local_path, metavar="FOLDER", help="the photographs, as <class>/*.jpg")
    parser.add_argument(
        "--output", type=local_path, required=True, metavar="PATH", help="the folder of the faces; to go on, the same"
    )
    parser.add_argument(
        "--size",
        type=positive,
        default=IMAGE_SIZE,
        metavar="N",
        help="width and height of the faces, in pixels; networks see 48, more is for your eyes (default: 48)",
    )
    add_processes(parser)
    add_flags(parser, VIDEO_PREDICTOR, *PREPARING)
    return parser


if __name__ == "__main__":
    sys.exit(main())
