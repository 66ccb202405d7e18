"""Recognition as a user meets it: pictures of every kind in, expressions, boxes and clear errors out."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

import predict
from ferkit import features, recognition, saved_model
from ferkit.constants import DEFAULT_MODEL, EMOTIONS
from ferkit.data.dataset import open_dataset
from ferkit.data.drawn_faces import draw_photo
from ferkit.errors import UserError
from ferkit.recognition import Recognizer
from ferkit.vision.albums import each_once, output_paths, pictures
from ferkit.vision.boxes import Box
from ferkit.vision.detection import DETECTORS, Found
from ferkit.vision.pictures import read_image
from parameters import VIDEO_PREDICTOR

HAPPY, SURPRISE = 3, 5


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    """A photograph of two drawn people, one happy and one surprised."""
    path = tmp_path_factory.mktemp("photo") / "two.png"
    cv2.imwrite(str(path), draw_photo((HAPPY, SURPRISE), np.random.default_rng(3))[0])
    return path


@pytest.fixture(scope="module")
def recognizer(small_model) -> Recognizer:
    return Recognizer(small_model)


def main(*arguments: object) -> int:
    return predict.main([str(argument) for argument in arguments])


def test_a_row_of_the_dataset_and_the_same_face_as_a_picture_are_one(recognizer, drawn_dataset, tmp_path):
    """The features of conversion and of prediction, and the probabilities, are equal to the last bit."""
    split = open_dataset(drawn_dataset).load("PrivateTest", "landmarks")
    balance = recognizer.settings.balance
    expected = recognizer.model.predict(split.images[:1], split.features[:1], balance=balance)[0]
    cv2.imwrite(str(tmp_path / "face.png"), split.images[0])
    image = read_image(tmp_path / "face.png")
    (face,) = recognizer.recognize(image)
    np.testing.assert_array_equal(features.extract(image[None, :, :, 0], "landmarks"), split.features[:1])
    assert list(face.probabilities.values()) == expected.tolist()
    assert face.box == (0, 0, 48, 48) and face.confidence == expected.max()


def test_faces_in_a_photo_get_their_own_expressions(recognizer):
    hits = 0
    for seed in range(6):
        image, truth = draw_photo((HAPPY, SURPRISE), np.random.default_rng(seed))
        found = recognizer.recognize(image)
        assert len(found) == 2
        for (x, y, width, _), expression in zip(truth, ("Happy", "Surprise"), strict=True):
            face = min(found, key=lambda face: abs(face.box.x - x) + abs(face.box.y - y))
            assert abs(face.box.x + face.box.width / 2 - (x + width / 2)) < width / 4
            hits += face.expression == expression
    assert hits >= 9, "of 12; guessing gets 2"


def test_photo_is_told_in_words(small_model, photo, tmp_path, capsys):
    assert main("--image", photo, "--model_path", small_model, "--output", tmp_path / "annotated.png") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.startswith("Prediction: ") for line in lines] == [True, True, False]
    assert "(confidence: " in lines[0] and " at x=" in lines[0] and lines[2].startswith("Time: ")
    changed = (read_image(tmp_path / "annotated.png") != read_image(photo)).any(axis=2)
    assert 0.005 < changed.mean() < 0.3, "boxes and labels are drawn, the rest is left"


def test_photo_is_told_in_json(small_model, photo, capsys):
    assert main("--image", photo, "--model_path", small_model, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["image"] == str(photo) and len(answer["faces"]) == 2
    for face in answer["faces"]:
        assert len(face["box"]) == 4 and set(face["probabilities"]) == {*VIDEO_PREDICTOR.emotions}
        assert face["confidence"] == face["probabilities"][face["expression"]] == max(face["probabilities"].values())
        assert sum(face["probabilities"].values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA", "I;16", "CMYK", "upside down"])
def test_every_kind_of_picture_gives_the_same_answer(recognizer, drawn_dataset, tmp_path, mode):
    face = np.load(drawn_dataset / "PrivateTest" / "images.npy")[0]
    picture, suffix, options = Image.fromarray(face), "png", {}
    if mode == "I;16":
        picture = Image.fromarray(face.astype(np.uint16) * 257)
    elif mode == "CMYK":
        picture, suffix = picture.convert("CMYK"), "tif"
    elif mode == "upside down":
        picture, options = picture.rotate(180), {"exif": Image.Exif()}
        options["exif"][0x0112] = 3  # EXIF's orientation: turned by 180 degrees
    elif mode != "L":
        picture = picture.convert(mode)
    picture.save(tmp_path / f"face.{suffix}", **options)
    expected = recognizer.classify([Found(Box(0, 0, 48, 48), 1.0, 0.0)], [face])[0].probabilities
    (found,) = recognizer.recognize(read_image(tmp_path / f"face.{suffix}"))
    assert found.probabilities == pytest.approx(expected, abs=0.02)


def test_batch_goes_on_after_a_bad_file(small_model, photo, tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    shutil.copy(photo, folder / "b.png")
    shutil.copy(photo, folder / "c.png")
    (folder / "a.png").write_bytes(photo.read_bytes()[:2000])
    status = main("--image", folder, "--model_path", small_model, "--output", tmp_path / "out")
    output = capsys.readouterr()
    assert status == 2
    assert len(output.err.splitlines()) == 1 and "a.png" in output.err
    assert f"{folder / 'b.png'}:" in output.out and output.out.count("Prediction: ") == 4
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b.png", "c.png"]


def test_no_face_is_said_with_status_1(small_model, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "sky.png"), np.full((200, 300, 3), 180, np.uint8))
    assert main("--image", tmp_path / "sky.png", "--model_path", small_model) == 1
    assert capsys.readouterr().out.startswith("No face found")


@pytest.mark.parametrize(
    ("content", "fragment"), [(None, "no such file"), (b"", "empty"), (b"words, not pixels", "not a picture")]
)
def test_unusable_file_gets_one_line(small_model, tmp_path, content, fragment, capfd):
    path = tmp_path / "picture.jpg"
    if content is not None:
        path.write_bytes(content)
    assert main("--image", path, "--model_path", small_model) == 2
    output, errors = capfd.readouterr()  # of native libraries, too
    (line,) = errors.splitlines()
    assert line.startswith("error: ") and "picture.jpg" in line and fragment in line and output == ""


def test_without_any_model_the_way_to_one_is_said(photo, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(saved_model, "shipped", lambda name=None: tmp_path / "pretrained" / "saved_model.bin")
    assert main("--image", photo) == 2
    output = capsys.readouterr()
    assert output.out == "" and len(output.err.splitlines()) == 1
    assert "no trained model at best_model/saved_model.bin: run 'python train.py --train=yes'" in output.err


def test_shipped_model_is_used_until_one_is_trained(small_model, photo, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    trained, shipped = Path("best_model/saved_model.bin"), tmp_path / "pretrained" / "saved_model.bin"
    monkeypatch.setattr(saved_model, "shipped", lambda name=None: shipped)
    assert recognition.model_to_use() == trained, "where the error will name it"
    shipped.parent.mkdir()
    shutil.copy(small_model, shipped)
    assert recognition.model_to_use() == Recognizer().model_path == Path(DEFAULT_MODEL)
    assert main("--image", photo, "--model_path", "other.bin") == 2, "a model that is named is never replaced"
    assert "no trained model at other.bin" in capsys.readouterr().err
    assert main("--image", photo) == 0
    (note,) = capsys.readouterr().err.splitlines()
    assert (
        "no trained model at best_model/saved_model.bin yet" in note and f"the included model {DEFAULT_MODEL}" in note
    )

    trained.parent.mkdir()
    shutil.copy(small_model, trained)
    assert recognition.model_to_use() == trained and Recognizer().model_path == trained
    assert main("--image", photo) == 0
    assert capsys.readouterr().err == ""


def test_shipped_model_answers_as_if_it_had_been_named(photo, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    answers = []
    for flags in ([], ["--model_path", DEFAULT_MODEL]):
        assert main("--image", photo, "--json", *flags) == 0
        answers.append(json.loads(capsys.readouterr().out)["faces"])  # the note is not among the JSON
    assert answers[0] == answers[1]


def test_test_time_augmentation_changes_probabilities_a_little(
    small_model, recognizer, drawn_dataset, tmp_path, capsys
):
    faces = np.load(drawn_dataset / "PrivateTest" / "images.npy")[:10]
    for number, face in enumerate(faces):
        cv2.imwrite(str(tmp_path / f"{number}.png"), face)
    assert main("--image", tmp_path, "--model_path", small_model, "--json", "--test_time_augmentation=yes") == 0
    lines = capsys.readouterr().out.splitlines()
    averaged = np.array([[*json.loads(line)["faces"][0]["probabilities"].values()] for line in lines])
    plain = recognizer.model.predict(faces, features.extract(faces, "landmarks"))
    np.testing.assert_allclose(averaged.sum(axis=1), 1, atol=1e-5)
    assert (averaged != plain).any(axis=1).all() and np.abs(averaged - plain).mean() < 0.15


def test_empty_folder_is_said(small_model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert main("--image", "empty", "--model_path", small_model) == 2
    assert capsys.readouterr().err.startswith("error: no picture in the folder empty")


def test_what_is_no_picture_in_a_folder_ends_nothing(photo, small_model, tmp_path, capsys):
    album = tmp_path / "album"
    album.mkdir()
    shutil.copy(photo, album / "photo.png")
    (album / "._photo.png").write_bytes(b"what macOS puts beside it")
    assert pictures(str(album)) == [str(album / "photo.png")]
    (album / "circle.png").symlink_to("circle.png")
    flags = "--output", tmp_path / "out", "--model_path", small_model
    assert main("--image", album, f"{'long' * 70}.png", *flags) == 2
    output = capsys.readouterr()
    assert output.err.startswith("error: ") and "circle.png" in output.err and "photo.png" in output.out
    assert "File name too long" in output.err
    assert (tmp_path / "out" / "photo.png").exists()


@pytest.fixture
def albums(photo, tmp_path, monkeypatch) -> Path:
    """Folders with pictures of the same name, one with a single picture, a file where a folder is wanted."""
    for name in (
        "one/face.png",
        "two/deep/face.png",
        "two/deep/other.webp",
        "gifs/face.gif",
        "gifs/face.gif.png",
        "taken",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def places(images: list[str], output: str) -> dict[str, str]:
    chosen = {image: pictures(image) for image in images}
    paths = each_once(path for album in chosen.values() for path in album)
    return {path: place.as_posix() for path, place in output_paths(chosen, paths, output).items()}


@pytest.mark.parametrize(
    ("images", "output", "expected"),
    [
        (["one/face.png"], "named.png", {"one/face.png": "named.png"}),
        (["one/face.png", "taken"], "out", {"one/face.png": "out/face.png", "taken": "out/taken.png"}),
        (["one"], "out", {"one/face.png": "out/face.png"}),
        (["two"], "out", {"two/deep/face.png": "out/deep/face.png", "two/deep/other.webp": "out/deep/other.webp"}),
        (["one", "two/deep"], "out", {"one/face.png": "out/one/face.png", "two/deep/face.png": "out/deep/face.png",
                                      "two/deep/other.webp": "out/deep/other.webp"}),
        (["one/face.png", "./one"], "out", {"one/face.png": "out/face.png"}),
        (["two/deep/*"], "out", {"two/deep/face.png": "out/face.png", "two/deep/other.webp": "out/other.webp"}),
        (["one/f*.png"], "out", {"one/face.png": "out/face.png"}),
    ],
)  # fmt: skip
def test_annotated_copies_keep_apart(albums, images, output, expected):
    assert places(images, output) == expected


@pytest.mark.parametrize(
    ("images", "output", "fragment"),
    [
        (["one/face.png"], "one/face.png", "would overwrite"),
        (["one"], "one", "--output=one lies in a folder that is read"),
        (["two"], "two/deep/out", "--output=two/deep/out lies in a folder that is read"),
        (["two/**/*.png"], "two/out", "--output=two/out lies in a folder that is read"),
        (["two/deep/*.png"], "two/deep", "would overwrite"),
        (["one/face.png", "two/deep/face.png"], "out", "one after another"),
        (["gifs"], "out", "one after another"),
        (["one", "two"], "taken", "must be a folder"),
        (["one/face.png"], "two", "must be a file"),
        (["one/face.png"], "named.txt", "no suffix of a picture"),
    ],
)
def test_no_picture_is_overwritten(albums, images, output, fragment, small_model, capsys):
    before = {path: path.read_bytes() for path in albums.rglob("*") if path.is_file()}
    assert main("--image", *images, "--output", output, "--model_path", small_model) == 2
    assert fragment in capsys.readouterr().err
    assert {path: path.read_bytes() for path in albums.rglob("*") if path.is_file()} == before


def test_no_explanation_is_overwritten(albums, small_model, capsys):
    images = "one/face.png", "two/deep/face.png"
    assert main("--image", *images, "--explain", "why", "--model_path", small_model) == 2
    assert "the explanation of two/deep/face.png would overwrite another in why/face.png" in capsys.readouterr().err
    assert not (albums / "why").exists()


def test_batch_goes_on_after_a_name_that_is_too_long_for_its_explanation(albums, small_model, capsys):
    name = f"{'x' * 247}.png"
    shutil.copy("taken", name)
    images = name, "one/face.png"
    assert main("--image", *images, "--explain", "why", "--model_path", small_model, "--processes=1") == 2
    assert (
        f"error: cannot write why/{name}_1_crop.png: File name too long: name another place" in capsys.readouterr().err
    )
    assert (albums / "why" / "face.png_1.png").exists()


def test_boxes_of_a_very_large_picture_are_in_its_pixels(small_model, photo, monkeypatch, capsys):
    assert main("--image", photo, "--model_path", small_model, "--json") == 0
    whole = json.loads(capsys.readouterr().out)["faces"]
    monkeypatch.setattr("ferkit.vision.pictures._LONGEST_SIDE", max(Image.open(photo).size) // 2)
    narrower = min(face["box"][2] for face in whole) * 3 // 4
    assert main("--image", photo, "--model_path", small_model, "--json", f"--smallest_face={narrower}") == 0
    shrunk = json.loads(capsys.readouterr().out)["faces"]
    assert np.allclose([face["box"] for face in shrunk], [face["box"] for face in whole], atol=25)


def test_batch_goes_on_after_an_empty_folder_and_a_copy_that_cannot_be_written(small_model, albums, capsys):
    (albums / "empty").mkdir()
    (albums / "out" / "face.png").mkdir(parents=True)
    assert main("--image", "empty", "one/face.png", "taken", "--output", "out", "--model_path", small_model) == 2
    output = capsys.readouterr()
    assert output.out.count("Prediction: ") == 4, "what was recognized is told even where its copy cannot be written"
    assert "no picture in the folder empty" in output.err and "out/face.png" in output.err
    assert (albums / "out" / "taken.png").is_file()


@pytest.mark.parametrize(
    "flag", ["--margin=nan", "--margin=1000", "--detection_confidence=0", "--detection_confidence=nan"]
)
def test_senseless_settings_are_refused(small_model, photo, flag, capsys):
    assert main("--image", photo, "--model_path", small_model, flag) == 2
    assert flag[2:].split("=")[0] in capsys.readouterr().err


@pytest.mark.parametrize("shape", [(7000, 1, 3), (1, 7000, 3), (3, 3, 3)])
@pytest.mark.parametrize("detector", [name for name in DETECTORS if name != "yunet"])  # its file is the user's own
def test_extreme_pictures_do_no_harm(recognizer, shape, detector, tmp_path):
    cv2.imwrite(str(tmp_path / "thin.png"), np.full(shape, 120, np.uint8))
    settings = replace(VIDEO_PREDICTOR, detector=detector, detection_confidence=0.01)
    thin = Recognizer.__new__(Recognizer)
    thin.__dict__ = {**recognizer.__dict__, "settings": settings}
    assert all(face.confidence > 0 for face in thin.recognize(read_image(tmp_path / "thin.png")))


def test_another_landmark_predictor_than_in_training_is_refused(small_model, monkeypatch):
    other = replace(features.PARTS["landmarks"], provenance=lambda path: {"shape_predictor_sha256": "another"})
    monkeypatch.setitem(features.PARTS, "landmarks", other)
    with pytest.raises(UserError, match="another landmark predictor"):
        Recognizer(small_model)


def test_file_names_beyond_the_terminals_letters_are_no_obstacle(small_model, photo, tmp_path):
    shutil.copy(photo, tmp_path / "笑.png")
    command = [sys.executable, str(ROOT / "predict.py"), "--image", "笑.png", "笑.png", str(photo), "--model_path"]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    run = subprocess.run([*command, str(small_model)], cwd=tmp_path, capture_output=True, env=environment)
    assert run.returncode == 0 and run.stdout.count(b"Prediction") == 4, run.stderr


def test_names_come_from_the_model(small_model, photo, monkeypatch, capsys):
    assert main("--image", photo, "--model_path", small_model) == 0
    assert capsys.readouterr().err == "", "names that were not edited are no disagreement"


def test_names_that_were_edited_are_shown(small_model, photo, monkeypatch, capsys):
    names = ("Wütend", "Ekel", "Angst", "Glücklich", "Traurig", "Erstaunt", "Neutral")
    monkeypatch.setattr(predict, "VIDEO_PREDICTOR", replace(VIDEO_PREDICTOR, emotions=names))
    assert main("--image", photo, "--model_path", small_model, "--json") == 0
    faces = json.loads(capsys.readouterr().out)["faces"]
    assert [face["expression"] for face in faces] == ["Glücklich", "Erstaunt"]
    assert tuple(faces[0]["probabilities"]) == names


@pytest.mark.parametrize("names", [("Sad", "Happy"), ("Sad",) * 7, EMOTIONS[::-1]])
def test_names_that_fit_no_model_are_refused(small_model, photo, monkeypatch, capsys, names):
    monkeypatch.setattr(predict, "VIDEO_PREDICTOR", replace(VIDEO_PREDICTOR, emotions=names))
    assert main("--image", photo, "--model_path", small_model) == 2
    assert "write a new name for each of these, in this order" in capsys.readouterr().err


def test_prediction_imports_no_tensorflow(small_model, photo, tmp_path):
    code = (
        "import sys, predict; status = predict.main(['--image', sys.argv[1], '--model_path', sys.argv[2]]); "
        "loaded = {'tensorflow', 'tflearn', 'keras', 'matplotlib', 'skimage'} & set(sys.modules); "
        "assert not loaded, loaded; sys.exit(status)"
    )
    command = [sys.executable, "-c", code, str(photo), str(small_model)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""


def test_raw_pixel_model_needs_no_dlib(tmp_path, photo, raw_model):
    code = "import sys, predict; predict.main(sys.argv[1:]); assert 'dlib' not in sys.modules"
    command = [sys.executable, "-c", code, "--image", str(photo), "--model_path", str(raw_model)]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0
    assert saved_model.load(raw_model).features == "none"
