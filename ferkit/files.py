"""Files and folders that appear only when complete: they are written under a temporary name, then renamed."""

import contextlib
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from ferkit.errors import UserError


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to. It is renamed to `path` when the block ends without an error.

    The temporary name keeps the suffix of `path`, because many writers choose their format by it.
    """
    path = Path(path).resolve()  # replaces the target of a link, not the link
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _new_file_beside(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _new_file_beside(path: Path) -> Path:
    """Makes an empty file with an unused name. Its permissions follow the umask, like those of any new file."""
    while True:
        temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
        try:
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            continue
        return temporary


@contextlib.contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside `path` to fill. It is renamed to `path` when the block ends without an error.

    A folder cannot be replaced in one step, so the old folder is first renamed to a hidden name. If the process is
    killed between the two renames, the next call restores the old folder. A link to a folder stays a link. Raises
    UserError when another process is writing the same folder.
    """
    path = Path(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = path.with_name(f".{path.name}.partial"), _aside(path)
    with lock(path) as locked:
        if not locked:
            raise UserError(f"another process is writing {path}: wait for it, or end it")
        _recover(path)
        shutil.rmtree(temporary, ignore_errors=True)  # left by a killed process
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
    """Restores the old folder if `whole_folder` was killed between its two renames."""
    path = Path(path).resolve()
    if _aside(path).is_dir():
        with lock(path) as locked:
            if locked:  # otherwise another process is renaming right now
                _recover(path)


def _recover(path: Path) -> None:
    old = _aside(path)
    if old.is_dir() and path.exists():
        shutil.rmtree(old, ignore_errors=True)
    elif old.is_dir():
        os.replace(old, path)


@contextlib.contextmanager
def lock(path: Path) -> Iterator[bool]:
    """Locks a file or folder. Gives whether the lock was free; True if the system or the disk has no locks.

    The system releases the lock when the process ends, even by a kill. The lock file `.<name>.lock` is not deleted.
    """
    with contextlib.ExitStack() as stack:
        locked = True
        if sys.platform != "win32":  # Windows has no such locks, so nothing is checked
            import fcntl

            file = _open_lock(path.with_name(f".{path.name}.lock"))
            stack.callback(os.close, file)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                locked = False
            except OSError:
                pass
        yield locked


def _open_lock(path: Path) -> int:
    """Opens a lock file without changing its content. Raises UserError for a link, which could lead to any file."""
    if not path.is_symlink():
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(path, flags, 0o666)
    raise UserError(f"{path} is a link, which no lock file is: delete it")


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def check_writable(folder: Path) -> None:
    """Raises UserError when `folder` cannot be written to. The folder need not exist yet."""
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"nothing can be written to {folder}: name another place, as --help says")
