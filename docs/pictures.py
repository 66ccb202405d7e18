"""Makes pictures of the pages anew from portrait.jpg: recognized.jpg, explained.jpg and video.jpg.

python docs/pictures.py
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ferkit.explanation import Explainer, sheet
from ferkit.processes import command
from ferkit.recognition import Recognizer, label
from ferkit.vision.drawing import draw_faces
from ferkit.vision.pictures import read_image

DOCS = Path(__file__).resolve().parent


def parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(description="Make the pictures of the portrait anew.")


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser().parse_args(argv)
    recognizer, portrait = Recognizer("mixed"), read_image(DOCS / "portrait.jpg")
    found, (crop,) = recognizer.cut(portrait)
    (face,) = recognizer.classify(found, [crop])
    boxes, labels = [face.box], [label(face, True)]
    frame = portrait[: portrait.shape[1] * 3 // 4]
    pictures = {
        "recognized": draw_faces(portrait, boxes, labels),
        "explained": sheet(Explainer(recognizer.model, recognizer.features_of), face, crop),
        "video": draw_faces(frame, boxes, labels, [face.probabilities]),
    }
    for name, picture in pictures.items():
        cv2.imwrite(str(DOCS / f"{name}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return 0


if __name__ == "__main__":
    sys.exit(main())
