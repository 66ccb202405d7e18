"""Changed faces against numpy's slices, dlib's own landmarks and dots that are followed; nothing but what was asked."""

from dataclasses import fields

import numpy as np
import pytest
from test_features import KNOWN

from ferkit import features
from ferkit.constants import SHAPE_PREDICTOR
from ferkit.data.drawn_faces import draw_face
from ferkit.learning.augmentation import augment
from ferkit.settings import Augmentation
from ferkit.transforms import VIEWS, affine, average_over_views, views

SHARES = ("shift", "zoom", "contrast", "brightness")  # the others are probabilities or degrees
MIDDLE = 23.5  # of 48 pixels
MOVING = Augmentation(flip=True, shift=0.1, zoom=0.2, rotation=20)
EVERYTHING = Augmentation(
    flip=True,
    shift=0.1,
    zoom=0.1,
    rotation=12,
    contrast=0.2,
    brightness=0.1,
    erasing=0.5,
    blur=0.3,
    jpeg=0.3,
    darkness=0.3,
)


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    random = np.random.default_rng(0)
    return np.stack([draw_face(number % 7, random) for number in range(14)])


def no_vectors(images: np.ndarray) -> np.ndarray:
    return np.zeros((len(images), 0), np.float32)


def changed(images: np.ndarray, seed: int = 0, **settings: float) -> np.ndarray:
    """Only the pictures, under these settings."""
    return augment(images, no_vectors(images), "none", Augmentation(**settings), np.random.default_rng(seed))[0]


def dots(points: np.ndarray) -> np.ndarray:
    """A dark picture for each point (N, 2), with a soft bright dot there: (N, 48, 48) uint8."""
    y, x = np.mgrid[:48, :48]
    squares = (x - points[:, 0, None, None]) ** 2 + (y - points[:, 1, None, None]) ** 2
    return np.rint(255 * np.exp(-squares / (2 * 1.5**2))).astype(np.uint8)


def centroids(images: np.ndarray) -> np.ndarray:
    """Where the dots are: (N, 2)."""
    weights = images / images.sum(axis=(1, 2), keepdims=True, dtype=float)
    pixels = np.arange(48)
    return np.stack([weights.sum(axis=1) @ pixels, weights.sum(axis=2) @ pixels], axis=1)


# --- where things go -------------------------------------------------------------------------------------------------


def test_views_are_the_face_its_enlargements_and_their_mirror_images(faces):
    found = list(views(faces, no_vectors(faces), "none"))
    assert len(found) == 2 * len(VIEWS)
    np.testing.assert_array_equal(found[0][0], faces, err_msg="the first is the face itself")
    np.testing.assert_array_equal(found[1][0], faces[:, :, ::-1])
    for (moved, _), (mirrored, _) in zip(found[::2], found[1::2], strict=True):
        assert np.abs(mirrored[:, :, ::-1].astype(int) - moved).mean() < 1, "OpenCV's positions are rounded"


def test_enlarged_view_is_the_middle_of_the_face():
    y, x = np.mgrid[:48, :48]
    slope = (4 * x + y)[None].astype(np.uint8)
    zoom = max(VIEWS)
    moved = list(views(slope, no_vectors(slope), "none"))[2 * VIEWS.index(zoom)][0]
    assert zoom > 1
    expected = 4 * (MIDDLE + (x - MIDDLE) / zoom) + MIDDLE + (y - MIDDLE) / zoom
    np.testing.assert_allclose(moved[0], expected, atol=1)


def test_dots_go_where_the_landmarks_go():
    random = np.random.default_rng(3)
    count = features.landmarks.LANDMARKS * 2
    numbers = np.arange(count) % features.landmarks.LANDMARKS  # each landmark twice
    points = random.uniform(18, 30, (count, features.landmarks.LANDMARKS, 2)).astype(np.float32)
    images = dots(points[np.arange(count), numbers])
    moved, vectors = augment(images, points.reshape(count, -1), "landmarks", MOVING, random)
    distances = np.linalg.norm(vectors.reshape(count, -1, 2) - centroids(moved)[:, None], axis=2)
    plain = distances[np.arange(count), numbers] < 0.15
    mirrored = distances[np.arange(count), np.array(features.landmarks.MIRRORED)[numbers]] < 0.15
    assert (plain | mirrored).all()
    assert count / 4 < plain.sum() < 3 * count / 4, "about half are mirrored"
    assert np.linalg.norm(centroids(moved) - centroids(images), axis=1).mean() > 1.5, "and all have moved"


def test_landmarks_of_mirrored_faces_change_sides(faces):
    points = features.landmarks.extract(faces)
    moved, vectors = augment(
        faces, points.reshape(len(faces), -1), "landmarks", Augmentation(flip=True), np.random.default_rng(0)
    )
    is_mirrored = [np.array_equal(image, face[:, ::-1]) for image, face in zip(moved, faces, strict=True)]
    assert 0 < sum(is_mirrored) < len(faces)
    for image, face, vector, before, mirrored in zip(moved, faces, vectors, points, is_mirrored, strict=True):
        np.testing.assert_array_equal(image, face[:, ::-1] if mirrored else face)
        expected = before[list(features.landmarks.MIRRORED)] * (-1, 1) + (47, 0) if mirrored else before
        np.testing.assert_allclose(vector.reshape(-1, 2), expected, atol=1e-4)


def test_mirrored_landmarks_are_dlibs_own(faces):
    order = np.array(features.landmarks.MIRRORED)
    np.testing.assert_array_equal(
        order[order], np.arange(features.landmarks.LANDMARKS), "mirrored twice, a face is itself"
    )
    points, mirrored = features.landmarks.extract(faces), features.landmarks.extract(faces[:, :, ::-1])
    mirror = affine(np.array([True]), np.zeros((1, 2)), np.ones(1), np.zeros(1))
    moved = features.landmarks.moved(points, np.repeat(mirror, len(faces), axis=0), faces)
    distances = np.linalg.norm(moved[:, :, None] - mirrored[:, None], axis=3).mean(axis=0)
    assert np.diag(distances).mean() < 1 and np.diag(distances).max() < 2
    np.testing.assert_array_equal(
        distances.argmin(axis=1), range(features.landmarks.LANDMARKS), "each is nearest to itself"
    )


# --- features --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*features.FEATURES, "lbp+gabor", "sift+landmarks"])
def test_hog_is_that_of_the_changed_face_before_it_was_erased(faces, kind):
    vectors = features.extract(faces, kind, known=KNOWN)
    whole, expected = augment(
        faces, vectors, kind, Augmentation(**{**vars(EVERYTHING), "erasing": 0}), np.random.default_rng(5), KNOWN
    )
    erased, found = augment(faces, vectors, kind, EVERYTHING, np.random.default_rng(5), KNOWN)
    assert found.dtype == np.float32 and found.shape == vectors.shape
    assert (whole != erased).any()
    np.testing.assert_array_equal(found, expected)
    place = 0
    for name in features.parts_of(kind):
        size = int(np.prod(features.PARTS[name].shape))
        if features.PARTS[name].moved is None:
            again = features.extract_part(name, whole, SHAPE_PREDICTOR, KNOWN)
            np.testing.assert_array_equal(found[:, place : place + size], again)
        place += size


def test_views_bring_their_own_features(faces):
    vectors = features.extract(faces, "landmarks_hog")
    points = vectors[:, :136].reshape(-1, 68, 2)
    for number, (moved, found) in enumerate(views(faces, vectors, "landmarks_hog")):
        np.testing.assert_array_equal(found[:, 136:], features.hog.face(moved))
        zoom = VIEWS[number // 2]
        if number % 2 == 0:
            expected = MIDDLE + zoom * (points - MIDDLE)
            np.testing.assert_allclose(found[:, :136].reshape(-1, 68, 2), expected, atol=1e-4)


# --- chance ----------------------------------------------------------------------------------------------------------


def test_chance_comes_from_the_generator_alone_and_what_is_given_stays(faces):
    images, vectors = faces.copy(), features.extract(faces, "landmarks_hog")
    before = vectors.copy()

    def augmented(seed: int) -> tuple[np.ndarray, np.ndarray]:
        return augment(images, vectors, "landmarks_hog", EVERYTHING, np.random.default_rng(seed))

    first, again, other = augmented(0), augmented(0), augmented(1)
    for one, two, three in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one, two)
        assert all((one[row] != three[row]).any() for row in range(len(faces)))
    assert all((first[0][row] != faces[row]).any() for row in range(len(faces)))
    np.testing.assert_array_equal(images, faces)
    np.testing.assert_array_equal(vectors, before)


def test_without_settings_nothing_is_touched(faces):
    vectors = no_vectors(faces)
    images, same = augment(faces, vectors, "none", Augmentation(), np.random.default_rng(0))
    assert images is faces and same is vectors


@pytest.mark.parametrize("name", [field.name for field in fields(Augmentation)])
def test_each_setting_alone_changes_faces(faces, name):
    moved = changed(faces, **{name: True if name == "flip" else 0.1 if name in SHARES else 1.0})
    assert moved.shape == faces.shape and moved.dtype == np.uint8
    assert (moved != faces).any()


# --- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["shift", "zoom", "rotation"])
def test_movements_keep_within_their_bounds_and_fill_them(name):
    """Two landmarks tell a movement: the face's middle, and a place 10 pixels to its right."""
    bound = {"shift": 0.1, "zoom": 0.25, "rotation": 15.0}[name]
    count = 400
    points = np.full((count, features.landmarks.LANDMARKS, 2), MIDDLE, np.float32)
    points[:, 1, 0] += 10
    settings, random = Augmentation(**{name: bound}), np.random.default_rng(0)
    images = np.zeros((count, 48, 48), np.uint8)
    _, vectors = augment(images, points.reshape(count, -1), "landmarks", settings, random)
    moved = vectors.reshape(points.shape)
    shift, arm = moved[:, 0] - MIDDLE, moved[:, 1] - moved[:, 0]
    zoom, degrees = np.hypot(*arm.T) / 10, np.degrees(np.arctan2(arm[:, 1], arm[:, 0]))
    found = {
        "shift": (shift, -bound * 48, bound * 48),
        "zoom": (zoom, 1 / (1 + bound), 1 + bound),
        "rotation": (degrees, -bound, bound),
    }
    values, lowest, highest = found.pop(name)
    assert values.min() >= lowest - 1e-3 and values.max() <= highest + 1e-3
    reach = 0.05 * (highest - lowest)
    assert values.min() < lowest + reach and values.max() > highest - reach
    assert abs(np.median(values) - (1 if name == "zoom" else 0)) < 2 * reach
    for values, lowest, highest in found.values():
        np.testing.assert_allclose(values, (lowest * highest) ** 0.5 if lowest > 0 else 0, atol=1e-3)


def test_shifted_and_turned_pictures_repeat_their_border():
    white = np.full((20, 48, 48), 255, np.uint8)
    assert (changed(white, flip=True, shift=0.3, zoom=0.5, rotation=45) == 255).all(), "no dark corners"


def test_brightness_adds_up_to_its_share_of_white():
    images = np.random.default_rng(0).integers(60, 190, (200, 48, 48), dtype=np.uint8)
    difference = changed(images, brightness=0.1).astype(int) - images
    np.testing.assert_array_equal(difference.min(axis=(1, 2)), difference.max(axis=(1, 2)), "every pixel alike")
    assert -26 <= difference.min() < -22 and 22 < difference.max() <= 26


def test_contrast_scales_around_the_mean():
    images = np.random.default_rng(0).integers(80, 170, (200, 48, 48), dtype=np.uint8)
    relit = changed(images, contrast=0.3)
    np.testing.assert_allclose(relit.mean(axis=(1, 2)), images.mean(axis=(1, 2)), atol=0.5)
    ratio = relit.std(axis=(1, 2)) / images.std(axis=(1, 2))
    assert 0.69 < ratio.min() < 0.75 and 1.25 < ratio.max() < 1.31


def test_degraded_faces_are_dark_blurred_or_compressed_by_no_more_than_is_said(faces):
    many = np.repeat(faces, 30, axis=0)
    left = changed(many, darkness=1).mean(axis=(1, 2)) / many.mean(axis=(1, 2))
    assert 0.09 < left.min() < 0.13 and 0.9 < left.max() <= 1 and 0.25 < np.median(left) < 0.4, "the logarithm is even"
    sharp, soft, coarse = (np.diff(images.astype(float), axis=2) for images in (
        many, changed(many, blur=1), changed(many, jpeg=1)
    ))  # fmt: skip
    assert (np.square(soft).mean(axis=(1, 2)) < 0.95 * np.square(sharp).mean(axis=(1, 2))).all()
    errors = np.abs(changed(many, jpeg=1).astype(float) - many).mean(axis=(1, 2))
    assert 1 < errors.min() < 3 and 6 < errors.max() < 20, "from hardly to clearly visible"
    assert np.square(coarse).mean() != np.square(sharp).mean()


def test_light_stops_at_black_and_white():
    images = np.concatenate([np.zeros((20, 48, 48), np.uint8), np.full((20, 48, 48), 255, np.uint8)])
    relit = changed(images, brightness=0.5)
    assert relit[:20].min() == 0 and 0 < relit[:20].max() <= 128
    assert relit[20:].max() == 255 and 127 <= relit[20:].min() < 255, "nothing wraps round"


def test_erased_rectangles_keep_within_their_bounds():
    images = np.full((400, 48, 48), 100, np.uint8)
    hidden = changed(images, erasing=0.5) != images
    rows = np.flatnonzero(hidden.any(axis=(1, 2)))
    assert 150 < len(rows) < 250, "half of the faces"
    shares = []
    for row in rows:
        y, x = np.nonzero(hidden[row])
        height, width = np.ptp(y) + 1, np.ptp(x) + 1
        shares.append(height * width / 48**2)
        assert hidden[row].sum() > 0.9 * height * width, "noise, in a rectangle"
        assert 1 / 3.5 < height / width < 3.5
    assert 0.015 < min(shares) < 0.04 and 0.18 < max(shares) < 0.21
    assert hidden.any(axis=(0, 1)).all() and hidden.any(axis=(0, 2)).all(), "in every column and row"


def test_edited_defaults_are_settings_like_any(faces, monkeypatch):
    edited = Augmentation(flip=True)
    monkeypatch.setattr(Augmentation, "__eq__", lambda one, other: True)  # as if flip=True were the default
    images, _ = augment(faces, no_vectors(faces), "none", edited, np.random.default_rng(0))
    assert (images != faces).any()


# --- test-time augmentation ------------------------------------------------------------------------------------------


def test_average_is_over_all_views(faces):
    seen = []

    def predict(images: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        seen.append((images, vectors))
        return np.full((len(images), 2), [len(seen), 1 / len(seen)], np.float32)

    vectors = features.extract(faces, "landmarks")
    average = average_over_views(predict, faces, vectors, "landmarks")
    assert len(seen) == 6
    np.testing.assert_array_equal(seen[0][0], faces)
    np.testing.assert_allclose(seen[0][1], vectors, atol=1e-4)
    np.testing.assert_allclose(average, [[3.5, sum(1 / n for n in range(1, 7)) / 6]] * len(faces), rtol=1e-6)


def test_a_face_and_its_mirror_image_get_one_answer(faces):
    weights = np.random.default_rng(0).normal(size=(48 * 48 + 136, 3)) / 1000

    def predict(images: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        return np.concatenate([images.reshape(len(images), -1), vectors], axis=1) @ weights

    points = features.landmarks.extract(faces)
    mirrored = points[:, list(features.landmarks.MIRRORED)] * np.float32([-1, 1]) + np.float32([47, 0])
    one = average_over_views(predict, faces, points.reshape(len(faces), -1), "landmarks")
    two = average_over_views(predict, faces[:, :, ::-1], mirrored.reshape(len(faces), -1), "landmarks")
    flat = points.reshape(len(faces), -1)
    alone = np.abs(predict(faces, flat) - predict(faces[:, :, ::-1], flat)).max()
    assert alone > 1 and np.abs(one - two).max() < 0.02 * alone
