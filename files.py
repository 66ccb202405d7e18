"""Files and folders that appear whole or not at all: written beside their place, then renamed into it."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from command_line import UserError

try:
    import fcntl
except ImportError:  # Windows has none, and goes without the check that it serves
    fcntl = None

LOCK = ".lock"


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it takes the place of `path` when the block ends well.

    The temporary name keeps the suffix of `path`, by which many writers choose their format.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside `path` to fill; it takes the place of `path` when the block ends well.

    A folder cannot be replaced in one step, so the old one is moved aside first: a kill in the instant between
    the two renames leaves it whole under a hidden name, from where the next call puts it back. A link to a folder stays
    a link.
    """
    path = Path(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    recover_folder(path)
    old = _aside(path)
    temporary = path.with_name(f".{path.name}.partial")
    lock = _locked(temporary)
    try:
        yield temporary
        lock.close()
        (temporary / LOCK).unlink()
        if path.exists():
            os.replace(path, old)
        os.replace(temporary, path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        lock.close()
        shutil.rmtree(temporary, ignore_errors=True)


def _locked(temporary: Path) -> IO:
    """Makes the folder anew, or raises UserError where another process is still filling it.

    The lock is the open file's: it goes with the process, however that ends, so what a kill left behind is cleared.
    """
    if fcntl is not None and (temporary / LOCK).exists():
        with open(temporary / LOCK) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UserError(f"another process is writing {temporary}: wait for it, or end it") from error
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    lock = open(temporary / LOCK, "w")  # noqa: SIM115, for it stays open as long as the folder is being filled
    if fcntl is not None:
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def recover_folder(path: str | Path) -> None:
    """Puts back what a kill between `whole_folder`'s two renames left aside."""
    path = Path(path).resolve()
    old = _aside(path)
    if old.is_dir():
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(old, path)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
