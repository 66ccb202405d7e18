"""Random changes of the training faces and of their features.

faces, vectors = augment(faces, vectors, "landmarks", AUGMENTATION, np.random.default_rng(0))
"""

import dataclasses
import math

import numpy as np

from ferkit import features
from ferkit.constants import IMAGE_SIZE
from ferkit.settings import Augmentation
from ferkit.transforms import affine, warp

BLURRED = (12, 40)  # least and greatest side in pixels that a face is shrunk to
JPEG_QUALITY = (10, 90)
DARKENED = 0.1  # least share of the brightness that is left
ERASED = (0.02, 0.2)  # least and greatest share of the face's area
ERASED_ASPECT = 3.0  # greatest ratio of a rectangle's longer side to its shorter side


def augment(
    faces: np.ndarray,
    vectors: np.ndarray,
    feature: str,
    settings: Augmentation,
    random: np.random.Generator,
    known: features.Provenance | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Changes each face of a batch at random according to `settings`; returns the faces and their new features.

    faces: (N, 48, 48) uint8. vectors: (N, size) float32 of `feature`. known: see features.extract. The results have the
    same shapes and types. The given arrays are not modified.
    """
    if not any(dataclasses.astuple(settings)):
        return faces, vectors
    matrices = random_matrices(len(faces), settings, random)
    faces = warp(faces, matrices)
    if settings.contrast or settings.brightness:
        faces = _relit(faces, settings, random)
    faces = _degraded(faces, settings, random)
    vectors = features.moved(vectors, feature, matrices, faces, known)  # the features describe the face before erasing
    if settings.erasing:
        faces = _erased(faces, settings.erasing, random)
    return faces, vectors


def random_matrices(count: int, settings: Augmentation, random: np.random.Generator) -> np.ndarray:
    """Random movements (count, 2, 3): see transforms.affine."""
    flip = random.random(count) < (0.5 if settings.flip else 0.0)
    shift = random.uniform(-1, 1, (count, 2)) * settings.shift * IMAGE_SIZE
    zoom = np.exp(random.uniform(-1, 1, count) * math.log1p(settings.zoom))  # shrunk as often as enlarged
    return affine(flip, shift, zoom, random.uniform(-1, 1, count) * settings.rotation)


def _relit(faces: np.ndarray, settings: Augmentation, random: np.random.Generator) -> np.ndarray:
    shape = len(faces), 1, 1
    contrast = 1 + random.uniform(-1, 1, shape).astype(np.float32) * settings.contrast
    brightness = random.uniform(-1, 1, shape).astype(np.float32) * settings.brightness * 255
    pixels = faces.astype(np.float32)
    mean = pixels.mean(axis=(1, 2), keepdims=True)
    return np.clip((pixels - mean) * contrast + mean + brightness + 0.5, 0, 255).astype(np.uint8)


def _degraded(faces: np.ndarray, settings: Augmentation, random: np.random.Generator) -> np.ndarray:
    """Faces as cameras and detectors deliver them: enlarged from a few pixels, in the dark, compressed."""
    faces = faces.copy()
    for name, change in (("blur", _blurred), ("darkness", _darkened), ("jpeg", _compressed)):
        if probability := getattr(settings, name):
            for row in np.flatnonzero(random.random(len(faces)) < probability):
                faces[row] = change(faces[row], random)
    return faces


def _blurred(face: np.ndarray, random: np.random.Generator) -> np.ndarray:
    import cv2  # imported here, because evaluation and training without augmentation do not need it

    side = int(random.integers(*BLURRED, endpoint=True))
    small = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, face.shape, interpolation=cv2.INTER_CUBIC)


def _darkened(face: np.ndarray, random: np.random.Generator) -> np.ndarray:
    left = math.exp(random.uniform(math.log(DARKENED), 0))  # a half and a quarter are equally likely
    return (face * left + 0.5).astype(np.uint8)


def _compressed(face: np.ndarray, random: np.random.Generator) -> np.ndarray:
    import cv2

    quality = int(random.integers(*JPEG_QUALITY, endpoint=True))
    _, encoded = cv2.imencode(".jpg", face, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE))


def _erased(faces: np.ndarray, probability: float, random: np.random.Generator) -> np.ndarray:
    """Random erasing (Zhong et al., AAAI 2020): hides a part of the face, so that the network uses all parts."""
    erased = faces.copy()
    for row in np.flatnonzero(random.random(len(faces)) < probability):
        area = random.uniform(*ERASED) * IMAGE_SIZE**2
        aspect = math.exp(random.uniform(-1, 1) * math.log(ERASED_ASPECT))
        height = min(IMAGE_SIZE, round(math.sqrt(area * aspect)))
        width = min(IMAGE_SIZE, round(math.sqrt(area / aspect)))
        top = random.integers(0, IMAGE_SIZE - height + 1)
        left = random.integers(0, IMAGE_SIZE - width + 1)
        erased[row, top : top + height, left : left + width] = random.integers(0, 256, (height, width), np.uint8)
    return erased
