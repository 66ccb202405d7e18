"""Importing a module does nothing, and brings in no heavy library that it can do without."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

MODULES = sorted(path.stem for path in ROOT.glob("*.py") if path.stem.isidentifier())
TENSORFLOW, VISION, ENGINE = {"tensorflow", "tflearn"}, {"dlib", "cv2"}, {"hyperopt", "pymongo", "matplotlib"}
SPARED = {
    "command_line": {"numpy"},
    "data_loader": TENSORFLOW | VISION,
    "evaluation": TENSORFLOW | VISION,
    "faces": TENSORFLOW,
    "features": TENSORFLOW | VISION,
    "files": {"numpy"},
    "optimize_hyperparams": TENSORFLOW | VISION | ENGINE,
    "parameters": {"numpy"},
    "predict": TENSORFLOW,
    "reproduce_results": TENSORFLOW,
    "results_report": TENSORFLOW | VISION,
    "saved_model": TENSORFLOW | VISION,
    "search_mongo": TENSORFLOW | VISION | {"hyperopt"},
    "train": TENSORFLOW | VISION,
    "trial": TENSORFLOW | VISION | ENGINE,
    "train_svm": TENSORFLOW | VISION | {"sklearn"},
}


@pytest.mark.parametrize("module", MODULES)
def test_importing_does_nothing(module, tmp_path):
    script = f"import sys, {module}; assert not {SPARED.get(module, set())!r} & set(sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", script, "garbage", "--train=yes", "--no-such-flag"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_every_spared_module_exists():
    assert set(SPARED) <= set(MODULES), "a renamed module would go unchecked"
