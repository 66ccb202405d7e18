"""Folders of pictures of any layout, and csv files of any kind: read where the meaning is plain, else one line."""

import json
import tarfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import load_script, train_model
from test_conversion import LINES, NO_FEATURES, ROWS, assert_holds, text

import convert_fer2013_to_images_and_landmarks as conversion
import train
from ferkit import saved_model
from ferkit.errors import UserError

RANDOM = np.random.default_rng(3)


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(*names: str, each: int = 1) -> None:
    """Writes pictures of noise into these folders, or with these names."""
    for name in names:
        for number in range(each):
            path = Path("faces", name if "." in Path(name).name else f"{name}/{number}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), RANDOM.integers(0, 256, (48, 48)).astype(np.uint8))


def convert(*flags: str) -> dict:
    assert conversion.main([*NO_FEATURES, "--input=faces", "--folder=out", *flags]) == 0
    return json.loads(Path("out", "manifest.json").read_text())


def error_of(capsys, *flags: str) -> str:
    assert conversion.main([*NO_FEATURES, "--folder=out", *flags]) == 2
    assert not Path("out").exists()
    return capsys.readouterr().err.splitlines()[-1]


# --- the names of classes --------------------------------------------------------------------------------------------


def test_other_names_of_the_seven_are_understood():
    put("train/anger", "train/Happiness", "train/sadness", "train/Surprised", "test/fearful", "valid/Disgusted")
    manifest = convert()
    assert manifest["expressions"] == ["Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise"], "in FER2013's order"
    assert {split: facts["count"] for split, facts in manifest["splits"].items()} == {
        "Training": 4, "PublicTest": 1, "PrivateTest": 1,
    }  # fmt: skip
    assert manifest["splits"]["PrivateTest"]["expressions"]["Fear"] == 1 and manifest["dropped"] == {}


def test_numbers_of_raf_db_are_understood():
    for number in range(1, 8):
        put(f"train/{number}", each=number)
    counts = convert()["splits"]["Training"]["expressions"]
    assert counts == {"Angry": 6, "Disgust": 3, "Fear": 2, "Happy": 4, "Sad": 5, "Surprise": 1, "Neutral": 7}


def test_file_names_of_jaffe_are_understood():
    put("KA.AN1.39.tiff", "KA.HA2.30.tiff", "YM.NE3.51.tiff", "YM.HA1.52.tiff")
    counts = convert("--validation_share=0", "--test_share=0")["splits"]["Training"]["expressions"]
    assert counts == {"Angry": 1, "Happy": 2, "Neutral": 1}


def test_numbers_that_may_mean_anything_are_one_line(capsys):
    put("train/0", "train/1", "train/2")
    assert "the classes are 0, 1, 2, which may mean anything: say --labels_map=0=Happy" in error_of(
        capsys, "--input=faces"
    )
    counts = convert("--labels_map=0=Happy,1=sad,2=contempt")["splits"]["Training"]["expressions"]
    assert counts == {"Happy": 1, "Sad": 1, "contempt": 1}


def test_class_that_is_no_expression_is_dropped_aloud_or_mapped(capsys):
    put("train/happy", "train/sad", "train/contempt", each=2)
    manifest = convert()
    assert manifest["expressions"] == ["Happy", "Sad"]
    assert "Dropped, folder contempt is not an expression: 2\n" in capsys.readouterr().out
    assert convert("--labels_map=contempt=Contempt")["expressions"] == ["Happy", "Sad", "Contempt"]
    assert convert("--labels_map=own")["expressions"] == ["contempt", "happy", "sad"]


@pytest.mark.parametrize(
    ("flag", "fragment"),
    [
        ("--labels_map=joy=Happy", "--labels_map names 'joy', but the classes are happy, sad"),
        ("--labels_map=happy=../x", "neither own nor like"),
        ("--labels_map=happy", "neither own nor like"),
        ("--labels_map=happy=Sad", "of 1 expressions (Sad): 2 to 20"),
        ("--validation_share=1", "not a number from 0 to below 1"),
        ("--expressions=3,9", "there is no expression 9"),
    ],
)
def test_senseless_map_is_one_line(capsys, flag, fragment):
    put("train/happy", "train/sad")
    try:
        assert fragment in error_of(capsys, "--input=faces", flag)
    except SystemExit as error:
        assert error.code == 2 and fragment in capsys.readouterr().err


def test_own_classes_go_through_conversion_training_evaluation_and_prediction(tmp_path, capsys, monkeypatch):
    """Dark, grey and bright pictures: three classes with names that no expression has."""
    for name, level in (("Dark mood", 30), ("grey", 120), ("bright", 220)):
        for number in range(40):
            path = Path("faces", name, f"{number}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.clip(RANDOM.normal(level, 20, (48, 48)), 0, 255).astype(np.uint8))
    manifest = convert()
    assert manifest["expressions"] == ["bright", "Dark mood", "grey"]
    assert manifest["held_out"] == {"PublicTest": 0.1, "PrivateTest": 0.1, "seed": 0}
    path = train_model(Path("out"), "none", epochs=6, folder=tmp_path / "model", output_size=3)
    assert saved_model.load(path).expressions == ("bright", "Dark mood", "grey")
    assert train.main(["--evaluate=yes", f"--model_path={path}", "--folder=out", "--output_size=3"]) == 0
    assert "Dark mood" in capsys.readouterr().out
    assert load_script("predict.py").main(["--image=faces/grey/3.png", f"--model_path={path}"]) == 0
    assert capsys.readouterr().out.startswith("Prediction: grey ")


@pytest.mark.parametrize("hidden", ["happy/.small/1.png", ".cache/x", "train/.small/happy", ".small/1.png"])
def test_hidden_folders_are_not_read(hidden):
    put("happy", "sad", each=2)
    put(hidden)
    manifest = convert("--validation_share=0", "--test_share=0")
    assert manifest["splits"]["Training"]["count"] == 4 and manifest["dropped"] == {}


@pytest.mark.parametrize(
    ("deeper", "named"),
    [
        ("happy/2019", "happy/0.png and happy/2019/0.png"),
        ("train/happy", "happy/0.png and train/happy/0.png"),
        ("happy/2019/may", "happy/0.png and happy/2019/may/0.png"),
    ],
)
def test_pictures_at_two_depths_are_one_line(capsys, deeper, named):
    put("happy", "sad", deeper)
    assert f"faces has pictures at two depths, such as {named}: lay all of them out" in error_of(
        capsys, "--input=faces"
    )


# --- splits ----------------------------------------------------------------------------------------------------------


def test_source_without_splits_is_split_by_seed_and_expression(capsys):
    put("CK+48/anger", "CK+48/happy", each=20)
    put("CK+48/contempt", each=1)  # has a folder of its own around it, and a class that is none
    manifest = convert()
    assert {split: facts["expressions"] for split, facts in manifest["splits"].items()} == {
        "Training": {"Angry": 16, "Happy": 16},
        "PublicTest": {"Angry": 2, "Happy": 2},
        "PrivateTest": {"Angry": 2, "Happy": 2},
    }
    assert (
        "Held out of Training, of each expression: 10% PublicTest, 10% PrivateTest (seed 0)" in capsys.readouterr().out
    )
    digests = [{split: facts["sha256"] for split, facts in convert(flag)["splits"].items()} for flag in
               ("--split_seed=0", "--split_seed=0", "--split_seed=1")]  # fmt: skip
    assert digests[0] == digests[1] != digests[2]
    images = [np.load(f"out/{split}/images.npy") for split in manifest["splits"]]
    assert len({image.tobytes() for part in images for image in part}) == 40, "every face is in one split"


def test_source_without_public_test_can_hold_out_a_share(capsys):
    put("train/happy", "train/sad", each=10)
    put("test/happy", "test/sad", each=3)
    assert "PublicTest" not in convert()["splits"]
    manifest = convert("--validation_share=0.2")
    assert {split: facts["count"] for split, facts in manifest["splits"].items()} == {
        "Training": 16, "PublicTest": 4, "PrivateTest": 6,
    }  # fmt: skip
    assert manifest["held_out"] == {"PublicTest": 0.2, "PrivateTest": 0.0, "seed": 0}
    put("validation/happy")
    Path("out").rename("old")
    assert "has a PublicTest split already: leave out --validation_share" in error_of(
        capsys, "--input=faces", "--validation_share=0.2"
    )


def test_expression_without_a_training_face_stops_the_training(tmp_path):
    put("train/happy", "train/sad", "test/fear", each=4)
    convert()
    with pytest.raises(UserError, match="out has no training face of Fear: convert more faces"):
        train_model(Path("out"), "none", epochs=1, folder=tmp_path / "model", output_size=3)
    assert not (tmp_path / "model").exists()


# --- kinds of files --------------------------------------------------------------------------------------------------


def test_every_suffix_that_can_be_read_is_sought(capsys):
    kinds = (".tif", ".tiff", ".webp", ".bmp", ".jfif", ".jp2", ".avif", ".gif", ".PNG")
    from PIL import Image

    for kind in kinds:
        path = Path("faces", "train", "happy" if kind < ".j" else "sad", f"face{kind}")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RANDOM.integers(0, 256, (48, 48)).astype(np.uint8)).save(path)
    Path("faces/train/sad/notes.txt").write_text("no picture")
    Path("faces/train/sad/.DS_Store").write_text("hidden")
    manifest = convert()
    assert manifest["splits"]["Training"]["count"] == len(kinds)
    assert manifest["dropped"] == {"no picture by its suffix, .txt": 1}


@pytest.mark.parametrize("name", ["fer2013", "fer2013.csv", "archive.bin"])
@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_tar_is_known_by_its_content(tmp_path, name, mode):
    Path("inner.csv").write_text(text(LINES))
    with tarfile.open("made", mode) as archive:
        archive.add("inner.csv", "fer2013/fer2013.csv")
    Path("made").rename(name)
    convert(f"--input={name}")
    assert_holds(Path("out"), ROWS)


def test_semicolons_are_understood():
    Path("fer2013.csv").write_text(text(LINES, "emotion,pixels,Usage").replace(",", ";"))
    convert("--input=fer2013.csv")
    assert_holds(Path("out"), ROWS)


def test_csv_without_usage_is_split():
    Path("train.csv").write_text(text([line.rpartition(",")[0] for line in LINES], "emotion,pixels"))
    manifest = convert("--input=train.csv")
    assert sum(facts["count"] for facts in manifest["splits"].values()) == len(ROWS)
    assert manifest["held_out"] == {"PublicTest": 0.1, "PrivateTest": 0.1, "seed": 0}
    whole = convert("--input=train.csv", "--validation_share=0", "--test_share=0")
    expected = Counter(label for label, _, _ in ROWS)
    assert list(whole["splits"]) == ["Training"] and "held_out" not in whole
    assert [*whole["splits"]["Training"]["expressions"].values()] == [expected[label] for label in range(7)]


def test_votes_in_place_of_faces_are_one_line(capsys):
    heading = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF\n"
    Path("fer2013new.csv").write_text(heading + "Training,fer0000000.png,4,0,0,1,3,2,0,0,0,0\n")
    assert "has FER+'s votes and no faces: name it with --ferplus" in error_of(capsys, "--input=fer2013new.csv")
