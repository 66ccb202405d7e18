"""Several models that answer together, in place of a single one everywhere."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

import export_model
import predict
import train
from ferkit import ensemble, saved_model
from ferkit.constants import DEFAULT_MODEL
from ferkit.ensemble import Ensemble
from ferkit.errors import UserError
from ferkit.explanation import Explainer
from ferkit.recognition import Recognizer
from ferkit.vision.pictures import read_image

PORTRAIT = ROOT / "docs" / "portrait.jpg"


@pytest.fixture(scope="module")
def crop() -> np.ndarray:
    return Recognizer("ferplus").cut(read_image(PORTRAIT))[1][0]


def no_vectors(faces: np.ndarray) -> np.ndarray:
    return np.zeros((len(faces), 0), np.float32)


@pytest.mark.parametrize("balance", [None, 0.0, 1.0])
def test_answers_are_averaged_and_one_that_is_named_twice_counts_twice(crop, balance):
    faces = np.stack([crop, crop[:, ::-1], crop // 3, 255 - crop])
    first, second = (
        saved_model.load(name).predict(faces, no_vectors(faces), balance=balance) for name in ("ferplus", "fer2013")
    )
    for names, expected in (
        ("ferplus+fer2013", (first + second) / 2),
        ("fer2013+ferplus+fer2013", (first + 2 * second) / 3),
    ):
        together = ensemble.load(names)
        assert len(together.models) == 2
        np.testing.assert_allclose(together.predict(faces, no_vectors(faces), balance=balance), expected, atol=1e-6)
    with pytest.raises(UserError, match=r"ferplus\+ does not name a model before and after each plus"):
        ensemble.load("ferplus+")


def test_expressions_may_be_in_another_order_but_not_others(small_model, raw_model, tmp_path):
    model = saved_model.load(raw_model)
    turned = saved_model.SavedModel(model.flatbuffer, {**model.facts, "expressions": model.expressions[::-1]})
    faces = np.random.default_rng(0).integers(0, 256, (3, 48, 48), np.uint8)
    answers = Ensemble([model, turned], ["a", "b"], [3, 1]).predict(faces, no_vectors(faces), balance=0.0)
    assert answers.shape == (3, 7)
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-5)
    own = model.predict(faces, no_vectors(faces), balance=0.0)
    np.testing.assert_allclose(answers, 0.75 * own + 0.25 * own[:, ::-1], atol=1e-5)
    strange = saved_model.SavedModel(model.flatbuffer, {**model.facts, "expressions": list("abcdefg")})
    with pytest.raises(UserError, match="a and b have different expressions: they cannot answer together"):
        Ensemble([model, strange], ["a", "b"], [1, 1])


def test_models_share_features_or_use_the_pixels_alone(small_model, raw_model):
    together = Recognizer(f"{raw_model}+{small_model}")
    assert together.model.features == "landmarks" and together.model.feature_provenance
    (face,) = together.recognize(read_image(PORTRAIT))
    assert sum(face.probabilities.values()) == pytest.approx(1, abs=1e-5)
    landmarks = saved_model.load(small_model)
    hog = saved_model.load(small_model)
    hog.features = "hog"
    with pytest.raises(UserError, match="a needs landmarks and b hog: they cannot answer together"):
        Ensemble([landmarks, hog], ["a", "b"], [1, 1])


def test_they_are_the_default_and_a_file_comes_before_a_plus(tmp_path, monkeypatch, capsys, raw_model):
    monkeypatch.chdir(tmp_path)
    assert str(Recognizer().model_path) == DEFAULT_MODEL == "mixed"
    assert predict.main(["--image", str(PORTRAIT), "--json"]) == 0
    printed, errors = capsys.readouterr()
    (row,) = json.loads(printed)["faces"]
    (face,) = Recognizer("ferplus+ferplus+fer2013_large").recognize(read_image(PORTRAIT))
    assert row["probabilities"] == pytest.approx(face.probabilities, abs=1e-5)
    assert errors == "note: no trained model at best_model/saved_model.bin yet: using the included model mixed\n"
    Path("a+b").write_bytes(raw_model.read_bytes())
    assert Recognizer("a+b").model.facts == saved_model.load(raw_model).facts
    with pytest.raises(UserError, match="no trained model at nowhere"):
        ensemble.load("ferplus+nowhere")


def test_their_activation_maps_are_averaged(crop):
    together = ensemble.load("mixed")
    single = [Explainer(model, no_vectors) for model in together.models]
    spread = Explainer(together, no_vectors).activation_map(crop, "Happy")
    sums = [explainer.activation_map(crop, "Happy").sum() for explainer in single]
    assert spread.shape == (48, 48) and spread.sum() == pytest.approx(np.average(sums, weights=[2, 1]), rel=0.15)
    assert Explainer(together, no_vectors).occlusion_map(crop, "Happy").shape == (48, 48)


def test_they_are_evaluated_together_and_exported_one_by_one(raw_model, drawn_dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = ["--evaluate=yes", f"--folder={drawn_dataset}", f"--model_path={raw_model}+ferplus"]
    assert train.main(flags) == 0
    assert "Test" in capsys.readouterr().out
    assert export_model.main(["--format=tflite", "--output=x.tflite", "--model_path=ferplus+fer2013"]) == 2
    assert "ferplus+fer2013 are several models: export one at a time" in capsys.readouterr().err
