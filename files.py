"""Files and folders that appear whole or not at all: written beside their place, then renamed into it."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from command_line import UserError

try:
    import fcntl
except ImportError:  # Windows has none, and goes without the check that it serves
    fcntl = None


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it takes the place of `path` when the block ends well.

    The temporary name keeps the suffix of `path`, by which many writers choose their format.
    """
    path = Path(path).resolve()  # a link stays a link
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
    a link. Raises UserError when another process is writing the same folder.
    """
    path = Path(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = path.with_name(f".{path.name}.partial"), _aside(path)
    with lock(path) as locked:
        if not locked:
            raise UserError(f"another process is writing {path}: wait for it, or end it")
        _recover(path)
        shutil.rmtree(temporary, ignore_errors=True)  # left by a kill
        temporary.mkdir()
        try:
            yield temporary
            if path.exists():
                os.replace(path, old)
            os.replace(temporary, path)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def recover_folder(path: str | Path) -> None:
    """Puts back what a kill between `whole_folder`'s two renames left aside."""
    path = Path(path).resolve()
    if _aside(path).is_dir():
        with lock(path) as locked:
            if locked:  # else it was no kill: the renames are under way
                _recover(path)


def _recover(path: Path) -> None:
    old = _aside(path)
    if old.is_dir() and path.exists():
        shutil.rmtree(old, ignore_errors=True)
    elif old.is_dir():
        os.replace(old, path)


@contextlib.contextmanager
def lock(path: Path) -> Iterator[bool]:
    """Whether this process alone may write the file or folder; True where the system or its disk has no locks.

    The lock is the open file's and goes with the process, however that ends; the file beside it stays.
    """
    with contextlib.ExitStack() as stack:
        locked = True
        if fcntl is not None:
            file = stack.enter_context(open(path.with_name(f".{path.name}.lock"), "w"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                locked = False
            except OSError:
                pass
        yield locked


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
