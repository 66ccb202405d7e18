"""How many faces each detector finds in labelled photographs of crowds, parties and streets.

    python benchmarks/benchmark_faces.py --pictures=WIDER_val/images --annotations=wider_face_val_bbx_gt.txt

The annotations are those of WIDER FACE (http://shuoyang1213.me/WIDERFACE): the name of a picture below FOLDER, the
number of its faces, and a line for each face. Pictures that are not there are left out, so that a part of the set will
do. Each picture is scaled to --side pixels.

Columns:
  8%, 4-8%, 2-4%  share of the annotated faces found, by the longer side of their box as a share of the picture's. A
                  face is found when the intersection of a find and its box is at least 0.4 of their union
  false           finds that have less than 0.2 in common with every annotated face, of all finds
  ms              time of one picture, median

With --turn=60 the pictures are turned by that angle. A face is then found when the centre of a find lies within a third
of its size, and the size of the find is between half and twice its own; smaller faces than 8% are left out.
With --faceless=PATH PATH, videos or folders of pictures without a face, the finds in them are counted. With --scene=24
each picture of a folder becomes a scene of 24 frames of 640×480 pixels, in a video of 10 frames a second: a camera
moves over it, nearer or farther, and turns by up to 10 degrees either way.
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ferkit.errors import UserError
from ferkit.markdown import table
from ferkit.processes import command
from ferkit.recognition import Face
from ferkit.video.source import Frame, open_video
from ferkit.video.tracking import Tracker
from ferkit.vision.albums import pictures
from ferkit.vision.boxes import overlaps
from ferkit.vision.detection import DETECTORS, find_faces
from ferkit.vision.pictures import read_image

SHARES = ((0.08, np.inf), (0.04, 0.08), (0.02, 0.04))
FOUND, FALSE = 0.4, 0.2  # intersection over union


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, metavar="FOLDER")
    parser.add_argument("--annotations", type=Path, metavar="FILE")
    parser.add_argument("--detectors", nargs="+", default=["auto", "blazeface", "libfacedetection", "haar"])
    parser.add_argument("--detector_model", default="", metavar="PATH", help="YuNet's file")
    parser.add_argument("--confidence", type=float, default=0.6)
    parser.add_argument("--small_faces", type=int, choices=(0, 1), nargs="+", default=[1, 0])
    parser.add_argument("--side", type=int, default=416, metavar="N", help="longer side of the pictures, in pixels")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every n-th picture")
    parser.add_argument("--turn", type=float, default=0.0, metavar="DEGREES")
    parser.add_argument("--faceless", nargs="*", default=[], metavar="PATH")
    parser.add_argument("--scene", type=int, default=0, metavar="N", help="make N frames of each faceless picture")
    arguments = parser.parse_args(argv)
    rows = []
    for detector in arguments.detectors:
        with_small = arguments.small_faces if "small_faces" in DETECTORS[detector].settings else [0]
        for small_faces in with_small:

            def find(image: np.ndarray, known: Sequence = (), detector=detector, small_faces=bool(small_faces)) -> list:
                return find_faces(image, detector, arguments.confidence, small_faces, known, arguments.detector_model)

            cells = [f"{detector}{', small faces' if small_faces else ''}"]
            if arguments.annotations:
                cells += measure(find, samples(arguments), arguments.side, bool(arguments.turn))
            cells += [finds_in(path, find, arguments.scene) for path in arguments.faceless]
            rows.append(cells)
    columns = ["detector"]
    if arguments.annotations:
        columns += ["8%"] if arguments.turn else ["8%", "4-8%", "2-4%"]
        columns += ["false", "ms"]
    print(table([*columns, *(Path(path).name for path in arguments.faceless)], rows))
    return 0


def annotations(path: Path) -> dict[str, np.ndarray]:
    """The rows of each picture's faces (N, 10): box, blur, expression, illumination, invalid, occlusion, pose."""
    faces: dict[str, list[list[float]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip().endswith((".jpg", ".png")):
            faces[(name := line.strip())] = []
        elif len(numbers := line.split()) == 10:
            faces[name].append([float(number) for number in numbers])
    return {name: np.reshape(rows, (-1, 10)) for name, rows in faces.items()}


def samples(arguments: argparse.Namespace) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Each picture, scaled and turned, with the boxes (N, 4) of its faces, and which of them count."""
    known = annotations(arguments.annotations)
    there = [name for name in known if (arguments.pictures / name).is_file()][:: arguments.every]
    if not there:
        raise UserError(f"none of the pictures of {arguments.annotations} is in {arguments.pictures}")
    for name in tqdm(there, unit="picture", leave=False):
        image = read_image(arguments.pictures / name)
        scale = arguments.side / max(image.shape[:2])
        size = round(image.shape[1] * scale), round(image.shape[0] * scale)
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        boxes, counts = known[name][:, :4] * scale, known[name][:, 7] == 0
        if arguments.turn:
            image, boxes = turned(image, boxes, arguments.turn)
            counts &= boxes[:, 2:].max(axis=1) >= SHARES[0][0] * arguments.side
        yield image, boxes, counts


def turned(image: np.ndarray, boxes: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """The whole image turned about its middle on black, and squares in place of the boxes; all scaled to its size."""
    height, width = image.shape[:2]
    longer, diagonal = max(height, width), np.hypot(height, width)
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, longer / diagonal)
    turn[:, 2] += longer / 2 - np.array([width, height]) / 2
    middles = (boxes[:, :2] + boxes[:, 2:] / 2) @ turn[:, :2].T + turn[:, 2]
    sides = np.sqrt(boxes[:, 2:].prod(axis=1, keepdims=True)) * longer / diagonal
    return cv2.warpAffine(image, turn, (longer, longer)), np.hstack([middles - sides / 2, sides, sides])


def measure(find, pictures: Iterator, side: int, loosely: bool) -> list[str]:
    """The detector's cells of the table."""
    hits: list[list[bool]] = [[] for _ in SHARES]
    finds = false = 0
    times = []
    for image, truth, counts in pictures:
        started = time.perf_counter()
        boxes = np.reshape([face.box for face in find(image)], (-1, 4)).astype(float)
        times.append(time.perf_counter() - started)
        shared = np.reshape([overlaps(box, truth) for box in boxes], (len(boxes), len(truth)))
        pairs = matched(fits(boxes, truth) if loosely else np.where(shared >= FOUND, shared, 0))
        for index, share in enumerate(truth[:, 2:].max(axis=1) / side if len(truth) else ()):
            for column, (low, high) in zip(hits, SHARES, strict=True):
                if counts[index] and (low <= share < high or (loosely and column is hits[0])):
                    column.append(index in pairs)
        finds += len(boxes)
        lonely = np.ones(len(boxes), bool) if not len(truth) else shared.max(axis=1, initial=0) < FALSE
        lonely[list(pairs.values())] = False
        false += int(lonely.sum())
    recalls = [f"{np.mean(column):.3f} ({len(column)})" for column in hits if column]
    return [*recalls, f"{false} / {finds} ({false / max(1, finds):.1%})", f"{1000 * np.median(times):.0f}"]


def fits(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """1 where a find fits a face of a turned picture, else 0: (finds, faces)."""
    apart = boxes[:, None, :2] + boxes[:, None, 2:] / 2 - truth[None, :, :2] - truth[None, :, 2:] / 2
    ratio = boxes[:, None, 2] / truth[None, :, 2]
    return ((np.abs(apart).max(axis=2) < truth[None, :, 2] / 3) & (ratio > 0.5) & (ratio < 2)).astype(float)


def matched(values: np.ndarray) -> dict[int, int]:
    """The find of each found face: the pairs of the greatest values above 0, each find and face once."""
    pairs: dict[int, int] = {}
    for place in np.argsort(-values, axis=None, kind="stable"):
        find, face = np.unravel_index(place, values.shape)
        if values[find, face] <= 0:
            break
        if face not in pairs and find not in pairs.values():
            pairs[int(face)] = int(find)
    return pairs


def finds_in(path: str, find, scene: int) -> str:
    """The finds in the frames of a video, or of scenes made from pictures, or in the pictures of a folder."""
    if Path(path).is_dir() and not scene:
        return str(sum(len(find(read_image(picture))) for picture in pictures(path)))
    tracker, count, total = Tracker(0, 0.5), 0, 0
    with open_video(path) if not Path(path).is_dir() else contextlib.nullcontext(scenes(path, scene)) as video:
        for frame in tqdm(video, unit="frame", leave=False):
            faces = find(frame.image, tracker.expected(frame))
            count, total = count + len(faces), total + 1
            tracker.update(frame, [Face.of(face.box, {"": 1.0}) for face in faces])
    return f"{count} of {tracker.count} faces in {total} frames"


def scenes(folder: str, frames: int) -> Iterator[Frame]:
    """A video of the pictures in a folder: the camera moves from one random place of each picture to another."""
    random, number = np.random.default_rng(0), 0
    for path in pictures(folder):
        image = read_image(path)
        height, width = image.shape[:2]
        ends = []
        for _ in range(2):
            side = min(width, height * 4 / 3) * random.uniform(0.4, 1)
            x, y = random.uniform(side / 2, width - side / 2), random.uniform(side * 3 / 8, height - side * 3 / 8)
            ends.append(np.array([x, y, side, random.uniform(-10, 10)]))
        for share in np.linspace(0, 1, frames):
            x, y, side, angle = (1 - share) * ends[0] + share * ends[1]
            move = cv2.getRotationMatrix2D((x, y), angle, 640 / side)
            move[:, 2] += (320 - x, 240 - y)
            still = cv2.warpAffine(image, move, (640, 480), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
            yield Frame(number, number / 10, still, 0.0)
            number += 1


if __name__ == "__main__":
    sys.exit(main())
