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
from conftest import ROOT, load_script

from ferkit.errors import UserError, in_short
from ferkit.flags import add_flags, add_yes_no, override
from ferkit.processes import command, quiet
from ferkit.settings import setting

TABLES = load_script("docs/tables.py")
COMMANDS = [command for commands in TABLES.PAGES.values() for command in commands]


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


@pytest.mark.parametrize("name", COMMANDS)
def test_flags_of_every_command(name, capsys):
    """None can be abbreviated, and those that take a path take no address, which they do not repeat either."""
    parser = TABLES.parser_of(name)
    required = []
    for action in parser._actions:
        if action.required:  # it is asked for before anything else is complained of
            value = next(iter(action.choices)) if action.choices else "a.jpg"
            required += [*action.option_strings[-1:], value]

    def error_of(flag: str) -> str:
        with pytest.raises(SystemExit) as exit:
            parser.parse_args([*required, flag])
        error = capsys.readouterr().err
        assert exit.value.code == 2 and error.count("\n") == 1 and "cret" not in error
        return error

    for action in (action for action in parser._actions if action.option_strings):
        short = max(action.option_strings, key=len)[:-1]
        if short not in parser._option_string_actions:
            assert f"unrecognized arguments: {short} (" in error_of(f"{short}=1")
    paths = [action for action in parser._actions if action.metavar in ("PATH", "FILE") and not action.required]
    assert paths
    for action in paths:
        for value in ("mongodb://user:se cret@h/a", "https://h/a?key=secret", "mongodb:/user:secret@h/a", ""):
            assert f"argument {'/'.join(action.option_strings)}: " in error_of(f"{action.option_strings[-1]}={value}")


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


IN_AN_IMPORT = ImportError("initialization failed")
IN_AN_IMPORT.__cause__ = KeyboardInterrupt()


@pytest.mark.parametrize(
    ("ending", "status", "stderr"),
    [
        (None, 0, ""),
        (UserError("no photo at 100%.jpg: take one"), 2, "error: no photo at 100%.jpg: take one\n"),
        (KeyboardInterrupt(), 130, "\ninterrupted\n"),
        (IN_AN_IMPORT, 130, "\ninterrupted\n"),
    ],
    ids=["done", "the user's error", "Ctrl-C", "Ctrl-C while a native library is imported"],
)
def test_command_ends_with_a_status_and_at_most_a_line(capsys, ending, status, stderr):
    @command
    def main(argv=None):
        if ending:
            raise ending
        return 0

    assert main([]) == status
    assert capsys.readouterr() == ("", stderr)


def test_other_errors_of_imports_are_not_hidden():
    @command
    def main(argv=None):
        raise ImportError("a fault of ours")

    with pytest.raises(ImportError, match="a fault of ours"):
        main([])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\nlines\r\n", r"two\nlines\r\n"),
        ("\x1b]0;title\x07\x1b[31mred\x9b2J", r"\x1b]0;title\x07\x1b[31mred\x9b2J"),
        ("photo\u202egnp.exe \udcff", r"photo\u202egnp.exe \udcff"),
        ("Ärger 😀 50%: ça va", "Ärger 😀 50%: ça va"),
        ("no MongoDB at mongodb://user:se/cr@et@host/faces", "no MongoDB at mongodb://host/faces"),
        ("mongodb:/user:secret@host/faces is a file", "mongodb:/host/faces is a file"),
        ("rtsp://cam/1?user=admin&password=secret: no stream", "rtsp://cam/1?… no stream"),
        ("no dataset in user:secret@host/faces", "no dataset in …@host/faces"),
        ("my@clip.mp4: no such file; is http://host/a up?", "my@clip.mp4: no such file; is http://host/a up?"),
    ],
)
def test_error_is_one_line_without_control_characters_and_passwords(capsys, text, shown):
    @command
    def main(argv=None):
        raise UserError(text)

    assert main([]) == 2
    assert capsys.readouterr() == ("", f"error: {shown}\n")


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


@pytest.mark.skipif(sys.platform == "win32", reason="the shell of Unix")
@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_command_with_closed_streams_does_its_work_and_errors_go_nowhere_else(tmp_path, closed):
    script = (
        "import os, sys; from ferkit.errors import UserError; from ferkit.processes import command, complain\n"
        "@command\n"
        "def main(argv=None):\n"
        "    with open(sys.argv[1], 'w') as file:\n"
        "        os.write(2, b'native'); print('words', file=sys.stderr); file.write('whole'); complain('one')\n"
        "    raise UserError('other')\n"
        "sys.exit(main())"
    )
    shell = f'"$1" -c "$2" "$3" {closed}'
    run = subprocess.run(
        ["sh", "-c", shell, "sh", sys.executable, script, str(tmp_path / "file")], cwd=ROOT, capture_output=True
    )
    assert (run.returncode, run.stdout, run.stderr) == (2, b"", b"")
    assert (tmp_path / "file").read_text() == "whole"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
def test_full_output_is_one_line():
    script = "import sys; from ferkit.processes import command; sys.exit(command(lambda argv: print('line') or 0)())"
    with open("/dev/full", "w") as full:
        run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (run.returncode, run.stderr) == (2, "error: standard output: No space left on device\n")


def test_warnings_of_packages_and_a_lack_of_memory_leave_one_line(capsys):
    @command
    def main(argv=None):
        warnings.warn("for developers", stacklevel=1)
        raise MemoryError

    with warnings.catch_warnings(record=True) as caught:
        assert main([]) == 2
    assert not caught
    assert capsys.readouterr().err == "error: out of memory: end other programs, or do less at a time\n"


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
