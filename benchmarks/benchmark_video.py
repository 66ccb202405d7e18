"""Measures the speed of video recognition, the time of each stage, and the age of the pictures when they are shown.

python benchmarks/benchmark_video.py --model_path=best_model/saved_model.bin
python benchmarks/benchmark_video.py --model_path=best_model/saved_model.bin --source=party.mp4

Without --source, the video is a drawn face that moves on 640×480 pixels. First, the faces of every frame are found,
recognized, drawn and written. Then a simulated camera gives the same pictures, 30 per second, which appear in a window
if there is a display (xvfb-run provides one). The age of a picture is measured when the window has it.
"""

import argparse
import math
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ferkit import recognition
from ferkit.data.drawn_faces import draw_photo
from ferkit.flags import override
from ferkit.model_flags import add_model_flags, recognizer_of
from ferkit.processes import command, quiet_libraries
from ferkit.recognition import Recognizer
from ferkit.video.live import Live, in_video
from ferkit.video.recording import Recorder
from ferkit.video.source import Frame, Reader, open_video
from ferkit.video.window import Window
from parameters import DATASET, TRAINING, VIDEO_PREDICTOR

ROOT = Path(__file__).resolve().parent.parent
LIVE_RATE = 30  # frames per second
STAGES = ("read", "detect", "crop", "features", "network", "track", "draw", "show", "write")


class Stopwatch:
    """The time of each call of each stage, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def watch(self, owner: object, method: str, stage: str) -> None:
        """From now on, measures every call of `owner.method`."""
        work: Callable = getattr(owner, method)

        def timed(*arguments: object, **named: object) -> object:
            started = time.perf_counter()
            try:
                return work(*arguments, **named)
            finally:
                self.seconds[stage].append(time.perf_counter() - started)

        setattr(owner, method, timed)

    def table(self, frames: int, seconds: float) -> str:
        """A line for each stage: milliseconds per frame, and share of the total time."""
        spent = {stage: sum(self.seconds[stage]) for stage in STAGES if self.seconds[stage]}
        spent["the rest"] = seconds - sum(spent.values())
        lines = [
            f"  {stage:9} {1000 * total / frames:6.2f} ms  {total / seconds:4.0%}" for stage, total in spent.items()
        ]
        return "\n".join(lines)


class Camera:
    """A simulated camera: it repeats the pictures, LIVE_RATE per second, even if nobody reads them."""

    live = True

    def __init__(self, pictures: list[np.ndarray], seconds: float):
        self.pictures = pictures
        self.seconds = seconds

    def __iter__(self) -> Iterator[Frame]:
        started = time.monotonic()
        for number in range(int(self.seconds * LIVE_RATE)):
            due = started + number / LIVE_RATE
            time.sleep(max(0.0, due - time.monotonic()))
            picture = self.pictures[number % len(self.pictures)].copy()
            yield Frame(number, due - started, picture, due)


def write_drawn(path: Path, frames: int) -> None:
    """Writes a video of one drawn person on 640×480 pixels, with 30 frames per second."""
    photo = draw_photo((3,), np.random.default_rng(5), height=540, width=760)[0]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), LIVE_RATE, (640, 480))
    for number in range(frames):
        phase = 2 * math.pi * number / 90
        x, y = round(60 + 60 * math.sin(phase)), round(30 + 30 * math.cos(2 * phase))
        writer.write(np.ascontiguousarray(photo[y : y + 480, x : x + 640]))
    writer.release()


def measure_file(recognizer: Recognizer, settings, source: str, output: Path) -> None:
    """Prints the speed of recognition for a file, and the share of each stage."""
    with open_video(source) as video:
        started = time.perf_counter()
        count = sum(1 for _ in video)
        print(f"Reading alone, which has a thread of its own: {1000 * (time.perf_counter() - started) / count:.2f} ms")
    watch = Stopwatch()
    with open_video(source) as video, Reader(video) as reader, Recorder(output, video.rate) as recorder:
        live = Live(recognizer, settings, reader)
        live.recorder = recorder
        watch.watch(reader, "take", "read")
        watch.watch(recognition, "find_faces", "detect")
        watch.watch(recognition, "crop_face", "crop")
        watch.watch(recognizer, "features_of", "features")
        watch.watch(recognizer.model, "predict", "network")
        watch.watch(live.tracker, "update", "track")
        watch.watch(live, "draw", "draw")
        watch.watch(recorder, "write", "write")
        started = time.perf_counter()
        live.run()
        seconds = time.perf_counter() - started
    print(live.summary())
    print(watch.table(count, seconds))
    for owner, method in ((recognizer, "features_of"), (recognizer.model, "predict")):
        delattr(owner, method)  # restores the method of the class


def measure_live(recognizer: Recognizer, settings, source: str, seconds: float) -> None:
    """Prints the age of the pictures of a simulated camera when they are shown."""
    with open_video(source) as video:
        pictures = [frame.image for frame, _ in zip(video, range(90), strict=False)]
    ages: list[float] = []
    with Reader(Camera(pictures, seconds)) as reader:
        live = Live(recognizer, settings, reader)
        seen: list[Frame] = []
        process = live.process

        def processed(frame: Frame) -> None:
            process(frame)
            seen.append(frame)
            if live.window is not None:
                live.window.key(0)  # the picture appears
            ages.append(time.monotonic() - frame.read_at)

        live.process = processed
        shown = "drawn, there is no display"
        if os.environ.get("DISPLAY"):
            with Window("benchmark") as live.window:
                live.run()
            shown = "shown"
        else:
            live.run()
    milliseconds = 1000 * np.array(ages[LIVE_RATE:])  # without the first second, in which the window opens
    middle, high, highest = np.percentile(milliseconds, (50, 95, 100))
    print(f"From a camera, {LIVE_RATE} a second: {live.summary()}")
    print(f"Age of a picture when {shown}: median {middle:.0f} ms, 95th percentile {high:.0f}, {highest:.0f} at most")


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Time recognition in video.")
    add_model_flags(parser, DATASET, TRAINING)
    parser.add_argument("--source", metavar="PATH", help="a video; without it, one is drawn")
    parser.add_argument("--frames", type=int, default=300, metavar="N", help="of the drawn video (default: 300)")
    parser.add_argument("--seconds", type=float, default=10, metavar="X", help="of the camera (default: 10)")
    arguments = parser.parse_args(argv)
    settings = override(VIDEO_PREDICTOR, arguments)
    with tempfile.TemporaryDirectory() as folder, quiet_libraries():
        source = arguments.source or str(Path(folder) / "drawn.mp4")
        if arguments.source is None:
            write_drawn(Path(source), arguments.frames)
        recognizer = recognizer_of(arguments, in_video(settings), DATASET, TRAINING)
        recognizer.warm_up()
        print(f"Model: features {recognizer.model.features}")
        measure_file(recognizer, settings, source, Path(folder) / "annotated.mp4")
        measure_live(recognizer, settings, source, arguments.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
