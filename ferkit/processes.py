"""How a command starts and ends: one-line errors, exit statuses, signals, and quiet native libraries.

    @command
    def main(argv=None) -> int:
        ...

This module imports the standard library only, so that a command can report a package that is not installed.
"""

import contextlib
import functools
import io
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ferkit.errors import UserError

# The modules of the packages in requirements-predict.txt, which are enough to recognize.
_FOR_RECOGNITION = {"ai_edge_litert", "cv2", "dlib", "imutils", "numpy", "PIL", "scipy", "tqdm"}
# What requirements.txt adds.
_FOR_TRAINING = {"hyperopt", "matplotlib", "pandas", "pymongo", "skimage", "sklearn", "tensorflow", "tflearn"}


def command(main: Callable[[Sequence[str] | None], int]) -> Callable[..., int]:
    """Decorates the `main(argv) -> exit status` of a script.

    A `UserError`, a package that is not installed, and an error of the operating system (no permission, no space) are
    reported in one line on stderr with exit status 2. Ctrl-C gives exit status 130. A closed pipe (`| head`) ends the
    script without a message.
    """

    @functools.wraps(main)
    def wrapped(argv: Sequence[str] | None = None) -> int:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a file name can have letters that a terminal lacks
        try:
            status = main(argv)
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where a closed pipe is caught
            return status
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return error.status
        except ModuleNotFoundError as error:
            cure = _cure_of_missing(error)
            if cure is None:
                raise
            print(f"error: {cure}", file=sys.stderr)
            return UserError.status
        except KeyboardInterrupt:
            print("\ninterrupted", file=sys.stderr)
            return 130
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        except OSError as error:
            name = error.filename2 or error.filename  # a file is written under another name, then renamed
            print(f"error: {name}: {error.strerror}" if name else f"error: {error}", file=sys.stderr)
            return UserError.status

    return wrapped


def _cure_of_missing(error: ModuleNotFoundError) -> str | None:
    """The line for a package that is not installed; None for a module of our own or of an unknown package."""
    package = (error.name or "").partition(".")[0]
    if package in _FOR_RECOGNITION:
        return f"{package} is not installed: 'pip install --no-deps -r requirements-predict.txt'"
    if package in _FOR_TRAINING:
        return f"{package} is not installed: 'pip install -r requirements.txt'"
    return None


# --- quiet native libraries ------------------------------------------------------------------------------------------


class _StderrSilencer:
    """Points the file descriptor of stderr to nowhere while at least one thread wants it silent.

    The descriptor belongs to the whole process. Threads therefore share one redirection: the first one to enter starts
    it and the last one to leave ends it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._terminal = -1  # a copy of the descriptor as it was
        self._warnings = warnings.catch_warnings()

    def enter(self) -> None:
        with self._lock:
            if self._users == 0:
                if sys.stderr is not None:
                    sys.stderr.flush()
                self._terminal = os.dup(2)
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, 2)
                os.close(nowhere)
                self._warnings = warnings.catch_warnings()  # it serves once
                self._warnings.__enter__()
                warnings.simplefilter("ignore")
            self._users += 1

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                os.dup2(self._terminal, 2)
                os.close(self._terminal)
                self._warnings.__exit__(None, None, None)

    def restart_in_child(self) -> None:
        """After a fork, the threads that wanted silence are gone."""
        self._lock = threading.Lock()
        if self._users:
            self._users = 1
            self.leave()


_silencer = _StderrSilencer()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_silencer.restart_in_child)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drops the warnings, and what native libraries write to stderr, of the code inside.

    Several threads may be inside at the same time.
    """
    try:
        os.fstat(2)
    except OSError:  # stderr is closed: nothing has to be dropped
        yield
        return
    _silencer.enter()
    try:
        yield
    finally:
        _silencer.leave()


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Drops what native libraries write to stderr while the code inside runs; Python's own messages still arrive.

    For long work with libraries that report every damaged frame, as FFmpeg does, from any thread.
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


def _descriptor(stream: Any) -> int | None:
    try:
        return stream.fileno()
    except (AttributeError, OSError, ValueError):  # not a file: the stream of a notebook or of a test
        return None


# --- signals ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """A request to end (SIGTERM), or a terminal that was closed (SIGHUP), unwinds the code inside as Ctrl-C does.

    So files are finished and devices released. The exit status is a shell's: 128 plus the number of the signal.
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
    """The code inside, which has to be short, ignores Ctrl-C and the other requests to end."""
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def follow_parent() -> None:
    """Call this in a child process: it leaves Ctrl-C to the parent, and it ends when the parent was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)
