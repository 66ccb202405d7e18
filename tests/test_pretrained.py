"""The shipped models: small, as sure of themselves as they should be, and described by their cards as they are."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, run_script

from experiments.record import LARGE_BATCHES
from ferkit import Recognizer, saved_model
from ferkit.constants import DEFAULT_MODEL, EMOTIONS, MIXTURES, SHIPPED_MODELS
from ferkit.data.ferplus import majority, read_votes
from ferkit.settings import upgraded
from parameters import OWN_SETTINGS

SPLITS = ("PublicTest", "PrivateTest")
LABELS = {"ferplus": "ferplus", "fer2013": "fer2013", "fer2013_large": "fer2013"}  # that each has learned
ARCHITECTURE = {"ferplus": "C", "fer2013": "C", "fer2013_large": "D"}
FACES = {"fer2013": (3589, 3589), "ferplus": (3186, 3137)}  # of the two splits, by the labels
OTHERS = {"fer2013": "ferplus", "ferplus": "fer2013"}
ROWS = {"metrics": "as it is", "metrics_augmented": "with test-time augmentation"}


def folder(name: str) -> Path:
    return (ROOT / SHIPPED_MODELS[name]).parent if name in SHIPPED_MODELS else ROOT / "pretrained" / name


def metrics(name: str, file: str) -> dict:
    return json.loads((folder(name) / f"{file}.json").read_text())


def card(name: str) -> str:
    return (folder(name) / "README.md").read_text(encoding="utf-8")


@pytest.fixture(params=SHIPPED_MODELS)
def name(request) -> str:
    return request.param


def test_shipped_model_is_small_and_has_all_its_facts(name):
    path = ROOT / SHIPPED_MODELS[name]
    model = saved_model.load(path)
    assert path.stat().st_size <= (12e6 if name == "fer2013_large" else 6e6)
    assert model.expressions == EMOTIONS and model.facts["network"]["output_size"] == len(EMOTIONS)
    assert 0.2 < model.temperature < 5 and model.temperature != 1
    assert re.fullmatch(r"[0-9a-f]{7,40}", model.facts["commit"]), "trained from committed code"
    assert model.facts["training"].get("labels", "fer2013") == LABELS[name]


def test_short_names_are_found_from_everywhere_and_a_file_comes_before_them(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert saved_model.load(name).facts == saved_model.load(ROOT / SHIPPED_MODELS[name]).facts
    assert Recognizer(name).expressions == EMOTIONS
    Path(name).write_text("one's own")
    with pytest.raises(Exception, match="not a whole saved model"):
        saved_model.load(name)


def test_committed_settings_are_those_of_the_shipped_models(name):
    facts = saved_model.load(ROOT / SHIPPED_MODELS[name]).facts
    settings = {**facts["network"], **facts["hyperparams"], **facts["augmentation"], **facts["training"]}
    model = facts["network"]["model"]
    assert model == ARCHITECTURE[name]
    if name == "fer2013_large":
        changed = {**LARGE_BATCHES, "epochs": facts["student"]["epochs"]}
        assert changed["epochs"] == f"{facts['epochs_finished']} of {facts['training']['epochs']}"
        changed["epochs"] = facts["training"]["epochs"]
    else:
        changed = {"label_smoothing": 0.0, "epochs": 32} if name == "ferplus" else {}  # as its card says
    own = {**OWN_SETTINGS[model], **changed}
    del own["settings"]  # it got its name after the first of them was trained
    assert {setting: settings[setting] for setting in own} == own


@pytest.mark.parametrize("file", ROWS)
def test_metrics_are_those_of_the_shipped_models(name, file):
    found = metrics(name, file)
    assert upgraded(found["model"]) == saved_model.load(ROOT / SHIPPED_MODELS[name]).facts
    assert found["test_time_augmentation"] == (file == "metrics_augmented")
    assert tuple(found["splits"][split]["count"] for split in SPLITS) == FACES[LABELS[name]], "the whole split"


@pytest.mark.parametrize("name", [*SHIPPED_MODELS, *MIXTURES])
def test_cards_say_what_the_metrics_say(name):
    lines = card(name).splitlines()
    for file, row in ROWS.items():
        (line,) = [line for line in lines if line.startswith(f"| {row} ")]
        splits = metrics(name, file)["splits"]
        expected = [f"{splits[split]['accuracy']:.1%}" for split in SPLITS]
        expected += [f"{splits['PrivateTest']['deduplicated']['accuracy']:.1%}"]
        assert re.findall(r"\d+\.\d%", line) == expected
        assert f"{splits['PrivateTest']['calibration_error']:.3f}" in line
    values = metrics(name, "metrics")["splits"]["PrivateTest"]
    for index, expression in enumerate(EMOTIONS):
        (line,) = [line for line in lines if line.startswith(f"| {expression} ")]
        numbers = [f"{values[key][index]:.1%}" for key in ("precision", "recall", "f1")]
        assert re.findall(r"\d+\.\d%", line) == numbers and f"| {values['support'][index]} |" in line


def test_card_compares_both_models_on_both_labels():
    for name in SHIPPED_MODELS:
        (line,) = [line for line in card("ferplus").splitlines() if line.startswith(f"| `{name}` |")]
        files = {labels: "metrics" if labels == LABELS[name] else f"metrics_{labels}" for labels in OTHERS}
        accuracies = {
            labels: metrics(name, file)["splits"]["PrivateTest"]["accuracy"] for labels, file in files.items()
        }
        assert re.findall(r"\d+\.\d%", line)[:2] == [f"{accuracies[labels]:.1%}" for labels in ("ferplus", "fer2013")]


def test_fresh_clone_recognizes_a_portrait(tmp_path):
    portrait = str(ROOT / "docs" / "portrait.jpg")
    run = run_script("predict.py", "--image", portrait, "--output=annotated.png", cwd=tmp_path)
    assert run.returncode == 0 and "Prediction: Happy" in run.stdout
    assert f"using the included model {DEFAULT_MODEL}" in run.stderr
    assert (tmp_path / "annotated.png").is_file()
    run = run_script("predict.py", "--image", portrait, "--model_path=fer2013", cwd=tmp_path)
    assert run.returncode == 0 and "Prediction: Happy" in run.stdout and run.stderr == ""


def test_shipped_models_are_as_good_on_the_real_faces_as_their_metrics_say(name, fer2013_csv):
    rows = pd.read_csv(fer2013_csv)
    labels = rows.emotion.to_numpy()
    if LABELS[name] == "ferplus":
        if not os.environ.get("FERPLUS_CSV"):
            pytest.skip("FERPLUS_CSV does not name the real fer2013new.csv")
        labels = majority(read_votes(os.environ["FERPLUS_CSV"]).votes, EMOTIONS)
    chosen = ((rows.Usage == "PrivateTest") & (labels >= 0)).to_numpy()
    faces = np.array([np.array(pixels.split(), np.uint8) for pixels in rows.pixels[chosen]]).reshape(-1, 48, 48)
    model = saved_model.load(ROOT / SHIPPED_MODELS[name])
    predictions = model.predict(faces, np.zeros((len(faces), 0), np.float32)).argmax(axis=1)
    accuracy = metrics(name, "metrics")["splits"]["PrivateTest"]["accuracy"]
    assert (predictions == labels[chosen]).mean() == pytest.approx(accuracy, abs=0.003), "another CPU rounds otherwise"
