"""Faces changed at random for training, and in fixed ways for test-time augmentation; features follow the face.

images, vectors = augment(images, vectors, "landmarks", AUGMENTATION, np.random.default_rng(0))
probabilities = average_over_views(model.predict, images, vectors, "landmarks")
"""

import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np

import features
from parameters import IMAGE_SIZE, Augmentation

ERASED = (0.02, 0.2)  # least and greatest share of the face's area
ERASED_ASPECT = 3.0  # a rectangle's longer side is at most so many times its shorter one
# The copies that test-time augmentation averages, each also mirrored: enlarged so many times, or shrunk. On PublicTest
# these did better than copies moved by two or three pixels or turned by six degrees, and as well as all together.
VIEWS = (1.0, 1.08, 0.92)


def augment(
    images: np.ndarray, vectors: np.ndarray, kind: str, settings: Augmentation, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A batch of faces, each changed at random as `settings` say, with the features of the changed faces.

    images: (N, 48, 48) uint8. vectors: (N, size) float32, features of `kind`. Returns both in the same form; what is
    given stays as it is.
    """
    if not any(dataclasses.astuple(settings)):
        return images, vectors
    matrices = random_matrices(len(images), settings, random)
    images = _moved(images, matrices)
    if settings.contrast or settings.brightness:
        images = _relit(images, settings, random)
    vectors = moved_features(vectors, kind, matrices, images)  # erasing is no part of what the features describe
    if settings.erasing:
        images = _erased(images, settings.erasing, random)
    return images, vectors


def average_over_views(
    predict: Callable[[np.ndarray, np.ndarray], np.ndarray], images: np.ndarray, vectors: np.ndarray, kind: str
) -> np.ndarray:
    """Test-time augmentation: what `predict(images, vectors)` gives, averaged over the views of the faces."""
    return np.mean([predict(*view) for view in views(images, vectors, kind)], axis=0)


def views(images: np.ndarray, vectors: np.ndarray, kind: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The copies of the faces that test-time augmentation recognizes, with their features: VIEWS, plain and mirrored.

    images: (N, 48, 48) uint8. vectors: (N, size) float32, features of `kind`.
    """
    for zoom in VIEWS:
        for flip in (False, True):
            matrix = affine(np.array([flip]), np.zeros((1, 2)), np.array([zoom]), np.zeros(1))
            matrices = np.repeat(matrix, len(images), axis=0)
            moved = _moved(images, matrices)
            yield moved, moved_features(vectors, kind, matrices, moved)


def random_matrices(count: int, settings: Augmentation, random: np.random.Generator) -> np.ndarray:
    """Random movements (count, 2, 3): see affine."""
    flip = random.random(count) < (0.5 if settings.flip else 0.0)
    shift = random.uniform(-1, 1, (count, 2)) * settings.shift * IMAGE_SIZE
    zoom = np.exp(random.uniform(-1, 1, count) * math.log1p(settings.zoom))  # as often shrunk as enlarged
    return affine(flip, shift, zoom, random.uniform(-1, 1, count) * settings.rotation)


def affine(flip: np.ndarray, shift: np.ndarray, zoom: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """Matrices (N, 2, 3) from a face's pixels to its moved copy's: mirrored, turned and enlarged about the middle.

    flip: (N,) bool. shift: (N, 2) pixels right and down. zoom: (N,) factors. degrees: (N,).
    """
    angle = np.deg2rad(degrees)
    cosine, sine = zoom * np.cos(angle), zoom * np.sin(angle)
    mirror = np.where(flip, -1.0, 1.0)
    linear = np.stack([cosine * mirror, -sine, sine * mirror, cosine], axis=1).reshape(-1, 2, 2)
    middle = np.full(2, (IMAGE_SIZE - 1) / 2)
    offset = middle + shift - linear @ middle
    return np.concatenate([linear, offset[:, :, None]], axis=2)


def moved_features(vectors: np.ndarray, kind: str, matrices: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """The features of moved faces: landmarks go where the face goes, HOG is computed anew.

    vectors: (N, size) float32 before, matrices: (N, 2, 3), moved: (N, 48, 48) uint8 faces after. Returns (N, size).
    """
    parts = {}
    for name in features.PARTS[kind]:
        if name == "landmarks":  # always the first: see features.PARTS
            points = vectors[:, : features.LANDMARKS * 2].reshape(-1, features.LANDMARKS, 2)
            parts[name] = moved_landmarks(points, matrices)
        else:
            parts[name] = features.extract_part(moved, name)
    return features.join(parts, kind, len(moved))


def moved_landmarks(points: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """Landmarks (N, 68, 2) of faces moved by `matrices` (N, 2, 3); a mirrored left eye is a right eye."""
    moved = points @ matrices[:, :, :2].swapaxes(1, 2) + matrices[:, None, :, 2]
    mirrored = np.linalg.det(matrices[:, :, :2]) < 0
    moved[mirrored] = moved[mirrored][:, features.MIRRORED_LANDMARKS]
    return moved.astype(np.float32)


def _moved(images: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    import cv2  # here, because evaluation and training without augmentation need none of it

    moved = np.empty_like(images)
    for image, matrix, target in zip(images, matrices, moved, strict=True):
        target[:] = cv2.warpAffine(
            image, matrix, (IMAGE_SIZE, IMAGE_SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    return moved


def _relit(images: np.ndarray, settings: Augmentation, random: np.random.Generator) -> np.ndarray:
    shape = len(images), 1, 1
    contrast = 1 + random.uniform(-1, 1, shape).astype(np.float32) * settings.contrast
    brightness = random.uniform(-1, 1, shape).astype(np.float32) * settings.brightness * 255
    pixels = images.astype(np.float32)
    mean = pixels.mean(axis=(1, 2), keepdims=True)
    return np.clip((pixels - mean) * contrast + mean + brightness + 0.5, 0, 255).astype(np.uint8)


def _erased(images: np.ndarray, probability: float, random: np.random.Generator) -> np.ndarray:
    """Random erasing (Zhong et al., AAAI 2020): hides a part of the face, so that no single part is relied upon."""
    erased = images.copy()
    for row in np.flatnonzero(random.random(len(images)) < probability):
        area = random.uniform(*ERASED) * IMAGE_SIZE**2
        aspect = math.exp(random.uniform(-1, 1) * math.log(ERASED_ASPECT))
        height = min(IMAGE_SIZE, round(math.sqrt(area * aspect)))
        width = min(IMAGE_SIZE, round(math.sqrt(area / aspect)))
        top = random.integers(0, IMAGE_SIZE - height + 1)
        left = random.integers(0, IMAGE_SIZE - width + 1)
        erased[row, top : top + height, left : left + width] = random.integers(0, 256, (height, width), np.uint8)
    return erased
