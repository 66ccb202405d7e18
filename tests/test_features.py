"""Features against scikit-image and dlib themselves, and the search for dlib's predictor."""

import base64
import csv
import functools
import importlib.util
import itertools
import lzma
from pathlib import Path

import dlib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist, pdist
from skimage.feature import hog, local_binary_pattern
from skimage.filters import gabor

from ferkit import features
from ferkit.data.drawn_faces import draw_face
from ferkit.errors import UserError
from ferkit.features import FEATURES, sift
from ferkit.transforms import affine, warp

SIZES = {
    "none": 0,
    "landmarks": 136,
    "landmarks_hog": 136 + 72,
    "landmarks_hog_windows": 136 + 2592,
    "hog": 72,
    "hog_windows": 2592,
    "lbp": 6 * 6 * 59,
    "gabor": 4 * 8 * 6 * 6,
    "sift": 128 * (1 + 4 + 16),
    "geometry": 68 * 67 // 2 + 2 * 58,
    "landmarks+lbp": 136 + 6 * 6 * 59,
    "hog+landmarks_hog": 72 + 136,
}
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
# A vocabulary of windows of the drawn faces, as fast as any.
WORDS = sift.descriptors(FACES["drawn"][:7]).reshape(-1, 128)[::7][:128].astype(np.uint8)
KNOWN = {"sift": {"learned": base64.b64encode(WORDS.tobytes()).decode()}}
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


@pytest.mark.parametrize("kind", dict.fromkeys([*FEATURES, *SIZES]))
@pytest.mark.parametrize("count", [0, 1, 20])
def test_size_is_known_beforehand(kind, count):
    assert features.size(kind) == SIZES[kind]
    found = features.extract(FACES["drawn"][:count], kind, known=KNOWN)
    assert found.shape == (count, SIZES[kind]) and found.dtype == np.float32


@pytest.mark.parametrize("kind", ["landmarks_hog", "hog_windows", "lbp", "gabor", "sift", "geometry"])
def test_stack_gives_what_each_face_gives_alone(kind):
    faces = FACES["drawn"].transpose(0, 2, 1)[::-1]  # nor does it matter how they lie in memory
    alone = np.concatenate([features.extract(face[None].copy(), kind, known=KNOWN) for face in faces])
    np.testing.assert_array_equal(features.extract(faces, kind, known=KNOWN), alone)


def test_features_joined_by_a_plus_have_the_parts_of_each_once_in_their_order():
    faces = FACES["drawn"][:3]
    lbp, landmarks, gabor_ = (features.extract(faces, kind) for kind in ("lbp", "landmarks", "gabor"))
    found = features.extract(faces, "lbp+landmarks+gabor+landmarks")
    np.testing.assert_array_equal(found, np.concatenate([lbp, landmarks, gabor_], axis=1))
    old = features.extract(faces, "landmarks_hog_windows")
    np.testing.assert_array_equal(features.extract(faces, "landmarks+hog_windows"), old)
    np.testing.assert_array_equal(features.extract(faces, "landmarks+hog"), features.extract(faces, "landmarks_hog"))
    assert features.label("landmarks+lbp") == "+ landmarks + LBP"


@pytest.mark.parametrize(
    ("kind", "hog_of"), [("landmarks_hog", hog_of_face), ("landmarks_hog_windows", hog_of_windows)]
)
def test_landmarks_come_before_hog_and_x_before_y(kind, hog_of):
    faces = FACES["drawn"][:3]
    vectors = features.extract(faces, kind)
    np.testing.assert_array_equal(vectors[:, :136:2], points_of(faces)[..., 0])
    np.testing.assert_array_equal(vectors[:, 1:136:2], points_of(faces)[..., 1])
    np.testing.assert_allclose(vectors[:, 136:], [hog_of(face) for face in faces], atol=1e-5)


# --- local binary patterns, Gabor filters -----------------------------------------------------------------------------


@STACKS
def test_local_binary_patterns_are_those_of_scikit_image(faces):
    theirs = np.stack([local_binary_pattern(face, 8, 1, "nri_uniform") for face in faces])
    assert (features.lbp.codes(faces) != theirs).mean() < 1e-4  # theirs have rounding errors between equal pixels
    cells = theirs.reshape(len(faces), 6, 8, 6, 8).swapaxes(2, 3).reshape(len(faces), 36, 64)
    shares = (cells[..., None] == np.arange(59)).mean(axis=2)
    assert (np.abs(features.lbp.extract(faces) - shares.reshape(len(faces), -1)) > 1e-6).mean() < 1e-4


def test_pixels_of_equal_brightness_have_one_pattern_wherever_they_are():
    inside = features.lbp.codes(FACES["blank"])[:, 1:-1, 1:-1]
    assert (inside == 57).all()


@pytest.mark.parametrize("faces", [FACES["drawn"], FACES["noise"]], ids=["drawn", "noise"])
def test_gabor_energies_are_those_of_scikit_image(faces):
    found = features.gabor.extract(faces[:2]).reshape(-1, 4, 8, 6, 6)
    for face, energies in zip(faces[:2].astype(float), found, strict=True):
        for (scale, direction), energy in zip(
            itertools.product(range(4), range(0, 8, 3)), energies[:, ::3].reshape(-1, 6, 6), strict=True
        ):
            answers = gabor(face, 0.25 / 2 ** (scale / 2), direction * np.pi / 8)
            cells = np.hypot(*answers).reshape(6, 8, 6, 8).mean(axis=(1, 3))
            np.testing.assert_allclose(energy, cells, atol=1e-3)


# --- visual words ----------------------------------------------------------------------------------------------------


def descriptor_of(face: np.ndarray, x: float, y: float) -> np.ndarray:
    """A SIFT descriptor as Lowe describes it (IJCV 2004), upright, of 4×4 parts of 4 pixels around a point."""
    smooth = gaussian_filter(face.astype(float), np.sqrt(1.6**2 - 0.5**2), mode="mirror")
    across, up = np.zeros_like(smooth), np.zeros_like(smooth)
    across[1:-1, 1:-1] = smooth[1:-1, 2:] - smooth[1:-1, :-2]
    up[1:-1, 1:-1] = smooth[:-2, 1:-1] - smooth[2:, 1:-1]
    histogram = np.zeros((6, 6, 8))
    rows, columns = np.mgrid[1:47, 1:47]
    down, right = (rows - round(y)) / 4, (columns - round(x)) / 4
    weights = np.exp(-(down**2 + right**2) / 8) * np.hypot(across, up)[rows, columns]
    angles = (np.degrees(np.arctan2(up, across)) % 360 / 45)[rows, columns]
    near = (np.abs(down) < 2.5) & (np.abs(right) < 2.5)
    for place, weight in zip(np.stack([down + 2.5, right + 2.5, angles], -1)[near], weights[near], strict=True):
        whole = np.floor(place).astype(int)
        for step in itertools.product((0, 1), repeat=3):
            share = np.where(step, place - whole, 1 - (place - whole)).prod()
            row, column, angle = whole + step
            histogram[row, column, angle % 8] += weight * share
    values = histogram[1:5, 1:5].ravel()
    values = np.minimum(values, 0.2 * np.linalg.norm(values))
    return 512 * values / np.linalg.norm(values)


def test_descriptors_are_those_of_the_paper():
    faces = FACES["drawn"][:2]
    found = sift.descriptors(faces).reshape(2, 12, 12, 128)
    for face, (row, column) in itertools.product(range(2), [(5, 5), (6, 3), (4, 8)]):
        expected = descriptor_of(faces[face], 4 * column + 2, 4 * row + 2)
        assert np.corrcoef(found[face, row, column], expected)[0, 1] > 0.99


def test_words_are_counted_in_the_cells_of_the_pyramid():
    faces = FACES["drawn"][:3]
    found = features.extract(faces, "sift", known=KNOWN)
    for face, row in zip(sift.descriptors(faces), found, strict=True):
        nearest = cdist(face, WORDS).argmin(axis=1).reshape(12, 12)
        cells = [part for count in (1, 2, 4) for band in np.split(nearest, count) for part in np.split(band, count, 1)]
        shares = [np.bincount(cell.ravel(), minlength=128) / cell.size for cell in cells]
        np.testing.assert_allclose(row, np.concatenate(shares), atol=1e-6)


def test_vocabulary_is_learned_from_the_faces_and_repeats():
    faces = FACES["drawn"][:2]
    learned = features.learn(["landmarks", "sift"], faces)
    assert learned == features.learn(["sift"], faces)
    words = np.frombuffer(base64.b64decode(learned["sift"]["learned"]), np.uint8).reshape(128, 128)
    windows = sift.descriptors(faces).reshape(-1, 128)
    nearest = cdist(windows, words).argmin(axis=1)
    means = np.stack([windows[nearest == word].mean(axis=0) for word in np.unique(nearest)])
    assert np.abs(means - words[np.unique(nearest)]).mean() < 1  # each is the middle of the windows that it stands for
    assert learned != KNOWN


# --- geometry --------------------------------------------------------------------------------------------------------


def test_geometry_has_the_distances_and_the_turns_of_the_lines():
    points = points_of(FACES["drawn"][:3]).astype(float)
    found = features.geometry.extract(FACES["drawn"][:3])
    for face, values in zip(points, found, strict=True):
        eyes = np.linalg.norm(face[42:48].mean(axis=0) - face[36:42].mean(axis=0))
        np.testing.assert_allclose(values[:2278], pdist(face) / eyes, rtol=1e-5)
        line = face @ [1, 1j]
        turn = np.angle((line[2] - line[1]) / (line[1] - line[0]))  # of the jaw at its second landmark
        corner = np.angle((line[49] - line[48]) / (line[48] - line[59]))  # of the lips at the corner of the mouth
        place = 2278 + features.geometry.TURNS[:, 1].tolist().index(48)
        np.testing.assert_allclose(values[[2278, place]], np.sin([turn, corner]), atol=1e-5)
        np.testing.assert_allclose(values[[2278 + 58, place + 58]], np.cos([turn, corner]), atol=1e-5)


def test_geometry_of_a_moved_face_is_that_of_its_moved_landmarks():
    count = 20
    random = np.random.default_rng(1)
    flips, degrees = np.arange(count) % 2 == 0, random.uniform(-30, 30, count)
    matrices = affine(flips, random.uniform(-4, 4, (count, 2)), random.uniform(0.8, 1.2, count), degrees)
    faces = FACES["drawn"]
    points, vectors = features.landmarks.extract(faces), features.extract(faces, "geometry")
    moved = features.geometry.of_points(features.landmarks.moved(points, matrices, faces))
    found = features.moved(vectors, "geometry", matrices, warp(faces, matrices))
    np.testing.assert_allclose(found, moved, atol=1e-3)
    assert np.abs(found - vectors)[flips].max() > 0.1


# --- dlib's predictor ------------------------------------------------------------------------------------------------


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
