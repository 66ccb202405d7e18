import csv
from collections import Counter

import cv2
import numpy as np
import pytest

import convert_fer2013_to_images_and_landmarks as conversion
from ferkit.constants import EMOTIONS, SPLITS
from ferkit.data.drawn_faces import draw_face, draw_photo, fer2013_rows, main, write_csv


def overlap(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """Area that two boxes (x, y, width, height) share, relative to the area they cover together."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    shared = max(0, width) * max(0, height)
    return shared / (one[2] * one[3] + other[2] * other[3] - shared)


@pytest.mark.parametrize("expression", range(len(EMOTIONS)), ids=EMOTIONS)
def test_face_is_decided_by_the_seed(expression):
    first, again, other = (draw_face(expression, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == (48, 48) and first.dtype == np.uint8
    assert first.std() > 10
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_expression_changes_the_face_and_size_its_resolution():
    happy, sad = (draw_face(EMOTIONS.index(name), np.random.default_rng(5)) for name in ("Happy", "Sad"))
    assert (happy != sad).any()
    assert draw_face(0, np.random.default_rng(5), size=96).shape == (96, 96)


def test_csv_has_the_layout_of_fer2013(tmp_path):
    write_csv(tmp_path / "faces.csv", training=21, public_test=7, private_test=9, seed=3)
    with (tmp_path / "faces.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["emotion", "pixels", "Usage"]
    assert Counter(usage for _, _, usage in rows) == dict(zip(SPLITS, (21, 7, 9), strict=True))
    for split in SPLITS:
        assert {int(label) for label, _, usage in rows if usage == split} == set(range(len(EMOTIONS)))
    for (label, pixels, usage), (drawn_label, face, split) in zip(rows, fer2013_rows((21, 7, 9), 3), strict=True):
        assert (int(label), usage) == (drawn_label, split)
        np.testing.assert_array_equal(np.array(pixels.split(" "), np.uint8).reshape(48, 48), face)


def test_split_does_not_depend_on_the_others():
    short, long = ([row for row in fer2013_rows((count, 7, 0), 0) if row[2] == "PublicTest"] for count in (1, 8))
    assert [row[0] for row in short] == [row[0] for row in long]
    np.testing.assert_array_equal([row[1] for row in short], [row[1] for row in long])


@pytest.mark.parametrize("expressions", [[3], [0, 5], [1, 2, 4, 6]], ids=len)
def test_haar_finds_the_faces_where_they_were_drawn(expressions):
    photo, boxes = draw_photo(expressions, np.random.default_rng(4))
    assert photo.shape == (480, 640, 3) and photo.dtype == np.uint8 and len(boxes) == len(expressions)
    detector = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
    found = detector.detectMultiScale(cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY), 1.1, 5)
    assert len(found) == len(boxes)
    for box in boxes:
        assert max(overlap(box, tuple(map(int, other))) for other in found) > 0.5


def test_photo_is_decided_by_the_seed_and_may_be_empty():
    (one, boxes), (two, again) = (draw_photo([3, 5], np.random.default_rng(7), 240, 320) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert boxes == again
    assert draw_photo([], np.random.default_rng(0), 60, 80)[1] == []


def test_command_writes_both(tmp_path):
    faces, photo = tmp_path / "new" / "faces.csv", tmp_path / "photo.png"
    assert main([f"--output={faces}", "--training=8", "--public_test=7", "--private_test=7", f"--photo={photo}"]) == 0
    assert len(faces.read_text().splitlines()) == 1 + 8 + 7 + 7
    assert cv2.imread(str(photo)).shape == (480, 640, 3)


@pytest.mark.parametrize("flags", [[], ["--photo=photo.txt"], ["--output=/dev/null/faces.csv"]])
def test_command_names_what_is_wrong(flags, capsys):
    assert main(flags) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    ("command", "flag"), [(main, "--seed"), (main, "--training"), (conversion.main, "--split_seed")]
)
def test_numbers_below_zero_are_refused(command, flag, capsys):
    with pytest.raises(SystemExit) as exit:
        command([f"{flag}=-1"])
    assert exit.value.code == 2
    assert f"argument {flag}: '-1' is not a whole number of 0 or more" in capsys.readouterr().err
