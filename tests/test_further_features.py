"""Local binary patterns, Gabor energies, visual words and geometry, from the csv to the photograph."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

import convert_fer2013_to_images_and_landmarks as conversion
import predict
import train
from ferkit import features, saved_model
from ferkit.data.dataset import open_dataset
from ferkit.data.drawn_faces import draw_photo
from ferkit.errors import UserError
from ferkit.learning.starting import Start
from ferkit.recognition import Recognizer

KIND = "lbp+gabor+sift+geometry"


@pytest.fixture(scope="module")
def folder(drawn_csv, tmp_path_factory) -> Path:
    """Sixty faces of each split with the further features."""
    folder = tmp_path_factory.mktemp("further") / "data"
    flags = [f"--input={drawn_csv}", f"--folder={folder}", f"--features={KIND}", "--limit=60", "--processes=2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features.sift, "LEARNED_FACES", 3)  # quicker
        assert conversion.main(flags) == 0
    return folder


@pytest.fixture(scope="module")
def model(folder, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("trained")
    flags = ["--train=yes", "--evaluate=yes", "--model=slim", f"--features={KIND}", f"--folder={folder}"]
    flags += ["--epochs=1", "--batch_size=15", "--flip=yes", "--rotation=5", "--test_time_augmentation=yes"]
    places = [f"--model_path={place}/model.bin", f"--checkpoint_folder={place}/c", f"--logs_folder={place}/l"]
    assert train.main([*flags, *places]) == 0
    return place / "model.bin"


def test_conversion_writes_what_the_features_need_and_nothing_else(folder):
    assert {path.stem for path in (folder / "Training").iterdir()} == {"images", "labels", *KIND.split("+")}


def test_prediction_uses_the_vocabulary_of_training(folder, model, tmp_path, capsys):
    facts = saved_model.load(model).facts
    known = open_dataset(folder).feature_provenance(KIND)
    assert facts["feature_provenance"] == known and len(known["sift"]["learned"]) > 20_000
    faces = np.load(folder / "PrivateTest" / "images.npy")
    loaded = open_dataset(folder).load("PrivateTest", KIND).features
    np.testing.assert_array_equal(Recognizer(model).features_of(faces), loaded)
    cv2.imwrite(str(tmp_path / "photo.png"), draw_photo((3, 5), np.random.default_rng(3))[0])
    for answer in ("no", "yes"):
        flags = ["--json", f"--model_path={model}", f"--test_time_augmentation={answer}"]
        assert predict.main(["--image", str(tmp_path / "photo.png"), *flags]) == 0
        assert len(json.loads(capsys.readouterr().out)["faces"]) == 2


@pytest.mark.parametrize("learned", [None, 5, "", "AAAA", "no base64!"])
def test_damaged_vocabulary_is_one_line(folder, model, tmp_path, learned):
    whole = saved_model.load(model)
    known = {**whole.feature_provenance, "sift": {**whole.feature_provenance["sift"], "learned": learned}}
    saved_model.save(tmp_path / "model.bin", whole.flatbuffer, {**whole.facts, "feature_provenance": known})
    with pytest.raises(UserError, match=r"model\.bin is not a whole saved model"):
        saved_model.load(tmp_path / "model.bin")
    dataset = open_dataset(folder)
    dataset.manifest["feature_provenance"] = known
    with pytest.raises(UserError, match=r"manifest\.json is damaged .*: convert again"):
        dataset.check(KIND, output_size=7)
    dataset.check("lbp+gabor", output_size=7)


def test_words_cannot_be_learned_without_training_faces(tmp_path, capsys):
    pixels = " ".join(["7"] * 48 * 48)
    (tmp_path / "test.csv").write_text(f"emotion,pixels,Usage\n0,{pixels},PrivateTest\n3,{pixels},PrivateTest\n")
    assert conversion.main([f"--input={tmp_path}/test.csv", f"--folder={tmp_path}/out", "--features=sift"]) == 2
    assert "sift is learned from the faces of Training, and there is none" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["none+lbp", "lbp+", "lbp,gabor", "landmarks+x"])
def test_other_names_are_refused(kind, capsys):
    with pytest.raises(SystemExit):
        train.main(["--train=yes", f"--features={kind}"])
    assert f"argument --features: invalid choice: '{kind}'" in capsys.readouterr().err


def test_training_does_not_start_from_a_model_with_words_of_other_faces(folder, model):
    dataset, start = open_dataset(folder), Start(str(model))
    start.check(dataset)
    dataset.manifest["feature_provenance"]["sift"]["learned"] = "of other faces"
    with pytest.raises(
        UserError, match="has other sift than those of .*, because they were learned from other training"
    ):
        start.check(dataset)


def test_a_model_of_other_words_is_refused(folder, model, monkeypatch):
    other = replace(features.PARTS["sift"], provenance=lambda _: {"window": 24})
    monkeypatch.setitem(features.PARTS, "sift", other)
    with pytest.raises(UserError, match="was trained on features computed otherwise"):
        Recognizer(model)
