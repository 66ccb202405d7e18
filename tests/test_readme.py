"""The README says what the programs and the results say."""

import json
import re

import pytest
from conftest import ROOT, load_script

import optimize_hyperparams
import predict
import train
from experiments import reproduce_results, train_svm
from ferkit.data import conversion

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_accuracies_are_those_of_the_results_files():
    files = sorted((ROOT / "results").glob("*.json"))
    assert files
    for file in files:
        metrics = json.loads(file.read_text())
        accuracies = [f"{metrics['splits'][split]['accuracy']:.1%}" for split in ("PublicTest", "PrivateTest")]
        (row,) = [line for line in README.splitlines() if f"results/{file.name}" in line]
        assert re.findall(r"\d+\.\d%", row) == accuracies


@pytest.mark.parametrize("text", [README, optimize_hyperparams.__doc__], ids=["README", "docstring"])
def test_searches_shown_work_one_after_another(text):
    """Those across machines have one name, which is not that of the one before them."""
    commands = re.findall(r"^ *python optimize_hyperparams\.py .*", text, flags=re.MULTILINE)
    names = [(re.search(r"--name=\S+", command) or ["--name=default"])[0] for command in commands]
    across = {name for name, command in zip(names, commands, strict=True) if "--mongo=" in command}
    here = {name for name, command in zip(names, commands, strict=True) if "--mongo=" not in command}
    assert len(commands) == 3 and len(across) == len(here) == 1 and across != here


@pytest.mark.parametrize(
    "script",
    [
        conversion,
        train,
        train_svm,
        reproduce_results,
        optimize_hyperparams,
        predict,
        load_script("predict-from-video.py"),
    ],
)
def test_every_flag_is_in_the_readme(script):
    for action in script._parser()._actions:
        assert any(f"{option}" in README for option in action.option_strings), action.option_strings
