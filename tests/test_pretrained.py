"""The shipped model: small, sure of itself as often as it should be, and described by its card as it is."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skimage
from conftest import ROOT, run_script

from ferkit import saved_model
from ferkit.constants import EMOTIONS
from ferkit.settings import upgraded
from parameters import OWN_SETTINGS

MODEL = ROOT / "pretrained" / "saved_model.bin"
CARD = (ROOT / "pretrained" / "README.md").read_text(encoding="utf-8")
METRICS = {
    name: json.loads((ROOT / "pretrained" / f"{name}.json").read_text()) for name in ("metrics", "metrics_augmented")
}
SPLITS = ("PublicTest", "PrivateTest")


def test_shipped_model_is_small_and_has_all_its_facts():
    model = saved_model.load(MODEL)
    assert MODEL.stat().st_size <= 12e6
    assert model.expressions == EMOTIONS and model.facts["network"]["output_size"] == len(EMOTIONS)
    assert 0.2 < model.temperature < 5 and model.temperature != 1
    assert re.fullmatch(r"[0-9a-f]{7,40}", model.facts["commit"]), "trained from committed code"


def test_committed_settings_are_those_of_the_shipped_model():
    facts = saved_model.load(MODEL).facts
    settings = {**facts["network"], **facts["hyperparams"], **facts["augmentation"], **facts["training"]}
    assert facts["network"]["model"] == "C"
    own = {name: value for name, value in OWN_SETTINGS["C"].items() if name != "settings"}  # named since it was trained
    assert {name: settings[name] for name in own} == own


@pytest.mark.parametrize("name", METRICS)
def test_metrics_are_those_of_the_shipped_model(name):
    metrics = METRICS[name]
    assert upgraded(metrics["model"]) == saved_model.load(MODEL).facts
    assert metrics["test_time_augmentation"] == (name == "metrics_augmented")
    for split in SPLITS:
        assert metrics["splits"][split]["count"] == 3589, "the whole split"


def test_card_says_what_the_metrics_say():
    for name, row in (("metrics", "as it is"), ("metrics_augmented", "with test-time augmentation")):
        (line,) = [line for line in CARD.splitlines() if line.startswith(f"| {row} ")]
        splits = METRICS[name]["splits"]
        expected = [f"{splits[split]['accuracy']:.1%}" for split in SPLITS]
        expected += [f"{splits['PrivateTest']['deduplicated']['accuracy']:.1%}"]
        assert re.findall(r"\d+\.\d%", line) == expected
        assert f"{splits['PrivateTest']['calibration_error']:.3f}" in line
    values = METRICS["metrics"]["splits"]["PrivateTest"]
    for index, expression in enumerate(EMOTIONS):
        (line,) = [line for line in CARD.splitlines() if line.startswith(f"| {expression} ")]
        numbers = [f"{values[key][index]:.1%}" for key in ("precision", "recall", "f1")]
        assert re.findall(r"\d+\.\d%", line) == numbers and f"| {values['support'][index]} |" in line


def test_fresh_clone_recognizes_a_portrait(tmp_path):
    portrait = Path(skimage.__file__).parent / "data" / "astronaut.png"
    run = run_script("predict.py", "--image", str(portrait), "--output=annotated.png", cwd=tmp_path)
    assert run.returncode == 0 and "Prediction: Happy" in run.stdout
    assert "using the one shipped" in run.stderr
    assert (tmp_path / "annotated.png").is_file()


def test_shipped_model_is_as_good_on_the_real_faces_as_its_metrics_say(fer2013_csv):
    rows = pd.read_csv(fer2013_csv).query("Usage == 'PrivateTest'")
    faces = np.array([np.array(pixels.split(), np.uint8) for pixels in rows.pixels]).reshape(-1, 48, 48)
    predictions = saved_model.load(MODEL).predict(faces, np.zeros((len(faces), 0), np.float32)).argmax(axis=1)
    accuracy = METRICS["metrics"]["splits"]["PrivateTest"]["accuracy"]
    assert (predictions == rows.emotion).mean() == pytest.approx(accuracy, abs=0.003), "another CPU rounds otherwise"
