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


def test_every_model_answers_as_if_it_had_learned_the_labels_of_the_first(crop):
    first, second = saved_model.load("ferplus"), saved_model.load("fer2013_large")
    faces = np.stack([crop, crop[:, ::-1], crop // 3, 255 - crop])
    together = ensemble.load("ferplus+fer2013_large")
    answers = [model.predict(faces, no_vectors(faces), balance=0.0) for model in (first, second)]
    moved = answers[1] * first.frequencies / second.frequencies
    mean = (answers[0] + moved / moved.sum(axis=1, keepdims=True)) / 2
    np.testing.assert_allclose(together.predict(faces, no_vectors(faces), balance=0.0), mean, atol=1e-5)
    balanced = mean / first.frequencies
    np.testing.assert_allclose(
        together.predict(faces, no_vectors(faces), balance=1.0),
        balanced / balanced.sum(axis=1, keepdims=True),
        atol=1e-5,
    )
    saved = mean / first.frequencies ** first.facts["training"]["balance"]
    np.testing.assert_allclose(
        together.predict(faces, no_vectors(faces)), saved / saved.sum(axis=1, keepdims=True), atol=1e-5
    )


def test_a_model_of_unknown_frequencies_is_taken_to_favour_none(crop):
    faces = crop[None]
    single = [saved_model.load(name).predict(faces, no_vectors(faces), balance=1.0) for name in ("fer2013", "ferplus")]
    for names in ("fer2013+ferplus", "ferplus+fer2013"):
        together = ensemble.load(names).predict(faces, no_vectors(faces), balance=1.0)
        np.testing.assert_allclose(together.argmax(), 3)
        np.testing.assert_allclose(together[0, 3], np.mean(single, axis=0)[0, 3], atol=0.01)
    whole = ensemble.load("fer2013+ferplus").predict(faces, no_vectors(faces), balance=1.0)
    np.testing.assert_allclose(whole, np.mean(single, axis=0), atol=1e-6)


def test_expressions_may_be_in_another_order_but_not_others(small_model, raw_model, tmp_path):
    model = saved_model.load(raw_model)
    turned = saved_model.SavedModel(model.flatbuffer, {**model.facts, "expressions": model.expressions[::-1]})
    faces = np.random.default_rng(0).integers(0, 256, (3, 48, 48), np.uint8)
    answers = Ensemble([model, turned], ["a", "b"]).predict(faces, no_vectors(faces), balance=0.0)
    assert answers.shape == (3, 7)
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-5)
    own = model.predict(faces, no_vectors(faces), balance=0.0)
    other = own[:, ::-1] * model.frequencies / model.frequencies[::-1]
    np.testing.assert_allclose(answers, (own + other / other.sum(axis=1, keepdims=True)) / 2, atol=1e-5)
    strange = saved_model.SavedModel(model.flatbuffer, {**model.facts, "expressions": list("abcdefg")})
    with pytest.raises(UserError, match="a and b have different expressions: they cannot answer together"):
        Ensemble([model, strange], ["a", "b"])


def test_models_share_features_or_use_the_pixels_alone(small_model, raw_model):
    together = Recognizer(f"{raw_model}+{small_model}")
    assert together.model.features == "landmarks" and together.model.feature_provenance
    (face,) = together.recognize(read_image(PORTRAIT))
    assert sum(face.probabilities.values()) == pytest.approx(1, abs=1e-5)
    landmarks = saved_model.load(small_model)
    hog = saved_model.load(small_model)
    hog.features = "hog"
    with pytest.raises(UserError, match="a needs landmarks and b hog: they cannot answer together"):
        Ensemble([landmarks, hog], ["a", "b"])


def test_they_are_the_default_and_a_file_comes_before_a_plus(tmp_path, monkeypatch, capsys, raw_model):
    monkeypatch.chdir(tmp_path)
    assert str(Recognizer().model_path) == DEFAULT_MODEL == "ferplus+fer2013_large"
    assert predict.main(["--image", str(PORTRAIT), "--json"]) == 0
    printed, errors = capsys.readouterr()
    (row,) = json.loads(printed)["faces"]
    (face,) = Recognizer("ferplus+fer2013_large").recognize(read_image(PORTRAIT))
    assert row["probabilities"] == pytest.approx(face.probabilities, abs=1e-5)
    assert (
        errors == "note: no trained model at best_model/saved_model.bin yet: using the included ferplus+fer2013_large\n"
    )
    Path("a+b").write_bytes(raw_model.read_bytes())
    assert Recognizer("a+b").model.facts == saved_model.load(raw_model).facts
    with pytest.raises(UserError, match="no trained model at nowhere"):
        ensemble.load("ferplus+nowhere")


def test_their_activation_maps_are_averaged(crop):
    together = ensemble.load("ferplus+fer2013_large")
    single = [Explainer(model, no_vectors) for model in together.models]
    spread = Explainer(together, no_vectors).activation_map(crop, "Happy")
    sums = [explainer.activation_map(crop, "Happy").sum() for explainer in single]
    assert spread.shape == (48, 48) and spread.sum() == pytest.approx(np.mean(sums), rel=0.15)
    assert Explainer(together, no_vectors).occlusion_map(crop, "Happy").shape == (48, 48)


def test_they_are_evaluated_together_and_exported_one_by_one(raw_model, drawn_dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = ["--evaluate=yes", f"--folder={drawn_dataset}", f"--model_path={raw_model}+ferplus"]
    assert train.main(flags) == 0
    assert "Test" in capsys.readouterr().out
    assert export_model.main(["--format=tflite", "--output=x.tflite", "--model_path=ferplus+fer2013"]) == 2
    assert "ferplus+fer2013 are several models: export one at a time" in capsys.readouterr().err
