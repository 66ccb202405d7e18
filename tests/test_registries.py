"""One new thing is one new entry: a feature, an architecture and a detector that are added here train and predict."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import convert_fer2013_to_images_and_landmarks as conversion
import parameters
import predict
import train
from experiments import runner
from ferkit import features, saved_model
from ferkit.data.drawn_faces import draw_photo
from ferkit.features import Feature, Part
from ferkit.learning.architecture import Architecture
from ferkit.vision.detection import DETECTORS, Detector
from model import ARCHITECTURES

QUICK = ["--epochs=2", "--optimizer=adam", "--optimizer_param=0.9", "--learning_rate=0.002", "--batch_size=32"]
HAPPY, SURPRISE = 3, 5


@pytest.fixture
def photo(tmp_path) -> Path:
    """A photograph of two drawn people."""
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), draw_photo((HAPPY, SURPRISE), np.random.default_rng(3))[0])
    return path


def trained(capsys, *flags: str) -> str:
    """What training and evaluating with these flags prints; the model is best_model/saved_model.bin."""
    assert train.main(["--train=yes", "--evaluate=yes", *QUICK, *flags]) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "Test accuracy: " in printed
    return printed


def predicted(capsys, photo: Path, *flags: str) -> list[dict]:
    assert predict.main(["--image", str(photo), "--json", *flags]) == 0
    return json.loads(capsys.readouterr().out)["faces"]


def test_a_feature(drawn_csv, photo, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    rows = Part(
        shape=(48,),
        flags=("rows",),
        help="extract the mean of each row of pixels",
        extract=lambda faces, _: faces.mean(axis=2, dtype=np.float32),
        provenance=lambda _: {"mean": "rows"},
    )
    monkeypatch.setitem(features.PARTS, "rows", rows)
    monkeypatch.setitem(features.FEATURES, "landmarks_rows", Feature(("landmarks", "rows"), "+ landmarks + rows"))

    assert conversion.main([f"--input={drawn_csv}", "--hog=no", "--hog_windows=no", "--limit=100"]) == 0
    images = np.load("fer2013_features/PrivateTest/images.npy")
    np.testing.assert_array_equal(
        np.load("fer2013_features/PrivateTest/rows.npy"), images.mean(axis=2, dtype=np.float32)
    )
    trained(capsys, "--model=slim", "--features=landmarks_rows", "--flip", "--shift=0.1")  # it follows the moved faces
    model = saved_model.load("best_model/saved_model.bin")
    assert model.features == "landmarks_rows" and model.feature_provenance["rows"] == {"mean": "rows"}
    assert len(predicted(capsys, photo, "--test_time_augmentation")) == 2

    assert conversion.main([f"--input={drawn_csv}", "--hog=no", "--hog_windows=no", "--rows=no", "--limit=100"]) == 0
    capsys.readouterr()
    assert train.main(["--train=yes", "--features=landmarks_rows"]) == 2
    assert "has no rows, which features=landmarks_rows needs" in (error := capsys.readouterr().err)
    assert "--landmarks=yes --rows=yes" in error


def test_a_feature_changes_no_finished_plan(monkeypatch):
    before = runner.plan([])
    monkeypatch.setitem(features.FEATURES, "nothing", Feature((), "nothing"))
    assert runner.plan([]) == before


def test_an_architecture(drawn_dataset, photo, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)

    def wide(layers, faces):
        return layers.dense(layers.flatten(layers.convolution(faces, 8, 5, pooled=True)), 16)

    monkeypatch.setitem(ARCHITECTURES, "wide", Architecture(wide, joint=8))
    flags = ["--model=wide", f"--folder={drawn_dataset}"]
    assert train.main(["--train=yes", *flags]) == 2
    complaint = "error: Model wide has no settings of its own: add 'wide' to OWN_SETTINGS in parameters.py\n"
    assert capsys.readouterr().err == complaint

    monkeypatch.setitem(parameters.OWN_SETTINGS, "wide", {"features": "landmarks", "keep_prob": 0.8})
    assert "Training model wide on 700 faces of 7 expressions, features: landmarks" in trained(capsys, *flags)
    facts = saved_model.load("best_model/saved_model.bin").facts
    assert facts["network"]["model"] == "wide" and facts["hyperparams"]["keep_prob"] == 0.8
    assert len(predicted(capsys, photo)) == 2


def test_a_detector(raw_model, photo, monkeypatch, capsys):
    def halves(image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        return np.array([[0, 0, width / 2, height], [width / 2, 0, width / 2, height]])

    monkeypatch.setitem(DETECTORS, "halves", Detector(halves, crop_side=0.5, crop_shift=0.25))
    left, right = predicted(capsys, photo, "--detector=halves", f"--model_path={raw_model}")
    height, width = cv2.imread(str(photo)).shape[:2]
    side = round(max(width / 2, height) * 0.5)
    for face, middle in ((left, width / 4), (right, width * 3 / 4)):
        expected = [middle - side / 2, height / 2 + 0.25 * height - side / 2, side, side]
        assert face["box"] == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(
    ("flag", "complaint"),
    [
        ("--model=X", "argument --model: invalid choice: 'X'"),
        ("--features=x", "argument --features: invalid choice: 'x'"),
    ],
)
def test_a_name_that_is_not_registered_is_refused_with_those_that_are(flag, complaint, capsys):
    with pytest.raises(SystemExit):
        train.main(["--train=yes", flag])
    line = capsys.readouterr().err.splitlines()[-1]
    assert complaint in line and ("landmarks" in line or "slim" in line)


def test_a_name_that_parameters_py_misspells_is_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parameters, "NETWORK", parameters.Network(model="X"))
    assert train.main(["--train=yes"]) == 2
    assert capsys.readouterr().err == "error: there is no Model X: model.py has A, B, C, D, slim\n"
