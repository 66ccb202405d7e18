"""A small dataset of drawn faces, laid out like FER2013, for the demonstration and the tests.

    python -m ferkit.data.drawn_faces --output=demo/fer2013.csv --training=2000 --public_test=300 --seed=0
    python -m ferkit.data.drawn_faces --photo=demo/photo.png

Every face is drawn from numbers: the person (`Person`), the expression (`Look`), the light and the pose. A network can
learn the expressions and a face detector can find the faces, without photographs of real people.

Positions are in face units: the 48×48 crop is the square from -1 to 1, x to the right and y downwards.
"""

if __name__ == "__main__":  # Ctrl-C ends the imports below without a traceback
    from ferkit.startup import begin

    begin()

import argparse
import csv
import dataclasses
import functools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ferkit.constants import EMOTIONS, IMAGE_SIZE, SPLITS
from ferkit.errors import UserError
from ferkit.files import whole_file
from ferkit.flags import Parser, local_path, not_negative
from ferkit.processes import command

OVERSAMPLING = 4  # a crop is drawn this many times larger, then shrunk, which smooths its edges
PHOTO_OVERSAMPLING = 2
SHIFT = 4  # fractional bits of OpenCV's fixed-point coordinates
SHADE_REACH, SHADE_SIZE = 1.7, 96  # the shading covers -SHADE_REACH to SHADE_REACH with SHADE_SIZE² values
SKULL = 1.38  # height of the head above its widest line
GREY = np.array([0.114, 0.587, 0.299])  # weights of blue, green and red

Colour = np.ndarray  # blue, green, red: 0 to 255


@dataclass(frozen=True)
class Look:
    """The features of an expression. The defaults are a neutral face; lengths are in face units."""

    brow_inner: float = 0.0  # how far the brows' inner ends are raised
    brow_outer: float = 0.0  # how far their outer ends are raised
    brow_arch: float = 0.035  # how far their middles stand above the straight line
    brow_pinch: float = 0.0  # how far the inner ends are drawn together
    eye_open: float = 1.0  # height of the upper lid, relative
    lower_lid: float = 0.0  # share of the lower half of the eye that the cheek covers
    eye_droop: float = 0.0  # how far the outer corners of the eyes hang
    mouth_width: float = 0.34  # half the width
    mouth_corner: float = 0.0  # how far the corners are raised
    mouth_upper: float = 0.0  # opening above the line between the corners
    mouth_lower: float = 0.0  # opening below that line
    mouth_square: float = 0.0  # 0: the opening narrows evenly to the corners; 1: nearly a rectangle
    lips: float = 1.0  # thickness, relative
    teeth: float = 0.0  # share of the opening that the upper teeth fill
    folds: float = 0.15  # depth of the folds from nose to mouth
    frown: float = 0.0  # depth of the folds between the brows
    wrinkles: float = 0.0  # depth of the wrinkles across the nose's root
    forehead: float = 0.0  # depth of the wrinkles across the forehead


NEUTRAL = Look()
JITTER = Look(  # standard deviation of each length from face to face
    brow_inner=0.018,
    brow_outer=0.018,
    brow_arch=0.012,
    brow_pinch=0.012,
    eye_open=0.09,
    lower_lid=0.06,
    eye_droop=0.01,
    mouth_width=0.022,
    mouth_corner=0.014,
    mouth_upper=0.006,
    mouth_lower=0.008,
    mouth_square=0.05,
    lips=0.08,
    teeth=0.06,
    folds=0.06,
    frown=0.05,
    wrinkles=0.05,
    forehead=0.05,
)
LOOKS: dict[str, tuple[Look, ...]] = {  # the variants of each expression, equally likely
    "Angry": (
        Look(
            brow_inner=-0.13,
            brow_outer=0.04,
            brow_arch=0.0,
            brow_pinch=0.07,
            eye_open=0.75,
            lower_lid=0.3,
            eye_droop=-0.02,
            mouth_width=0.3,
            mouth_corner=-0.05,
            lips=0.55,
            folds=0.35,
            frown=1.0,
            wrinkles=0.2,
        ),
        Look(
            brow_inner=-0.13,
            brow_outer=0.05,
            brow_arch=0.0,
            brow_pinch=0.07,
            eye_open=0.95,
            lower_lid=0.3,
            eye_droop=-0.02,
            mouth_width=0.32,
            mouth_corner=-0.05,
            mouth_upper=0.05,
            mouth_lower=0.07,
            mouth_square=0.8,
            lips=0.7,
            teeth=0.95,
            folds=0.6,
            frown=1.0,
            wrinkles=0.4,
        ),
    ),
    "Disgust": (
        Look(
            brow_inner=-0.09,
            brow_outer=-0.04,
            brow_arch=0.01,
            brow_pinch=0.04,
            eye_open=0.5,
            lower_lid=0.6,
            mouth_width=0.28,
            mouth_corner=-0.07,
            mouth_upper=0.05,
            lips=0.9,
            teeth=0.8,
            folds=1.0,
            frown=0.4,
            wrinkles=1.0,
        ),
        Look(
            brow_inner=-0.07,
            brow_outer=-0.04,
            brow_arch=0.02,
            brow_pinch=0.03,
            eye_open=0.45,
            lower_lid=0.7,
            mouth_width=0.3,
            mouth_corner=-0.1,
            mouth_upper=0.08,
            mouth_lower=0.01,
            mouth_square=0.2,
            lips=1.1,
            teeth=0.6,
            folds=1.0,
            frown=0.3,
            wrinkles=1.0,
        ),
    ),
    "Fear": (
        Look(
            brow_inner=0.13,
            brow_outer=0.02,
            brow_arch=0.0,
            brow_pinch=0.05,
            eye_open=1.55,
            eye_droop=0.01,
            mouth_width=0.36,
            mouth_corner=-0.05,
            mouth_upper=0.04,
            mouth_lower=0.08,
            mouth_square=0.7,
            lips=0.8,
            teeth=0.4,
            folds=0.3,
            frown=0.4,
            forehead=0.8,
        ),
        Look(
            brow_inner=0.14,
            brow_outer=0.01,
            brow_arch=0.0,
            brow_pinch=0.05,
            eye_open=1.6,
            lower_lid=-0.1,
            eye_droop=0.01,
            mouth_width=0.3,
            mouth_corner=-0.04,
            mouth_upper=0.04,
            mouth_lower=0.12,
            mouth_square=0.5,
            lips=0.8,
            teeth=0.25,
            folds=0.2,
            frown=0.4,
            forehead=0.8,
        ),
    ),
    "Happy": (
        Look(
            brow_inner=0.01,
            brow_outer=0.02,
            brow_arch=0.05,
            eye_open=0.75,
            lower_lid=0.55,
            mouth_width=0.47,
            mouth_corner=0.11,
            mouth_upper=-0.04,
            mouth_lower=0.14,
            mouth_square=0.15,
            lips=0.8,
            teeth=0.75,
            folds=0.65,
        ),
        Look(
            brow_inner=0.01,
            brow_outer=0.02,
            brow_arch=0.05,
            eye_open=0.8,
            lower_lid=0.45,
            mouth_width=0.44,
            mouth_corner=0.12,
            lips=0.8,
            folds=0.65,
        ),
    ),
    "Sad": (
        Look(
            brow_inner=0.12,
            brow_outer=-0.06,
            brow_arch=-0.01,
            brow_pinch=0.04,
            eye_open=0.62,
            lower_lid=0.1,
            eye_droop=0.04,
            mouth_width=0.29,
            mouth_corner=-0.1,
            lips=0.95,
            folds=0.35,
            frown=0.3,
            forehead=0.4,
        ),
        Look(
            brow_inner=0.1,
            brow_outer=-0.07,
            brow_arch=-0.01,
            brow_pinch=0.03,
            eye_open=0.4,
            lower_lid=0.1,
            eye_droop=0.05,
            mouth_width=0.3,
            mouth_corner=-0.09,
            lips=1.2,
            folds=0.3,
            frown=0.2,
            forehead=0.3,
        ),
    ),
    "Surprise": (
        Look(
            brow_inner=0.14,
            brow_outer=0.14,
            brow_arch=0.07,
            eye_open=1.6,
            lower_lid=-0.15,
            mouth_width=0.19,
            mouth_upper=0.14,
            mouth_lower=0.25,
            mouth_square=0.4,
            lips=0.9,
            teeth=0.1,
            folds=0.1,
            forehead=0.7,
        ),
        Look(
            brow_inner=0.15,
            brow_outer=0.15,
            brow_arch=0.07,
            eye_open=1.5,
            lower_lid=-0.1,
            mouth_width=0.23,
            mouth_upper=0.1,
            mouth_lower=0.2,
            mouth_square=0.3,
            lips=0.9,
            teeth=0.25,
            folds=0.1,
            forehead=0.7,
        ),
    ),
    "Neutral": (NEUTRAL,),
}


@dataclass(frozen=True)
class Person:
    """A person's face. Lengths are in face units."""

    skin: Colour
    hair: Colour
    iris: Colour
    clothes: Colour
    width: float  # half the width of the head
    jaw: float  # 0.6: square, 0.9: pointed
    chin: float  # y of the chin
    eye_x: float
    eye_y: float
    eye_width: float  # half the width
    brow_gap: float  # distance from eye to brow
    brow_thickness: float
    nose_y: float
    nose_width: float
    mouth_y: float
    lips: float
    hairline: float  # y of the hairline above the nose; beyond -1 the crop shows no hair
    parting: float  # how far the hairline leans
    sideburns: float  # y where the hair ends beside the face
    long_hair: bool
    beard: float  # darkness of the beard


class Canvas:
    """A picture to draw on in face units.

    `picture` is grey (height, width) or BGR (height, width, 3), and changes in place; `matrix` (2, 3) maps face units
    to pixels; `yaw` is how far the middle of the face is turned to the side.
    """

    def __init__(self, picture: np.ndarray, matrix: np.ndarray, yaw: float = 0.0) -> None:
        self.picture, self.matrix, self.yaw = picture, matrix, yaw
        self.unit = float(np.hypot(*matrix[:, 0]))  # pixels per face unit

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Points (n, 2) in face units as OpenCV's fixed-point pixels. Whole numbers are the centres of pixels."""
        placed = turned(points, self.yaw) @ self.matrix[:, :2].T + (self.matrix[:, 2] - 0.5)
        return np.rint(placed * (1 << SHIFT)).astype(np.int32)

    def colour(self, colour: Colour) -> tuple[float, ...]:
        return tuple(colour.tolist()) if self.picture.ndim == 3 else (float(GREY @ colour),)

    def fill(self, points: np.ndarray, colour: Colour) -> None:
        cv2.fillPoly(self.picture, [self.pixels(points)], self.colour(colour), cv2.LINE_8, SHIFT)

    def stroke(self, points: np.ndarray, colour: Colour, width: float) -> None:
        """A line through the points, `width` in face units."""
        pixels = max(1, round(width * self.unit))
        cv2.polylines(self.picture, [self.pixels(points)], False, self.colour(colour), pixels, cv2.LINE_8, SHIFT)

    def fill_shaded(self, points: np.ndarray, colour: Colour, shade: np.ndarray) -> None:
        """Fills with `colour` times the shading (SHADE_SIZE, SHADE_SIZE)."""
        pixels = self.pixels(points)
        (left, top), (right, bottom) = pixels.min(axis=0) >> SHIFT, (pixels.max(axis=0) >> SHIFT) + 2
        height, width = self.picture.shape[:2]
        left, top, right, bottom = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
        if left >= right or top >= bottom:
            return
        mask = np.zeros((bottom - top, right - left), np.uint8)
        cv2.fillPoly(mask, [pixels - (np.array([left, top], np.int32) << SHIFT)], 255, cv2.LINE_8, SHIFT)
        step = 2 * SHADE_REACH / (SHADE_SIZE - 1)
        to_pixels = np.column_stack([self.matrix[:, :2] * step, self.matrix @ [-SHADE_REACH, -SHADE_REACH, 1]])
        to_pixels[:, 2] -= (left + 0.5, top + 0.5)
        spread = cv2.warpAffine(shade, to_pixels, mask.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
        tint = self.colour(colour)
        filled = cv2.merge([cv2.convertScaleAbs(spread, alpha=part) for part in tint])
        inside = mask > 0 if len(tint) == 1 else mask[..., None] > 0
        np.copyto(self.picture[top:bottom, left:right], filled, where=inside)


def turned(points: np.ndarray, yaw: float) -> np.ndarray:
    """Points (n, 2) after a turn of the head: the middle of the face moves by `yaw`, the edges stay."""
    x = points[:, 0]
    return np.column_stack([x + yaw * np.maximum(0.0, 1.0 - x * x), points[:, 1]])


def draw_look(expression: int, random: np.random.Generator) -> Look:
    """A random variation of an expression: stronger or weaker, with small changes of its own."""
    looks = LOOKS[EMOTIONS[expression]]
    typical = np.array(dataclasses.astuple(looks[random.integers(len(looks))]))
    neutral = np.array(dataclasses.astuple(NEUTRAL))
    noise = random.normal(size=len(neutral)) * dataclasses.astuple(JITTER)
    return Look(*(neutral + random.uniform(0.5, 1.15) * (typical - neutral) + noise).tolist())


def draw_person(random: np.random.Generator) -> Person:
    """A random person."""
    skins = np.array([[150, 180, 225], [140, 170, 210], [110, 145, 190], [80, 115, 165], [60, 85, 130]])
    hairs = np.array([[20, 22, 28], [25, 35, 50], [35, 55, 85], [60, 100, 140], [115, 120, 125]])
    irises = np.array([[35, 50, 75], [25, 35, 50], [95, 75, 50], [60, 80, 60]])
    return Person(
        skin=random.choice(skins, p=[0.3, 0.3, 0.2, 0.12, 0.08]) * random.uniform(0.9, 1.1),
        hair=random.choice(hairs, p=[0.3, 0.3, 0.2, 0.12, 0.08]) * random.uniform(0.8, 1.2),
        iris=random.choice(irises) * random.uniform(0.8, 1.2),
        clothes=random.uniform(30, 200, size=3),
        width=random.normal(0.84, 0.035),
        jaw=random.uniform(0.6, 0.9),
        chin=random.normal(1.0, 0.03),
        eye_x=random.normal(0.39, 0.018),
        eye_y=random.normal(-0.24, 0.02),
        eye_width=random.normal(0.172, 0.01),
        brow_gap=random.normal(0.215, 0.018),
        brow_thickness=random.uniform(0.035, 0.06),
        nose_y=random.normal(0.24, 0.025),
        nose_width=random.normal(0.15, 0.015),
        mouth_y=random.normal(0.56, 0.022),
        lips=random.uniform(0.8, 1.25),
        hairline=random.uniform(-1.05, -0.78),
        parting=random.normal(0.0, 0.08),
        sideburns=random.uniform(-0.5, 0.1),
        long_hair=bool(random.random() < 0.4),
        beard=max(0.0, random.normal(-0.1, 0.2)),
    )


def shading(person: Person, look: Look, light: np.ndarray, yaw: float) -> np.ndarray:
    """How bright the skin is (SHADE_SIZE, SHADE_SIZE), 1 on average, as a sum of soft spots.

    Face detectors look for dark eye sockets between a bright forehead, nose and cheeks. `light` is how much brighter
    the right and the lower edge of the face are than its middle.
    """
    eye_x, eye_y, nose_y, nose_width, mouth_y = (
        person.eye_x, person.eye_y, person.nose_y, person.nose_width, person.mouth_y,
    )  # fmt: skip
    lip = mouth_y + max(0.0, look.mouth_lower)
    corner_x, corner_y = look.mouth_width, mouth_y - look.mouth_corner
    cheek = 0.14 + 0.12 * max(0.0, look.mouth_corner) / 0.1
    both = (  # x of the right spot, y, width, height (standard deviations times √2), brightness
        (eye_x, eye_y - 0.05, 0.24, 0.13, -0.30),
        (eye_x * 0.5, eye_y, 0.09, 0.15, -0.24),
        (eye_x, eye_y + 0.13, 0.15, 0.04, -0.10),
        (nose_width, nose_y - 0.02, 0.05, 0.08, -0.16),
        (0.47, 0.13, 0.2, 0.17, cheek),
        (0.98, 0.2, 0.24, 1.0, -0.42),
        (0.06 - look.brow_pinch * 0.3, eye_y - 0.2, 0.03, 0.1, -0.38 * look.frown),
        (0.11, eye_y + 0.02, 0.09, 0.03, -0.26 * look.wrinkles),
        (0.11, eye_y + 0.12, 0.09, 0.03, -0.22 * look.wrinkles),
        (0.5, 0.8, 0.28, 0.3, -person.beard * 0.6),
    )
    start, end = np.array([nose_width + 0.05, nose_y - 0.03]), np.array([corner_x + 0.11, corner_y - 0.03])
    folds = [(*(start + (end - start) * q), 0.04, 0.06, -0.15 * look.folds) for q in (0.0, 0.25, 0.5, 0.75, 1.0)]
    middle = (
        (0.0, eye_y + 0.14, 0.07, 0.28, 0.2),
        (0.0, nose_y - 0.06, 0.1, 0.08, 0.16),
        (0.0, nose_y + 0.09, nose_width, 0.05, -0.24),
        (0.0, -0.75, 0.5, 0.2, 0.12),
        (0.0, lip + 0.19, 0.2, 0.05, -0.16),
        (0.0, lip + 0.32, 0.16, 0.1, 0.08),
        (0.0, mouth_y - 0.17, 0.04, 0.06, -0.06),
        (0.0, -0.66, 0.42, 0.025, -0.16 * look.forehead),
        (0.0, -0.78, 0.36, 0.025, -0.14 * look.forehead),
        (0.0, 0.95, 0.45, 0.2, -person.beard),
        (0.0, mouth_y - 0.14, 0.3, 0.07, -person.beard * 0.7),
        (0.0, 1.22, 0.8, 0.22, -0.3),
    )
    right = np.array([*both, *folds])
    spots = np.concatenate([right, right * [-1, 1, 1, 1, 1], np.array(middle)])
    spots[:, :2] = turned(spots[:, :2], yaw)
    grid = np.linspace(-SHADE_REACH, SHADE_REACH, SHADE_SIZE)
    across = np.exp(-(((grid - spots[:, 0:1]) / spots[:, 2:3]) ** 2))
    down = np.exp(-(((grid - spots[:, 1:2]) / spots[:, 3:4]) ** 2)) * spots[:, 4:5]
    shade = 1.0 + down.T @ across + light[0] * grid + light[1] * grid[:, None]
    return np.maximum(shade, 0.08).astype(np.float32)


def draw_head(canvas: Canvas, person: Person, look: Look, light: np.ndarray) -> None:
    """Draws all parts of a person that a crop or a photograph can show, from the back to the front."""
    shade = shading(person, look, light, canvas.yaw)
    draw_body(canvas, person, shade)
    for sign in (-1, 1):
        ear = person.skin * (0.7 + light[0] * sign)
        canvas.fill(ellipse(sign * (person.width + 0.03), -0.02, 0.1, 0.22), ear)
        canvas.fill(ellipse(sign * (person.width + 0.04), -0.03, 0.05, 0.13), ear * 0.75)
    canvas.fill_shaded(head_outline(person, look), person.skin, shade)
    lit = max(0.5, 1.0 + light[1] * person.eye_y)
    draw_nose(canvas, person)
    draw_mouth(canvas, person, look)
    for sign in (-1, 1):
        draw_eye(canvas, person, look, sign, lit)
        draw_brow(canvas, person, look, sign)
    draw_hair(canvas, person, light)


def draw_body(canvas: Canvas, person: Person, shade: np.ndarray) -> None:
    """Long hair behind the head, the neck, and the shoulders."""
    if person.long_hair:
        ends = np.array([[1.12, 1.5], [0.9, 1.62], [-0.9, 1.62], [-1.12, 1.5]])
        behind = np.concatenate([ellipse(0, -0.4, 1.04, 1.22, 180, 360), ends])
        canvas.fill_shaded(behind, person.hair * 0.75, hair_shading())
    clothes = [[-0.6, 1.42], [0.6, 1.42], [1.3, 1.66], [1.62, 1.9], [1.75, 2.3], [1.9, 20.0]]
    mirrored = [[-x, y] for x, y in reversed(clothes[1:])]
    canvas.fill(np.array(clothes + mirrored), person.clothes)
    neck = np.array([[-0.52, 0.5], [0.52, 0.5], [0.55, 1.4], [0.42, 1.56], [0, 1.66], [-0.42, 1.56], [-0.55, 1.4]])
    canvas.fill_shaded(neck, person.skin * 0.88, shade)


def head_outline(person: Person, look: Look) -> np.ndarray:
    """The head from the chin to the skull. An open mouth lowers the chin."""
    chin = person.chin + 0.45 * max(0.0, look.mouth_lower)
    lower, upper = np.radians(np.linspace(0, 180, 25)), np.radians(np.linspace(180, 360, 25))
    jaw_x = person.width * np.sign(np.cos(lower)) * np.abs(np.cos(lower)) ** person.jaw
    jaw = np.column_stack([jaw_x, -0.1 + (chin + 0.1) * np.sin(lower) ** 0.95])
    return np.concatenate([jaw, np.column_stack([person.width * np.cos(upper), -0.1 + SKULL * np.sin(upper)])])


def draw_nose(canvas: Canvas, person: Person) -> None:
    """The nostrils; the rest of the nose is light and shadow."""
    for sign in (-1, 1):
        x, y, width = sign * person.nose_width * 0.5, person.nose_y + 0.045, person.nose_width * 0.3
        canvas.fill(ellipse(x, y, width, 0.024), person.skin * 0.42)


def draw_mouth(canvas: Canvas, person: Person, look: Look) -> None:
    """The lips, and the opening with the upper teeth between them."""
    t = np.linspace(-1, 1, 21)
    x = t * max(0.12, look.mouth_width)
    line = person.mouth_y - look.mouth_corner * (t * t - 0.4)  # the corners rise, the middle sinks
    bulge = np.maximum(0, 1 - t * t) ** (0.75 - 0.45 * np.clip(look.mouth_square, 0, 1))
    upper = line - look.mouth_upper * bulge
    lower = np.maximum(upper, line + look.mouth_lower * bulge)
    thickness = 0.075 * person.lips * max(0.3, look.lips)
    bow = (1 - np.abs(t) ** 2.5) * (1 - 0.25 * np.exp(-((t / 0.12) ** 2)))
    lip = person.skin * [0.62, 0.58, 0.80]
    canvas.fill(band(x, upper - thickness * 0.8 * bow, upper), lip * 0.88)
    canvas.fill(band(x, lower, lower + thickness * 1.1 * np.sqrt(np.maximum(0, 1 - t * t))), lip)
    canvas.fill(band(x, upper, lower), np.array([35, 25, 55]))
    if look.teeth > 0.1:
        teeth = upper + (lower - upper) * min(0.9, look.teeth)
        white = np.array([205, 215, 220]) * min(1.0, 0.4 + person.skin.mean() / 230)
        canvas.fill(band(x[2:-2], upper[2:-2], teeth[2:-2]), white)
    if np.max(lower - upper) < 0.02:
        canvas.stroke(np.column_stack([x, (upper + lower) / 2]), person.skin * 0.35, 0.028)


def draw_eye(canvas: Canvas, person: Person, look: Look, sign: int, lit: float) -> None:
    """The right eye (sign 1) or the left (-1) of the picture, under a light of strength `lit`."""
    t = np.linspace(-1, 1, 15)  # from the inner to the outer corner
    x = sign * (person.eye_x + t * person.eye_width)
    line = person.eye_y + look.eye_droop * t - 0.012 * t
    arch = np.maximum(0, 1 - t * t)
    upper = line - 0.092 * np.clip(look.eye_open, 0.12, 1.9) * arch**0.7
    lower = line + 0.058 * (1 - min(0.9, look.lower_lid)) * arch
    white = np.array([195, 198, 200]) * min(1.15, lit) * min(1.0, 0.35 + person.skin.mean() / 200)
    canvas.fill(band(x, upper, lower), white)
    order = np.argsort(x)
    for radius, colour in ((0.085, person.iris), (0.042, np.array([12, 12, 12]))):
        disc = ellipse(sign * person.eye_x, person.eye_y - 0.018, radius, radius)
        lid, rim = (np.interp(disc[:, 0], x[order], edge[order]) for edge in (upper, lower))
        disc[:, 1] = np.clip(disc[:, 1], lid, rim)
        canvas.fill(disc, colour)
    if look.eye_open > 0.6:
        canvas.fill(ellipse(sign * person.eye_x - 0.03, person.eye_y - 0.045, 0.017, 0.017), white * 1.15)
    crease = 0.045 + 0.02 * max(0.0, look.eye_open - 1)
    canvas.stroke(np.column_stack([x, upper - crease])[2:], person.skin * 0.58, 0.016)
    canvas.stroke(np.column_stack([x, lower]), person.skin * 0.6, 0.014)
    canvas.stroke(np.column_stack([x, upper]), person.skin * 0.2, 0.032)


def draw_brow(canvas: Canvas, person: Person, look: Look, sign: int) -> None:
    q = np.linspace(0, 1, 11)  # from the inner to the outer end
    x = sign * (0.17 - look.brow_pinch + (0.47 + look.brow_pinch) * q)
    rise = look.brow_inner * (1 - q) + look.brow_outer * q + look.brow_arch * 4 * q * (1 - q)
    middle = person.eye_y - person.brow_gap - rise
    half = person.brow_thickness * np.minimum(1.0, 0.6 + 4 * q) * (1.0 - 0.7 * q)
    canvas.fill(band(x, middle - half, middle + half), person.hair * 0.75 + person.skin * 0.15)


def draw_hair(canvas: Canvas, person: Person, light: np.ndarray) -> None:
    """The hair round the forehead, between its own outline and the hairline."""
    angle = np.radians(np.linspace(0, 180, 31))
    outer_x = (person.width + 0.11 * np.minimum(1.0, 3 * np.sin(angle))) * np.cos(angle)
    outer_y = person.sideburns - (1.6 + person.sideburns) * np.sin(angle) ** 0.8
    rise = np.sin(angle) ** 0.45
    inner_y = person.sideburns + (person.hairline - person.sideburns + person.parting * np.cos(angle)) * rise
    head_x = person.width * np.sqrt(np.maximum(0.1, 1 - ((inner_y + 0.1) / SKULL) ** 2))  # half the head at inner_y
    inner_x = 0.96 * head_x * np.cos(angle)
    outline = np.column_stack([np.concatenate([outer_x, inner_x[::-1]]), np.concatenate([outer_y, inner_y[::-1]])])
    canvas.fill_shaded(outline, person.hair * max(0.5, 1.0 - light[1]), hair_shading())


@functools.cache
def hair_shading() -> np.ndarray:
    """Strands from the crown downwards, and a sheen (SHADE_SIZE, SHADE_SIZE)."""
    grid = np.linspace(-SHADE_REACH, SHADE_REACH, SHADE_SIZE)
    around = np.arctan2(grid[None, :], grid[:, None] + 1.75)
    strands = np.sin(23 * around) + np.sin(37 * around + 1) + np.sin(61 * around + 2)
    sheen = np.exp(-(((np.hypot(grid[None, :] + 0.1, grid[:, None] + 0.2) - 1.05) / 0.18) ** 2))
    return (0.95 + 0.06 * strands + 0.4 * sheen * (1 + 0.25 * strands)).astype(np.float32)


def ellipse(x: float, y: float, width: float, height: float, start: float = 0, end: float = 360) -> np.ndarray:
    """Points (25, 2) of an ellipse with these half axes, from one angle to another in degrees, clockwise."""
    angle = np.radians(np.linspace(start, end, 25))
    return np.column_stack([x + width * np.cos(angle), y + height * np.sin(angle)])


def band(x: np.ndarray, upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """The outline (2n, 2) of the area between two curves over the same x (n)."""
    return np.column_stack([np.concatenate([x, x[::-1]]), np.concatenate([upper, lower[::-1]])])


def pose(random: np.random.Generator, centre: tuple[float, float], half: float, freedom: float) -> np.ndarray:
    """The matrix (2, 3) that places a face near `centre`, slightly turned. half: half the crop's side, in pixels."""
    angle, scale = np.radians(random.normal(0, 5 * freedom)), half * np.exp(random.normal(0, 0.04 * freedom))
    shift = random.normal(0, 0.035 * freedom, size=2) * half
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([rotation * scale, np.add(centre, shift)])


def draw_face(expression: int, random: np.random.Generator, size: int = IMAGE_SIZE) -> np.ndarray:
    """A grey face (size, size) uint8, cropped like FER2013's. `expression` is an index of `EMOTIONS`."""
    large = size * OVERSAMPLING
    picture = draw_background(random, large, large, channels=1)
    canvas = Canvas(picture, pose(random, (large / 2, large / 2), large / 2, 1.0), random.normal(0, 0.06))
    light = random.normal(0, [0.13, 0.08])
    draw_head(canvas, draw_person(random), draw_look(expression, random), light)
    face: np.ndarray = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32)
    softness = random.uniform(0.2, 0.75) * size / IMAGE_SIZE
    face = cv2.GaussianBlur(face, (0, 0), softness)
    contrast, brightness = random.uniform(0.75, 1.2), random.normal(0, 14)
    noise = random.standard_normal(face.shape, dtype=np.float32) * np.float32(random.uniform(1, 5))
    face = (face - 120) * contrast + 120 + brightness + noise
    return np.clip(np.rint(face), 0, 255).astype(np.uint8)


def draw_photo(
    expressions: Sequence[int], random: np.random.Generator, height: int = 480, width: int = 640
) -> tuple[np.ndarray, list[tuple[int, int, int, int]]]:
    """A BGR photograph (height, width, 3) of people, one for each expression, and the boxes of their faces.

    A box is (x, y, width, height): the square that FER2013 would have cropped.
    """
    large = draw_background(random, height * PHOTO_OVERSAMPLING, width * PHOTO_OVERSAMPLING, channels=3)
    boxes = place_boxes(len(expressions), random, height, width)
    for expression, (x, y, side, _) in zip(expressions, boxes, strict=True):
        half = side * PHOTO_OVERSAMPLING / 2
        centre = (x * PHOTO_OVERSAMPLING + half, y * PHOTO_OVERSAMPLING + half)
        canvas = Canvas(large, pose(random, centre, half, 0.4), random.normal(0, 0.03))
        light = random.normal(0, [0.07, 0.04])
        draw_head(canvas, draw_person(random), draw_look(expression, random), light)
    photo = cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    photo = cv2.GaussianBlur(photo, (0, 0), 0.8) + random.normal(0, 3, size=photo.shape)
    return np.clip(np.rint(photo), 0, 255).astype(np.uint8), boxes


def draw_background(random: np.random.Generator, height: int, width: int, channels: int) -> np.ndarray:
    """A blurred wall: soft patches only, so that detectors find no face in it."""
    patches = random.uniform(60, 195) + random.uniform(-25, 25, size=channels) + random.uniform(-20, 20, size=(4, 5, 1))
    return cv2.resize(patches.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR).astype(np.uint8)


def place_boxes(count: int, random: np.random.Generator, height: int, width: int) -> list[tuple[int, int, int, int]]:
    """Square boxes (x, y, side, side) with room for heads and necks, in the number of rows with the largest faces."""

    def largest(rows: int) -> float:
        return min(width / -(-count // rows) / 1.35, height / rows / 1.6)

    if count == 0:
        return []
    rows = max(range(1, count + 1), key=largest)
    columns = -(-count // rows)
    boxes = []
    for index in range(count):
        row, column = divmod(index, columns)
        in_row = min(columns, count - row * columns)  # the last row may be shorter
        side = round(largest(rows) * random.uniform(0.78, 1.0))
        x = (column + 0.5) * width / in_row + side * random.uniform(-0.06, 0.06) - side / 2
        y = (row + 0.52) * height / rows + side * random.uniform(-0.05, 0.05) - side / 2
        boxes.append((round(x), round(y), side, side))
    return boxes


def fer2013_rows(counts: Sequence[int], seed: int) -> Iterator[tuple[int, np.ndarray, str]]:
    """Label, face (48, 48) and split of every row: `counts[i]` rows of SPLITS[i], split after split as in FER2013.

    The faces of a split depend only on the seed, not on the number of faces in the other splits.
    """
    for number, (split, count) in enumerate(zip(SPLITS, counts, strict=True)):
        random = np.random.default_rng([seed, number])
        for label in random.permutation(np.arange(count) % len(EMOTIONS)).tolist():
            yield label, draw_face(label, random), split


def write_csv(path: str | Path, training: int, public_test: int, private_test: int, seed: int = 0) -> None:
    """Writes a dataset of drawn faces in the layout of Kaggle's fer2013.csv."""
    with whole_file(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["emotion", "pixels", "Usage"])
        for label, face, split in fer2013_rows((training, public_test, private_test), seed):
            writer.writerow([label, " ".join(map(str, face.ravel().tolist())), split])


def write_photo(path: str | Path, expressions: Sequence[int], seed: int = 0) -> None:
    """Writes a photograph of drawn people, in the format that the suffix of `path` names."""
    if not cv2.haveImageWriter(str(path)):
        raise UserError(f"cannot write a picture called {path}: end its name with .png or .jpg")
    photo, _ = draw_photo(expressions, np.random.default_rng(seed))
    with whole_file(path) as temporary:
        temporary.write_bytes(cv2.imencode(Path(path).suffix, photo)[1].tobytes())


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    if not (arguments.output or arguments.photo):
        raise UserError("nothing to draw: give --output=faces.csv, --photo=photo.png, or both")
    if arguments.output:
        counts = arguments.training, arguments.public_test, arguments.private_test
        write_csv(arguments.output, *counts, arguments.seed)
        print(f"{arguments.output}: {sum(counts)} drawn faces")
    if arguments.photo:
        shown = [EMOTIONS.index(name) for name in ("Happy", "Surprise", "Angry")]
        write_photo(arguments.photo, shown, arguments.seed)
        print(f"{arguments.photo}: {', '.join(EMOTIONS[label] for label in shown)}")
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line of this module."""
    parser = Parser(
        prog="python -m ferkit.data.drawn_faces",
        description="Draw faces: a dataset laid out like FER2013, a photograph, or both.",
    )
    parser.add_argument("--output", type=local_path, metavar="PATH", help="write the dataset to this csv")
    for flag, split, count in (
        ("training", SPLITS[0], 2000),
        ("public_test", SPLITS[1], 300),
        ("private_test", SPLITS[2], 300),
    ):
        help = f"number of faces of {split} (default: {count})"
        parser.add_argument(f"--{flag}", type=not_negative, default=count, metavar="N", help=help)
    parser.add_argument("--photo", type=local_path, metavar="PATH", help="write a photograph of a few drawn people")
    help = "seed of all random numbers; the same seed draws the same faces (default: 0)"
    parser.add_argument("--seed", type=not_negative, default=0, metavar="N", help=help)
    return parser


if __name__ == "__main__":
    sys.exit(main())
