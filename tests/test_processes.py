"""What all command lines share: flags, and how a script ends."""

import argparse
import os
import re
import signal
import subprocess
import sys
import warnings
from dataclasses import dataclass

import pytest
from conftest import ROOT

from ferkit.errors import UserError, in_short
from ferkit.flags import add_flags, add_yes_no, override
from ferkit.processes import command, quiet
from ferkit.settings import setting


@dataclass(frozen=True)
class Settings:
    folder: str = setting("features", "where")
    count: int = setting(3, "how many")
    share: float = setting(0.5, "100% of it")
    wanted: bool = setting(True, "whether")
    kind: str = setting("A", "which", choices=("A", "B"))
    bounds: tuple[float, ...] = (0.0, 1.0)
    names: tuple[str, ...] = ("first",)


def overridden(*flags: str) -> Settings:
    parser = argparse.ArgumentParser()
    add_flags(parser, Settings(), "folder", "count", "share", "wanted", "kind")
    return override(Settings(), parser.parse_args(flags))


@pytest.mark.parametrize("form", ["{}", "--wanted {}", "--wanted={}", "-w {}", "-w={}"])
@pytest.mark.parametrize(
    ("text", "value"),
    [("yes", True), ("True", True), ("TRUE", True), ("YES", True), ("no", False), ("No", False), ("false", False)],
)
def test_yes_and_no_in_any_case(form, text, value):
    parser = argparse.ArgumentParser()
    add_yes_no(parser, "-w", "--wanted", default=None, help="")
    flags = form.format(text).split() if "w" in form else ["--wanted", text]
    assert parser.parse_args(flags).wanted is value


@pytest.mark.parametrize("default", [True, False])
def test_bare_flag_means_yes_and_none_the_default(default):
    parser = argparse.ArgumentParser()
    add_yes_no(parser, "-w", "--wanted", default=default, help="")
    assert parser.parse_args(["-w"]).wanted is True
    assert parser.parse_args(["--wanted"]).wanted is True
    assert parser.parse_args([]).wanted is default


@pytest.mark.parametrize(
    ("flags", "changed"),
    [
        ([], {}),
        (["--folder=elsewhere", "--count=0"], {"folder": "elsewhere", "count": 0}),
        (["--share", "0"], {"share": 0.0}),
        (["--wanted=no", "--kind=B"], {"wanted": False, "kind": "B"}),
        (["--wanted"], {}),
    ],
)
def test_flags_override_the_settings_they_are_named_after(flags, changed):
    assert overridden(*flags) == Settings(**changed)


@pytest.mark.parametrize(
    ("flag", "complaint"),
    [
        ("--wanted=maybe", "'maybe' is neither yes nor no"),
        ("--wanted=", "'' is neither yes nor no"),
        ("--kind=C", "'C'"),
        ("--count=many", "'many'"),
        ("--count=1.5", "'1.5'"),
        ("--other=1", "--other"),
    ],
)
def test_bad_value_is_a_usage_error_that_names_it(capsys, flag, complaint):
    with pytest.raises(SystemExit) as exit:
        overridden(flag)
    assert exit.value.code == 2
    assert complaint in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("edited", "complaint"),
    [
        ({"count": "3"}, "parameters.py sets count to '3': it must be a whole number"),
        ({"count": True}, "parameters.py sets count to True: it must be a whole number"),
        ({"share": None}, "parameters.py sets share to None: it must be a number"),
        ({"wanted": 1}, "parameters.py sets wanted to 1: it must be true or false"),
        ({"kind": "C"}, "parameters.py sets kind to 'C': it must be one of A, B"),
        ({"bounds": 0.5}, "parameters.py sets bounds to 0.5: it must be a tuple, like (0.5, 1.0)"),
        ({"bounds": (0.5, "1")}, "parameters.py sets bounds to (0.5, '1'): it must be a tuple, like (0.5, 1.0)"),
        ({"names": "linear"}, "parameters.py sets names to 'linear': it must be a tuple, like ('first', 'second')"),
    ],
)
def test_parameters_py_edited_wrongly_is_an_error_that_says_how_to_mend_it(edited, complaint):
    with pytest.raises(UserError, match=f"^{re.escape(complaint)}$"):
        add_flags(argparse.ArgumentParser(), Settings(**edited), "folder")


def test_whole_number_serves_as_a_number():
    parser = argparse.ArgumentParser()
    add_flags(parser, Settings(share=1, bounds=(0, 1)), "share")
    assert parser.parse_args(["--share=0.25"]).share == 0.25


def test_help_shows_explanations_defaults_and_choices(capsys):
    with pytest.raises(SystemExit) as exit:
        overridden("--help")
    assert exit.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for text in ("where (default: features)", "100% of it (default: 0.5)", "whether (default: yes)", "{A,B}"):
        assert text in shown


@pytest.mark.parametrize(
    ("ending", "status", "stderr"),
    [
        (None, 0, ""),
        (UserError("no photo at 100%.jpg: take one"), 2, "error: no photo at 100%.jpg: take one\n"),
        (KeyboardInterrupt(), 130, "\ninterrupted\n"),
    ],
    ids=["done", "the user's error", "Ctrl-C"],
)
def test_command_ends_with_a_status_and_at_most_a_line(capsys, ending, status, stderr):
    @command
    def main(argv=None):
        if ending:
            raise ending
        return 0

    assert main([]) == status
    assert capsys.readouterr() == ("", stderr)


def test_error_in_short_is_one_short_line():
    assert in_short(ValueError("format 2, not 1")) == "ValueError('format 2, not 1')"
    assert in_short(ValueError("a\nb" * 999)) == "ValueError('" + r"a\nb" * 33 + "…')"
    with pytest.raises(UnicodeDecodeError) as error:
        (b"\xff" * 999).decode()
    assert "invalid start byte" in in_short(error.value) and len(in_short(error.value)) < 130


def test_defects_of_ours_are_not_hidden():
    @command
    def main(argv=None):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        main([])


@pytest.mark.parametrize("flush", [True, False])
def test_closed_pipe_ends_a_script_quietly(flush):
    script = f"""
import sys
from ferkit.processes import command

@command
def main(argv=None):
    sys.stdin.read()  # until the reader is gone
    print("a line", flush={flush})
    return 0

sys.exit(main())
"""
    pipe = subprocess.PIPE
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    run = subprocess.Popen(
        [sys.executable, "-c", script], stdin=pipe, stdout=pipe, stderr=pipe, cwd=ROOT, env=environment
    )
    run.stdout.close()
    run.stdin.close()
    assert run.stderr.read() == b""
    assert run.wait() == 141


def test_quiet_drops_native_messages_and_warnings_until_its_end(capfd):
    with pytest.raises(ValueError), warnings.catch_warnings(record=True) as caught, quiet():
        os.write(2, b"native chatter")
        warnings.warn("chatter", stacklevel=1)
        raise ValueError
    os.write(2, b"an error")
    assert capfd.readouterr().err == "an error"
    assert not caught


def test_quiet_libraries_lets_python_speak():
    code = (
        "import os, sys; from ferkit.processes import quiet, quiet_libraries\n"
        "with quiet_libraries():\n"
        "    os.write(2, b'noise'); print('words', file=sys.stderr)\n"
        "    with quiet(): os.write(2, b'noise')\n"
        "    os.write(2, b'noise'); print('more', file=sys.stderr)\n"
        "print('after', file=sys.stderr); os.write(2, b'all')"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "words\nmore\nafter\nall")


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="the signals of Unix")
@pytest.mark.parametrize("number", ["SIGTERM", "SIGHUP"])
def test_request_to_end_unwinds(number):
    code = (
        "import os, signal; from ferkit.processes import ended_by_signals, uninterrupted\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # under nohup, tests inherit that it is ignored, which stays
        "with ended_by_signals():\n"
        "    try:\n"
        f"        with uninterrupted(): os.kill(os.getpid(), signal.{number}); print('not heard')\n"
        f"        os.kill(os.getpid(), signal.{number}); print('never printed')\n"
        "    finally: print('finished')"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 128 + getattr(signal, number) and run.stdout.split("\n") == ["not heard", "finished", ""]
    assert run.stderr == ""
