"""What every script's command line shares: yes/no flags, flags named after settings, one-line errors, quiet.

parser = argparse.ArgumentParser(...)
add_flags(parser, NETWORK, "model", "features")
arguments = parser.parse_args(argv)
network = override(NETWORK, arguments)
"""

import argparse
import contextlib
import dataclasses
import functools
import io
import json
import multiprocessing
import os
import signal
import sys
import threading
import typing
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

Settings = TypeVar("Settings")

KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
TUPLES = {float: "(0.5, 1.0)", str: "('first', 'second')"}


class UserError(Exception):
    """Something the user can mend. Its text is one line that names the thing and the cure."""

    status = 2  # the script's exit status


def in_short(error: Exception) -> str:
    """Its kind and the beginning of its text, on one line; its repr may hold the whole file that it is about."""
    text = str(error)
    return f"{type(error).__name__}({text if len(text) <= 100 else f'{text[:99]}…'!r})"


def yes_no(text: str) -> bool:
    """`yes`, `no`, `true`, `false` in any case, as a bool."""
    answers = {"yes": True, "true": True, "no": False, "false": False}
    if text.lower() not in answers:
        raise argparse.ArgumentTypeError(f"'{text}' is neither yes nor no")
    return answers[text.lower()]


def add_yes_no(parser: argparse.ArgumentParser, *names: str, default: bool | None, help: str) -> None:
    """A flag that takes yes or no; bare, it means yes. None is the default of a flag that overrides a setting."""
    if default is not None:
        help = f"{help} (default: {shown(default)})"
    parser.add_argument(*names, type=yes_no, nargs="?", const=True, default=default, metavar="yes|no", help=help)


def add_flags(parser: argparse.ArgumentParser, settings: Any, *names: str) -> None:
    """One flag `--name` for each named field of the dataclass instance `settings`.

    Raises UserError when parameters.py, where the user edits them, has a value of another type than the field's.
    """
    check_types(settings)
    fields = {field.name: field for field in dataclasses.fields(settings)}
    for name in names:
        value, metadata, kind = getattr(settings, name), fields[name].metadata, fields[name].type
        help = f"{metadata['help']} (default: {shown(value)})".replace("%", "%%")
        if kind is bool:
            add_yes_no(parser, f"--{name}", default=None, help=help)
        else:
            choices = metadata["choices"]
            metavar = None if choices else {int: "N", float: "X"}.get(kind, "PATH")
            parser.add_argument(f"--{name}", type=kind, choices=choices, metavar=metavar, help=help)


def override(settings: Settings, arguments: argparse.Namespace) -> Settings:
    """`settings` with each value whose flag was given replaced by the flag's."""
    names = [field.name for field in dataclasses.fields(settings)]
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name, None) is not None}
    return dataclasses.replace(settings, **given)


def check_asked(path: Path, known: dict[str, Any], arguments: argparse.Namespace, *names: str) -> None:
    """Raises UserError when a flag asks for another value than the model at `path` was trained with, as in `known`."""
    for name in names:
        asked = getattr(arguments, name)
        if asked not in (None, known[name]):
            raise UserError(
                f"{path} was trained with {name}={known[name]}: leave out --{name}={asked}, or name another "
                "--save_model_path"
            )


def check_types(settings: Any) -> None:
    """Raises UserError when a value of the dataclass instance `settings` is of another type than its field's."""
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if typing.get_origin(field.type) is tuple:
            kind = typing.get_args(field.type)[0]
            fits = isinstance(value, tuple) and all(_fits(item, kind) for item in value)
            wanted = f"a tuple, like {TUPLES[kind]}"
        else:
            fits, wanted = _fits(value, field.type), KINDS[field.type]
            choices = field.metadata["choices"]
            if fits and choices and value not in choices:
                fits, wanted = False, f"one of {', '.join(choices)}"
        if not fits:
            raise UserError(f"parameters.py sets {field.name} to {value!r}: it must be {wanted}")


def _fits(value: Any, kind: type) -> bool:
    is_integer_for_float = kind is float and type(value) is int and abs(value) <= sys.float_info.max
    return type(value) is kind or is_integer_for_float


def read_settings(settings: Settings, path: str | Path) -> Settings:
    """`settings` with the values that the JSON file at `path` has. Raises UserError for a file that does not fit."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f'{path} is no JSON ({error}): it must look like {{"learning_rate": 0.01}}') from error
    if not isinstance(values, dict):
        raise UserError(f'{path} is no JSON object: it must look like {{"learning_rate": 0.01}}')
    return with_values(settings, values, str(path))


def with_values(settings: Settings, values: dict[str, Any], source: str) -> Settings:
    """`settings` with the `values` of `source`. Raises UserError for a name, type or choice that there is not."""
    fields, fitting = {field.name: field for field in dataclasses.fields(settings)}, {}
    for name, value in values.items():
        if name not in fields:
            raise UserError(f"{source} sets '{name}', which there is not: it can set {', '.join(fields)}")
        kind, choices = fields[name].type, fields[name].metadata["choices"]
        if not _fits(value, kind):
            raise UserError(f"{source} sets {name} to {json.dumps(value, default=repr)}: it must be {KINDS[kind]}")
        fitting[name] = kind(value)
        if choices and value not in choices:
            raise UserError(f"{source} sets {name} to '{value}': it must be one of {', '.join(choices)}")
    return dataclasses.replace(settings, **fitting)


def command(main: Callable[[Sequence[str] | None], int]) -> Callable[..., int]:
    """Decorates a script's `main(argv) -> exit status`.

    A `UserError`, and the system's own (no permission, no space), becomes one line on stderr and exit status 2; Ctrl-C
    becomes exit status 130; a closed pipe (`| head`) ends the script quietly.
    """

    @functools.wraps(main)
    def wrapped(argv: Sequence[str] | None = None) -> int:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # file names may have letters that a terminal lacks
        try:
            status = main(argv)
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where a closed pipe is caught
            return status
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return error.status
        except KeyboardInterrupt:
            print("\ninterrupted", file=sys.stderr)
            return 130
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        except OSError as error:
            name = error.filename2 or error.filename  # a file is written beside its place, then renamed into it
            print(f"error: {name}: {error.strerror}" if name else f"error: {error}", file=sys.stderr)
            return 2

    return wrapped


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drops the warnings, and what native libraries write to stderr, of the code inside."""
    if sys.stderr is None:  # closed: there is nothing to keep quiet
        yield
        return
    sys.stderr.flush()
    terminal = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Drops what native libraries write to stderr while the code inside runs; what Python writes there still arrives.

    For long work with libraries that report every damaged frame, as FFmpeg does, and from any thread.
    """
    outer = sys.stderr
    with contextlib.ExitStack() as stack:
        if outer is not None and _descriptor(outer) == 2:
            terminal = stack.enter_context(
                open(os.dup(2), "w", buffering=1, encoding=outer.encoding, errors=outer.errors)
            )
            stack.enter_context(contextlib.redirect_stderr(terminal))
        stack.enter_context(quiet())
        yield


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """A request to end (SIGTERM), or a terminal that was closed (SIGHUP), unwinds the code inside as Ctrl-C does.

    So files are finished and devices released. The exit status is a shell's: 128 and the signal's number.
    """

    def end(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, end) for number in numbers if signal.getsignal(number) != signal.SIG_IGN}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C and the other requests to end are not heard by the code inside, which has to be short."""
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _descriptor(stream: Any) -> int | None:
    try:
        return stream.fileno()
    except (AttributeError, OSError, ValueError):  # not a file: a notebook's or a test's
        return None


def follow_parent() -> None:
    """Called in a child process: Ctrl-C is the parent's to handle, and a child whose parent was killed ends too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def shown(value: Any) -> str:
    """A setting's value as its flag takes it."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
