"""How scripts end before their work begins: after Ctrl-C while they import, and with a parameters.py that is wrong."""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from test_layout import MODULES

from ferkit import console
from ferkit.errors import UserError
from ferkit.flags import Parser, add_flags
from ferkit.learning.architecture import Architecture
from ferkit.learning.configuration import own_settings

SCRIPTS = sorted(name for name, path in MODULES.items() if "\n@command\n" in path.read_text(encoding="utf-8"))
MOMENTS = int(os.environ.get("KILLS", 0)) or 1  # for each script
# Runs a script, and sends Ctrl-C when it imports its n-th module after it has begun.
INTERRUPTED = """
import os, runpy, signal, sys

left, begun = int(sys.argv[1]), False

def count(event, details):
    global left, begun
    if event == "import":
        begun = begun or signal.getsignal(signal.SIGINT) is signal.SIG_DFL
        left -= begun
        if begun and left == 0:
            os.kill(os.getpid(), signal.SIGINT)

sys.addaudithook(count)
sys.argv = sys.argv[2:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def run(code: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{folder}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_ctrl_c_at_any_moment_shows_no_traceback(script, tmp_path):
    for moment in [1, *random.sample(range(2, 250), MOMENTS - 1)]:
        ended = run(INTERRUPTED, str(moment), script, "--help", folder=tmp_path)
        by_the_system = ended.returncode == -signal.SIGINT and ended.stderr == ""
        by_command = ended.returncode == 130 and ended.stderr.strip() == "interrupted"
        too_late = ended.returncode == 0 and moment > 1
        assert by_the_system or by_command or too_late, (moment, ended)


def test_ctrl_c_stays_ignored_in_the_background(tmp_path):
    code = (
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nfrom ferkit.startup import begin\nbegin()\n"
        "assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN"
    )
    assert run(code, folder=tmp_path).returncode == 0


def test_console_commands_begin_as_scripts_do(monkeypatch):
    begun = []
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(console, "begin", lambda: begun.append("begun"))
    monkeypatch.setattr(
        console.importlib, "import_module", lambda name: begun.append(name) or argparse.Namespace(main=int)
    )
    assert console.train() == 0 and begun == ["begun", "train"]


PARAMETERS = (ROOT / "parameters.py").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "script", "fragment"),
    [
        (('model="B"', 'modle="B"'), "train", r"line \d+ of parameters.py sets 'modle', which .*: Network has model, "),
        (("TRAINING = Training(", "TRAIN = Training("), "train", "parameters.py has no TRAINING: write it there again"),
        (("DATASET = ", "DATA = "), "predict", "parameters.py has no DATASET: write it there again"),
        (("NETWORK = Network(", "NETWORK = Network(("), "train", r"line \d+ of parameters.py cannot be read: "),
        (("epochs=13", "epochs=thirteen"), "predict", r"line \d+ of parameters.py: name 'thirteen' is not defined"),
    ],
    ids=["misspelt setting", "removed group", "removed group of predict", "syntax", "name"],
)
def test_fault_of_parameters_is_one_line(change, script, fragment, tmp_path):
    assert PARAMETERS.count(change[0]) == 1
    (tmp_path / "parameters.py").write_text(PARAMETERS.replace(*change), encoding="utf-8")
    code = f"import runpy; runpy.run_path({str(ROOT / script)!r} + '.py', run_name='__main__')"
    ended = run(code, "--train", folder=tmp_path)
    assert ended.returncode == 2 and re.fullmatch(f"error: {fragment}.*\n", ended.stderr), ended.stderr


@pytest.mark.parametrize("group", [None, (), {"model": "B"}])
def test_group_of_another_type_is_refused(group):
    with pytest.raises(UserError, match=r"parameters.py has .* where settings belong, such as Network\("):
        add_flags(Parser(), group, "model")


@pytest.mark.parametrize("own", [None, [], "C", {"C": None}, {"C": ["epochs"]}, {"C": {1: 2}}])
def test_own_settings_of_another_type_are_refused(own, monkeypatch):
    import parameters

    monkeypatch.setattr(parameters, "OWN_SETTINGS", own)
    with pytest.raises(UserError, match=r"^OWN_SETTINGS.* in parameters.py must look like \{"):
        own_settings("C", None, parameters, {"C": Architecture(lambda layers, faces: faces, joint=1)})
