"""Features against scikit-image and dlib themselves, and the search for dlib's predictor."""

import csv
import functools
import importlib.util
import itertools
import lzma
from pathlib import Path

import dlib
import numpy as np
import pytest
from skimage.feature import hog

from ferkit import features
from ferkit.data.drawn_faces import draw_face
from ferkit.errors import UserError
from ferkit.features import FEATURES

SIZES = {"none": 0, "landmarks": 136, "landmarks_hog": 208, "landmarks_hog_windows": 2728}
PREDICTOR = Path(importlib.util.find_spec("face_recognition_models").origin).with_name("models") / (
    "shape_predictor_68_face_landmarks.dat"
)


def ramps() -> np.ndarray:
    """Slopes in all directions: many of their gradients lie exactly on the border of two orientation bins."""
    y, x = np.mgrid[:48, :48]
    directions = itertools.product(range(-3, 4), repeat=2)
    slopes = [np.clip(128 + across * (x - 24) + down * (y - 24), 0, 255) for across, down in directions]
    return np.stack(slopes)


def draw(count: int) -> np.ndarray:
    random = np.random.default_rng(0)
    return np.stack([draw_face(row % 7, random) for row in range(count)])


random = np.random.default_rng(0)
FACES = {
    "drawn": draw(20),
    "noise": random.integers(0, 256, (10, 48, 48)),
    "almost even": random.integers(127, 129, (5, 48, 48)),
    "black and white": 255 * random.integers(0, 2, (10, 48, 48)),
    "blank": np.stack([np.full((48, 48), grey) for grey in (0, 128, 255)]),
    "ramps": ramps(),
}
FACES = {name: faces.astype(np.uint8) for name, faces in FACES.items()}
STACKS = pytest.mark.parametrize("faces", FACES.values(), ids=FACES)


def hog_of_face(face: np.ndarray) -> np.ndarray:
    return hog(face, 8, (16, 16), (1, 1))


def hog_of_windows(face: np.ndarray) -> np.ndarray:
    """Of every window in turn, row by row; scikit-image refuses windows smaller than a cell."""
    corners = itertools.product(range(0, 48, 6), repeat=2)
    windows = [face[y : y + 24, x : x + 24] for y, x in corners]
    return np.concatenate([hog(window, 8, (8, 8), (1, 1)) for window in windows if min(window.shape) >= 8])


@functools.cache
def predictor() -> dlib.shape_predictor:
    return dlib.shape_predictor(str(PREDICTOR))


def points_of(faces: np.ndarray) -> np.ndarray:
    shapes = [predictor()(face, dlib.rectangle(0, 0, 47, 47)) for face in faces]
    return np.array([[(point.x, point.y) for point in shape.parts()] for shape in shapes])


@pytest.fixture(scope="module")
def real_faces(fer2013_csv: str) -> np.ndarray:
    with (lzma.open if fer2013_csv.endswith(".xz") else open)(fer2013_csv, "rt") as file:
        rows = itertools.islice(csv.DictReader(file), 20)
        return np.stack([np.array(row["pixels"].split(), np.uint8).reshape(48, 48) for row in rows])


@STACKS
def test_hog_is_that_of_scikit_image(faces):
    found = features.hog.face(faces)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [hog_of_face(face) for face in faces], atol=1e-5)


@STACKS
def test_hog_windows_are_those_of_scikit_image_window_by_window(faces):
    found = features.hog.windows(faces)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [hog_of_windows(face) for face in faces], atol=1e-5)


def test_landmarks_are_those_of_dlib_on_the_whole_face():
    faces = np.concatenate([FACES["drawn"], FACES["noise"]])
    found = features.landmarks.extract(faces)
    assert found.shape == (30, 68, 2) and found.dtype == np.float32
    np.testing.assert_array_equal(found, points_of(faces))


def test_features_of_real_faces_are_those_of_scikit_image_and_dlib(real_faces):
    np.testing.assert_array_equal(features.landmarks.extract(real_faces), points_of(real_faces))
    np.testing.assert_allclose(features.hog.face(real_faces), list(map(hog_of_face, real_faces)), atol=1e-5)
    np.testing.assert_allclose(features.hog.windows(real_faces), list(map(hog_of_windows, real_faces)), atol=1e-5)


@pytest.mark.parametrize("kind", FEATURES)
@pytest.mark.parametrize("count", [0, 1, 20])
def test_size_is_known_beforehand(kind, count):
    assert features.size(kind) == SIZES[kind]
    found = features.extract(FACES["drawn"][:count], kind)
    assert found.shape == (count, SIZES[kind]) and found.dtype == np.float32


@pytest.mark.parametrize("kind", ["landmarks", "landmarks_hog", "landmarks_hog_windows"])
def test_stack_gives_what_each_face_gives_alone(kind):
    faces = FACES["drawn"].transpose(0, 2, 1)[::-1]  # nor does it matter how they lie in memory
    alone = np.concatenate([features.extract(face[None].copy(), kind) for face in faces])
    np.testing.assert_array_equal(features.extract(faces, kind), alone)


@pytest.mark.parametrize(
    ("kind", "hog_of"), [("landmarks_hog", hog_of_face), ("landmarks_hog_windows", hog_of_windows)]
)
def test_landmarks_come_before_hog_and_x_before_y(kind, hog_of):
    faces = FACES["drawn"][:3]
    vectors = features.extract(faces, kind)
    np.testing.assert_array_equal(vectors[:, :136:2], points_of(faces)[..., 0])
    np.testing.assert_array_equal(vectors[:, 1:136:2], points_of(faces)[..., 1])
    np.testing.assert_allclose(vectors[:, 136:], [hog_of(face) for face in faces], atol=1e-5)


def test_given_predictor_wins_over_the_packages(tmp_path):
    given = tmp_path / "mine.dat"
    with pytest.raises(UserError, match=r"no landmark predictor at .*mine\.dat: name another with --shape_pred"):
        features.landmarks.find_shape_predictor(str(given))
    given.touch()
    assert features.landmarks.find_shape_predictor(str(given)) == str(given)


def test_error_names_every_cure_when_there_is_no_predictor(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError) as error:
        features.landmarks.find_shape_predictor()
    for cure in ("no landmark predictor", "pip install face_recognition_models", "http://dlib.net/files/"):
        assert cure in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("length", [0, 1000, 1_000_000])
def test_predictor_cut_off_is_refused_by_name(tmp_path, length):
    damaged = tmp_path / "damaged.dat"
    with PREDICTOR.open("rb") as file:
        damaged.write_bytes(file.read(length))
    with pytest.raises(UserError, match=r"damaged\.dat is not a dlib landmark predictor"):
        features.landmarks.extract(FACES["drawn"][:1], str(damaged))
