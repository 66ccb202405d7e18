"""The README says what the programs and the results say."""

import json
import re

import pytest
from conftest import ROOT, load_script

import convert_fer2013_to_images_and_landmarks as conversion
import predict
import train

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_accuracies_are_those_of_the_results_files():
    files = sorted((ROOT / "results").glob("*.json"))
    assert files
    for file in files:
        metrics = json.loads(file.read_text())
        accuracies = [f"{metrics['splits'][split]['accuracy']:.1%}" for split in ("PublicTest", "PrivateTest")]
        (row,) = [line for line in README.splitlines() if f"results/{file.name}" in line]
        assert re.findall(r"\d+\.\d%", row) == accuracies


@pytest.mark.parametrize("script", [conversion, train, predict, load_script("predict-from-video.py")])
def test_every_flag_is_in_the_readme(script):
    for action in script._parser()._actions:
        assert any(f"{option}" in README for option in action.option_strings), action.option_strings
