"""Recognizes the expression of every face in live video or in a video file.

    python predict-from-video.py                                    # the camera, in a window
    python predict-from-video.py --source=party.mp4 --show_chart
    python predict-from-video.py --source=party.mp4 --window=no --output=annotated.mp4 --log=faces.csv
    python predict-from-video.py --source=party.mp4 --window=no --every=5 --report=page.html

Keys in the window: q or Escape ends the program, s saves a snapshot, the space bar pauses. Closing the window also ends
the program.
Exit status: 0 at the end of a file or when the user ends the program; 2 when something cannot be read or written, and
when a camera or a stream ends; 130 after Ctrl-C; 143 after SIGTERM. Recordings up to that point are kept.
"""

if __name__ == "__main__":  # Ctrl-C ends the imports below without a traceback
    from ferkit.startup import begin

    begin()

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from ferkit.flags import Parser, add_flags, local_path, override, path_or_address
from ferkit.model_flags import add_model_flags, recognizer_of
from ferkit.processes import command, complain, ended_by_signals, quiet_libraries
from ferkit.settings import check
from parameters import DATASET, TRAINING, VIDEO_PREDICTOR


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    from tqdm import tqdm

    from ferkit.video.live import Live, check_outputs, in_video
    from ferkit.video.recording import FaceLog, Recorder
    from ferkit.video.report import Report
    from ferkit.video.source import Reader, open_video
    from ferkit.video.window import Display, Window
    from ferkit.vision import drawing

    settings = in_video(override(VIDEO_PREDICTOR, arguments))
    source = str(settings.camera_source) if arguments.source is None else arguments.source
    check(settings)
    check_outputs(settings, source, arguments.output, arguments.log, arguments.report)
    with ended_by_signals(), quiet_libraries(), contextlib.ExitStack() as stack:
        display = stack.enter_context(Display()) if settings.window else None
        video = stack.enter_context(open_video(source))
        recognizer = recognizer_of(arguments, settings, DATASET, TRAINING)
        for note in drawing.notes(recognizer.expressions) if settings.window or arguments.output is not None else ():
            complain(note, "note")
        recognizer.warm_up()
        if display is not None:
            display.check()
        live = Live(recognizer, settings, stack.enter_context(Reader(video)))
        if display is not None:
            live.window = stack.enter_context(Window(Path(__file__).name))
        else:
            live.progress = stack.enter_context(tqdm(total=video.length, unit="frame"))
        if arguments.output is not None:
            live.recorder = stack.enter_context(Recorder(arguments.output, video.rate, video.live, video.sound()))
        if arguments.log is not None:
            live.log = stack.enter_context(FaceLog(arguments.log, recognizer.expressions, settings.empty_frames))
        if arguments.report is not None:
            live.report = stack.enter_context(Report(arguments.report, video.name, recognizer.expressions))
        live.run()
    print(live.summary())
    if video.damaged:
        frames = "frame" if video.damaged == 1 else "frames"
        print(f"{video.damaged} {frames} of {video.name} could not be decoded", file=sys.stderr)
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line of this script."""
    from ferkit.video.recording import CODECS, LOGS

    parser = Parser(description="Recognize the expression of every face in a video, live.")
    camera = VIDEO_PREDICTOR.camera_source
    parser.add_argument(
        "--source",
        type=path_or_address,
        metavar="N|PATH|URL",
        help=f"a camera's number, a video, pictures like frames/%%04d.png, a stream (default: {camera})",
    )
    parser.add_argument(
        "--output", type=local_path, metavar="PATH", help=f"write the annotated video to this file: {', '.join(CODECS)}"
    )
    parser.add_argument(
        "--log",
        type=local_path,
        metavar="PATH",
        help=f"write a table with a row for each face in each frame: {', '.join(LOGS)}",
    )
    parser.add_argument(
        "--report",
        type=local_path,
        metavar="PATH",
        help="write a page about each face's expressions over time to this file: .html",
    )
    add_model_flags(parser, DATASET, TRAINING)
    shown = ("window", "show_confidence", "show_chart", "show_frame_rate", "smoothing", "lost_face", "detector")
    found = ("detector_model", "detection_confidence", "small_faces_in_video", "smallest_face", "most_faces", "margin")
    add_flags(parser, VIDEO_PREDICTOR, "every", "empty_frames", *shown, *found)
    add_flags(parser, VIDEO_PREDICTOR, "test_time_augmentation", "balance", "snapshot_folder")
    return parser


if __name__ == "__main__":
    sys.exit(main())
