"""How faces are to be cropped: where FER2013's crops lie around each detector's box, and what recognition makes of it.

    python benchmarks/benchmark_framing.py --fer2013=fer2013.csv --photos jaffe news

The first table enlarges FER2013's faces, with a border around them, and gives the median and the quartiles of where the
original crop lies around the box that a detector finds. The others cut the largest face of each labelled photograph
(`<set>/<expression>/<picture>`, as for benchmark_photographs.py) in several ways, and give the accuracy of the model:
tighter, turned with and without levelling, and dark with and without a stretch of the contrast. Some minutes.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pandas as pd
from benchmark_photographs import NAMES
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ferkit.constants import EMOTIONS
from ferkit.markdown import table
from ferkit.processes import command
from ferkit.recognition import Recognizer
from ferkit.vision import cropping
from ferkit.vision.albums import pictures
from ferkit.vision.boxes import Box
from ferkit.vision.cropping import crop_face
from ferkit.vision.detection import DETECTORS, TIGHTER, Found
from ferkit.vision.pictures import read_image, shrunk

SIDE, BORDER = 160, 96  # of the enlarged faces, in pixels
TILTS = (0, 10, 20, 30, 45, 60)  # degrees
BRIGHTNESSES = (1.0, 0.3, 0.1)


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fer2013", type=Path, metavar="CSV")
    parser.add_argument("--photos", type=Path, nargs="*", default=[], metavar="FOLDER", help="<expression>/<picture>")
    parser.add_argument("--most", type=int, default=30, metavar="N", help="pictures of each expression of a set")
    parser.add_argument("--model_path", default="ferplus")
    arguments = parser.parse_args(argv)
    if arguments.fer2013:
        pixels = pd.read_csv(arguments.fer2013, usecols=["pixels"], nrows=12000).pixels[::40]
        faces = np.stack([np.array(row.split(), np.uint8).reshape(48, 48) for row in pixels])
        names = ("blazeface", "libfacedetection", "haar")
        rows = [[name, *geometry(name, faces[faces.std(axis=(1, 2)) > 5])] for name in names]
        print(table(["detector", "found", "side / longer side", "right / width", "down / height"], rows), "\n")
    if arguments.photos:
        recognizer = Recognizer(arguments.model_path)
        samples = [sample for folder in arguments.photos for sample in faces_of(folder, arguments.most, recognizer)]
        print(f"{len(samples)} photographs with a face")
        for heads, rows in tables(recognizer, samples):
            print(table(heads, rows), "\n", flush=True)
    return 0


def geometry(name: str, stack: np.ndarray) -> list[str]:
    """Share of FER2013's faces (N, 48, 48) found, and where their crops lie around the boxes of a detector."""
    settings = {"confidence": 0.6, "small_faces": False}
    rows = []
    for mode in (cv2.BORDER_REPLICATE, cv2.BORDER_CONSTANT):
        for face in stack:
            enlarged = cv2.resize(face, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
            around = cv2.copyMakeBorder(enlarged, *[BORDER] * 4, mode, value=int(face.mean()))
            find, wanted = DETECTORS[name].find, DETECTORS[name].settings
            found = find(cv2.cvtColor(around, cv2.COLOR_GRAY2BGR), **{key: settings[key] for key in wanted})
            middle = BORDER + SIDE / 2
            for x, y, width, height in found[:, :4]:
                right, down = middle - x - width / 2, middle - y - height / 2
                if max(abs(right), abs(down)) < 0.35 * SIDE and 0.4 < max(width, height) / SIDE < 2:
                    rows.append((SIDE / max(width, height), right / width, down / height))
                    break
    low, median, high = np.percentile(rows, (25, 50, 75), axis=0)
    spread = [f"{median[i]:+.3f} ({low[i]:+.3f} to {high[i]:+.3f})" for i in range(3)]
    return [f"{len(rows) / 2 / len(stack):.0%}", *spread]


def faces_of(folder: Path, most: int, recognizer: Recognizer) -> list[tuple[np.ndarray, Found, int]]:
    """A grey image, its largest face, and the face's label, of each picture with a face."""
    labels = {name: EMOTIONS.index(expression) for expression, names in NAMES.items() for name in names}
    samples = []
    for inside in sorted(path for path in folder.iterdir() if path.name.lower() in labels):
        paths = pictures(str(inside))
        for path in tqdm(paths[:: max(1, len(paths) // most)][:most], desc=str(inside), leave=False):
            image = shrunk(read_image(path), 640)
            if found := recognizer.find(image):
                largest = max(found, key=lambda face: face.box.width)
                samples.append((cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), largest, labels[inside.name.lower()]))
    return samples


def tables(recognizer: Recognizer, samples: Sequence):
    """Heads and rows of each table of accuracies."""
    truth = np.array([label for _, _, label in samples])

    def accuracy(side: float = TIGHTER, down: float = 0.0, tilt: float = 0.0, brightness: float = 1.0) -> str:
        crops = []
        for image, face, _ in samples:
            x, y, width, _ = face.box
            new = round(width * side / TIGHTER)
            middle = x + width / 2, y + width / 2 + down * width
            box = Box(round(middle[0] - new / 2), round(middle[1] - new / 2), new, new)
            dark = image if brightness == 1 else np.rint(image * brightness).astype(np.uint8)
            crops.append(crop_face(dark, box, tilt=tilt))
        answers = recognizer.classify([face for _, face, _ in samples], crops)
        right = np.array([EMOTIONS.index(face.expression) for face in answers]) == truth
        return f"{right.mean():.1%}"

    downs = (-0.04, 0.0, 0.04)
    sides = [[f"{side:.2f}", *(accuracy(side, down) for down in downs)] for side in (0.75, 0.8, 0.85, 0.9, 1.0, 1.1)]
    yield ["side, FER2013's is 1", *(f"moved down by {down:+.2f}" for down in downs)], sides
    with mock.patch.object(cropping, "LEVELLED_FROM", 0.01):
        turned = [[f"{tilt}°", accuracy(tilt=tilt), accuracy(tilt=-tilt)] for tilt in TILTS]
    yield ["turned by", "to the left", "to the right"], turned
    rows = []
    for brightness in BRIGHTNESSES:
        row = [f"{brightness:.0%}"]
        for low in (0, 40, 60, 100, 256):
            with mock.patch.object(cropping, "_LOW_CONTRAST", low):
                row.append(accuracy(brightness=brightness))
        rows.append(row)
    yield ["brightness", *(f"stretched below {low} grey levels" for low in (0, 40, 60, 100, 256))], rows


if __name__ == "__main__":
    sys.exit(main())
