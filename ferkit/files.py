"""Files are read only if they are regular ones; files and folders appear only when complete.

    facts = json.loads(read_text("manifest.json"))
    with whole_file("model.bin") as temporary:  # written under this name, then renamed
        temporary.write_bytes(content)

A process that is killed leaves its temporary files. They are locked while the process lives, so the next process that
writes into the same folder finds them without a lock, and deletes them.
"""

import contextlib
import errno
import functools
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

from ferkit.errors import UserError

_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{8}\.partial(\.[^.]+)?")
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


# --- reading ---------------------------------------------------------------------------------------------------------


def open_file(path: str | Path) -> BufferedReader:
    """Opens a file to read its bytes.

    Raises FileNotFoundError, and UserError when the file may not be read or is no regular one: a folder, or a pipe,
    which would be waited for without an end.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        file = os.open(path, flags)
    except FileNotFoundError:
        raise
    except PermissionError as error:
        raise UserError(f"no permission to read {path}") from error
    except (OSError, ValueError) as error:  # ValueError: for a name with a zero byte
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    mode = os.fstat(file).st_mode
    if not stat.S_ISREG(mode):
        os.close(file)
        raise UserError(f"cannot read {path}: {kind_of(mode)}, not a regular file")
    return os.fdopen(file, "rb")


def kind_of(mode: int) -> str:
    """What a mode of `os.stat` says of a file."""
    kinds = {
        stat.S_IFDIR: "it is a folder",
        stat.S_IFIFO: "it is a pipe",
        stat.S_IFSOCK: "it is a socket",
        stat.S_IFREG: "it is a regular file",
    }
    return kinds.get(stat.S_IFMT(mode), "it is a device")


def read_bytes(path: str | Path) -> bytes:
    """The content of a regular file; for the errors see `open_file`."""
    with open_file(path) as file:
        return file.read()


def read_text(path: str | Path) -> str:
    """The content of a regular file in UTF-8. Raises UnicodeDecodeError too; for the others see `open_file`."""
    return read_bytes(path).decode("utf-8")


def real_path(path: str | Path) -> Path:
    """The absolute path without links. Raises UserError for links in a circle."""
    try:
        return Path(path).resolve()
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path} is a link that leads to itself: delete it, or name another place") from error


# --- writing ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to. It is renamed to `path` when the block ends without an error.

    The temporary name keeps the suffix of `path`, because many writers choose their format by it. Raises UserError when
    the file cannot be written, or would replace something that is no regular file.
    """
    shown, path = path, place_for(path)  # replaces the target of a link, not the link
    with written(shown):
        _remove_leftovers(path.parent)
        temporary, lock = _new_file_beside(path)
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if isinstance(error, BrokenPipeError) or error.filename not in (None, str(temporary)):
            raise  # not of this file
        raise not_written(shown, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        os.close(lock)


def place_for(path: str | Path) -> Path:
    """The real path of a file to write, in a folder that exists then. Raises UserError when it cannot be written."""
    place = real_path(path)
    check_replaceable(place, path)
    with written(path):
        place.parent.mkdir(parents=True, exist_ok=True)
    return place


@contextlib.contextmanager
def written(path: str | Path) -> Iterator[None]:
    """Turns an OSError of the code inside, which writes the file `path`, into a UserError."""
    try:
        yield
    except OSError as error:
        raise not_written(path, error) from error


def check_replaceable(path: Path, shown: str | Path | None = None) -> None:
    """Raises UserError when there is something at `path` that is no regular file, and when it is no path for one.

    shown: the name for the message.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise not_written(shown or path, error) from error
    if not stat.S_ISREG(mode):
        raise UserError(f"cannot write {shown or path}: {kind_of(mode)}: name another place")


def is_same(path: str | Path, other: str | Path) -> bool:
    """Whether both exist and are one file, by whatever names."""
    try:
        return os.path.samefile(path, other)
    except (OSError, ValueError):
        return False


def check_beginning(path: str | Path, beginning: bytes) -> None:
    """Raises UserError when there is a file at `path` that does not begin so: not one that the command has written."""
    with contextlib.suppress(FileNotFoundError), open_file(path) as file:
        found = file.read(len(beginning))
        if found and found != beginning:
            raise UserError(f"{path} exists and is no table of this command: name another place, or delete it")


def not_written(path: str | Path, error: OSError) -> UserError:
    """The error for a file or folder that could not be written, with the cure."""
    # NumPy says only how many numbers it has written.
    if error.errno in _NO_SPACE or (error.errno is None and "requested and" in str(error)):
        return UserError(f"cannot write {path}: no space is left on its disk: free some, or name another place")
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return UserError(f"no permission to write {path}: name another place")
    if isinstance(error, FileExistsError | NotADirectoryError):
        return UserError(f"cannot write {path}: a part of its path is a file, not a folder: name another place")
    return UserError(f"cannot write {path}: {error.strerror or error}: name another place")


def _new_file_beside(path: Path) -> tuple[Path, int]:
    """Makes an empty file with an unused name, locked until the returned descriptor is closed.

    Its permissions follow the umask, like those of any new file.
    """
    while True:
        temporary = path.with_name(f".{path.stem[:50]}.{secrets.token_hex(4)}.partial{path.suffix}")
        try:
            file = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            continue
        if _lock(file) is not False and temporary.exists():
            return temporary, file
        os.close(file)  # another process took it for a leftover before it was locked


@functools.cache  # once in a process is enough, and a folder may hold many files
def _remove_leftovers(folder: Path) -> None:
    """Deletes the temporary files in `folder` whose processes are dead."""
    with contextlib.suppress(OSError):  # a folder may be one to write to, but not to list
        for path in folder.iterdir():
            if _LEFTOVER.fullmatch(path.name):
                with _locked_if_dead(path) as dead:
                    if dead:
                        path.unlink(missing_ok=True)


@contextlib.contextmanager
def temporary_folder(prefix: str) -> Iterator[tuple[Path, int]]:
    """A new folder in the system's folder for temporary files, and the descriptor of its lock.

    The folder is deleted at the end of the block. If the process is killed, the next one with the same prefix deletes
    it, unless a child process that has inherited the descriptor still lives.
    """
    for path in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with _locked_if_dead(path) as dead:
            if dead:
                shutil.rmtree(path, ignore_errors=True)
    while True:
        with written(tempfile.gettempdir()):
            folder = Path(tempfile.mkdtemp(prefix=prefix))
        lock = os.open(folder, os.O_RDONLY)
        if _lock(lock) is not False and folder.exists():
            break
        os.close(lock)
    try:
        yield folder, lock
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


@contextlib.contextmanager
def _locked_if_dead(path: Path) -> Iterator[bool]:
    """Whether `path` belongs to this user and no living process has locked it; if so, it is locked."""
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        yield False
        return
    try:
        yield sys.platform != "win32" and os.fstat(file).st_uid == os.geteuid() and _lock(file) is True
    finally:
        os.close(file)


def _lock(file: int) -> bool | None:
    """Locks an open file or folder until it is closed. False if another process has; None if there are no locks."""
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@contextlib.contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside `path` to fill. It is renamed to `path` when the block ends without an error.

    A folder cannot be replaced in one step, so the old folder is first renamed to a hidden name. If the process is
    killed between the two renames, the next call restores the old folder. A link to a folder stays a link. Raises
    UserError when another process is writing the same folder.
    """
    shown, path = path, real_path(path)
    temporary, old = path.with_name(f".{path.name}.partial"), _aside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
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
    except OSError as error:
        ours = (str(temporary), str(path), str(path.parent))
        if isinstance(error, BrokenPipeError) or not str(error.filename or path).startswith(ours):
            raise  # not of this folder
        raise not_written(shown, error) from error


def recover_folder(path: str | Path) -> None:
    """Restores the old folder if `whole_folder` was killed between its two renames."""
    path = real_path(path)
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
    if sys.platform == "win32":  # it has no such locks, so nothing is checked
        yield True
        return
    try:
        file = _open_lock(path.with_name(f".{path.name}.lock"))
    except OSError as error:
        raise not_written(path, error) from error
    try:
        yield _lock(file) is not False
    finally:
        os.close(file)


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
    place = real_path(folder)
    existing = next(parent for parent in (place, *place.parents) if os.path.exists(parent))
    if not existing.is_dir():
        raise UserError(f"cannot write {folder}: {existing} is a file, not a folder: name another place")
    if not os.access(existing, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise UserError(f"no permission to write {folder}: name another place")
    for part in place.relative_to(existing).parts:  # each alone: in a missing folder a name too long is not noticed
        with written(folder), contextlib.suppress(FileNotFoundError):
            os.lstat(existing / part)
