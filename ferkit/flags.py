"""Flags for command lines: yes/no flags, and flags that have the names of settings and override them.

parser = argparse.ArgumentParser(...)
add_flags(parser, NETWORK, "model", "features")
network = override(NETWORK, parser.parse_args(argv))
"""

import argparse
import dataclasses
import functools
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from ferkit.errors import UserError
from ferkit.processes import available_cores, complain
from ferkit.settings import check_types, choices_of

Settings = TypeVar("Settings")


class Parser(argparse.ArgumentParser):
    """A command line that reports a wrong flag in one line instead of with the whole usage.

    The line never has a password, even if an address or a password was given to a wrong flag. Flags cannot be
    abbreviated: an abbreviation would change its meaning when a flag is added.
    """

    def __init__(self, **settings: Any):
        super().__init__(allow_abbrev=False, **settings)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        arguments, others = self.parse_known_args(args, namespace)
        if others:
            flags = [other.partition("=")[0] for other in others if other.startswith("-")]
            self.error(f"unrecognized arguments: {' '.join(flags) or 'a value without its flag'}")
        return arguments

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"""([='"]).*@""", r"\1…@", message, flags=re.DOTALL)
        complain(f"{message} (see {self.prog} --help)")
        sys.exit(UserError.status)


def yes_no(text: str) -> bool:
    """Parses `yes`, `no`, `true` and `false`, in upper or lower case."""
    answers = {"yes": True, "true": True, "no": False, "false": False}
    if text.lower() not in answers:
        raise argparse.ArgumentTypeError(f"'{text}' is neither yes nor no")
    return answers[text.lower()]


def positive(text: str) -> int:
    """Parses a whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above 0")
    return int(text)


def not_negative(text: str) -> int:
    """Parses a whole number of 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of 0 or more")
    return int(text)


def local_path(text: str) -> str:
    """Parses the name of a file or folder. An address is refused, and not repeated: it may have a password."""
    if re.match(r"[A-Za-z][\w+.-]+:/", text):
        raise argparse.ArgumentTypeError("it is an address, where the path of a file or folder belongs")
    return path_or_address(text)


def path_or_address(text: str) -> str:
    """Parses what may name many things, but not nothing."""
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is no path")
    return text


def add_yes_no(parser: Any, *names: str, default: bool | None, help: str, dest: str | None = None) -> None:
    """Adds a flag that takes yes or no; without a value it means yes. The flag of a setting has the default None."""
    if default is not None:
        help = f"{help} (default: {shown(default)})"
    named = {} if dest is None else {"dest": dest}
    parser.add_argument(
        *names, type=yes_no, nargs="?", const=True, default=default, metavar="yes|no", help=help, **named
    )


def add_processes(parser: Any) -> None:
    """Adds the flag `--processes`."""
    help = "number of processes (default: all cores)"
    parser.add_argument("--processes", type=positive, default=available_cores(), metavar="N", help=help)


def add_flags(parser: Any, settings: Any, *names: str, choices: Mapping[str, Iterable[str]] | None = None) -> None:
    """Adds a flag for each named field of the dataclass instance `settings`.

    choices: choices of fields whose own definition has none.
    Raises UserError when a value, as edited in parameters.py, has a type that the field does not allow.
    """
    check_types(settings)
    fields = {field.name: field for field in dataclasses.fields(settings)}
    for name in names:
        value, field = getattr(settings, name), fields[name]
        options = [f"--{option}" for option in field.metadata.get("flags") or (name,)]
        help = f"{field.metadata['help']} (default: {shown(value)})".replace("%", "%%")
        if field.type is bool:
            add_yes_no(parser, *options, dest=name, default=None, help=help)
        else:
            allowed = tuple((choices or {}).get(name, ())) or choices_of(field)
            kind: Any = local_path if field.type is str and not allowed else field.type
            metavar = None if allowed else {int: "N", float: "X"}.get(kind, "PATH")
            bare: dict[str, Any] = {}
            if former := field.metadata.get("former"):
                kind, bare = functools.partial(_today, former), {"nargs": "?", "const": former["yes"]}
            parser.add_argument(*options, dest=name, type=kind, choices=allowed, metavar=metavar, help=help, **bare)


def _today(former: Mapping[str, str], text: str) -> str:
    """The present value for one that a flag took in an earlier version."""
    return former.get(text.lower(), text)


def override(settings: Settings, arguments: argparse.Namespace) -> Settings:
    """`settings`, with the values of the given flags."""
    names = [field.name for field in dataclasses.fields(settings)]  # type: ignore[arg-type]
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name, None) is not None}
    return dataclasses.replace(settings, **given)  # type: ignore[type-var]


def check_asked(
    path: Path, known: dict[str, Any], arguments: argparse.Namespace, *names: str, other: str = "--model_path"
) -> None:
    """Raises UserError when a flag differs from the value in `known`, with which the model at `path` was trained.

    A value that is not in `known`, as the model does not tell it, may be any.

    other: the flag that names another model.
    """
    for name in names:
        asked = getattr(arguments, name)
        if name in known and asked not in (None, known[name]):
            raise UserError(
                f"{path} was trained with {name}={shown(known[name])}: leave out --{name}={shown(asked)}, or name "
                f"another {other}"
            )


def either(names: Iterable[str]) -> str:
    """Some names in words: `A, B or C`."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def shown(value: Any) -> str:
    """The value of a setting in the form that its flag accepts."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
