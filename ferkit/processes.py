"""How a command runs: one-line errors, exit statuses, signals, several processes, and quiet native libraries.

    @command
    def main(argv=None) -> int:
        ...

This module imports only the standard library, so that a command can report a missing package.
"""

import contextlib
import errno
import functools
import io
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from ferkit.errors import UserError, one_line, without_credentials

# The modules of the packages in requirements-predict.txt, which are enough for recognition.
_FOR_RECOGNITION = {
    *("ai_edge_litert", "av", "cv2", "dlib", "imutils", "msgspec", "numpy", "PIL", "scipy", "tqdm"),
    *("flask", "waitress", "werkzeug"),
}
# The modules that requirements.txt adds.
_FOR_TRAINING = {"hyperopt", "matplotlib", "pandas", "pymongo", "skimage", "sklearn", "tensorflow", "tflearn"}
_ALONE = {"onnx"}  # installed only by those who need it
_AHEAD = 16  # items for each of several processes that are under way at a time
_REQUESTS = ("SIGINT", "SIGTERM", "SIGHUP")  # signals that ask a program to end: Ctrl-C, kill, a closed terminal
_MOST_PROCESSES = 61  # the most that Windows can wait for


def command(main: Callable[[Sequence[str] | None], int]) -> Callable[..., int]:
    """Decorates the `main(argv) -> exit status` of a script.

    A `UserError`, a package that is not installed, too little memory, and an error of the operating system (no
    permission, no space) are reported in one line on stderr with exit status 2. Ctrl-C gives exit status 130. A closed
    pipe (`| head`) ends the script without a message. Warnings of packages, which a user cannot mend, are dropped.
    """

    @functools.wraps(main)
    def wrapped(argv: Sequence[str] | None = None) -> int:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # see startup.py
            signal.signal(signal.SIGINT, signal.default_int_handler)
        _open_closed_streams()
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # terminals lack some letters of file names
        try:
            with warnings.catch_warnings():
                if not sys.warnoptions:
                    warnings.simplefilter("ignore")
                status = main(argv)
            sys.stdout.flush()  # here, because a closed pipe is caught below
            return status
        except UserError as error:
            complain(error)
            return error.status
        except ModuleNotFoundError as error:
            cure = cure_of_missing(error)
            if cure is None:
                raise
            complain(cure)
        except (KeyboardInterrupt, ImportError) as error:  # native libraries turn Ctrl-C during their import into one
            if KeyboardInterrupt not in (type(error), type(error.__cause__)):
                raise
            print("\ninterrupted", file=sys.stderr)
            return 130
        except BrokenPipeError:
            _drop_stdout()
            return 141
        except MemoryError:
            complain("out of memory: end other programs, or do less at a time")
        except OSError as error:
            complain(_in_words(error))
        return UserError.status

    return wrapped


def complain(message: object, kind: str = "error") -> None:
    """Prints an error or a note on stderr: one line, without control characters and without passwords."""
    with contextlib.suppress(OSError):  # stderr may be full or closed
        print(f"{kind}: {one_line(without_credentials(str(message)))}", file=sys.stderr)


def _in_words(error: OSError) -> str:
    name = error.filename2 or error.filename
    if name is None and error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO):
        name = "standard output"  # what writes files names them: see files.py
        _drop_stdout()
    if isinstance(error, PermissionError):
        return f"no permission for {name}"
    reason = error.strerror or str(error)
    return f"{name}: {reason}" if name else reason


def _drop_stdout() -> None:
    """Sends what is left to print nowhere, because Python would complain about it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_closed_streams() -> None:
    """Opens the null device for standard streams that are closed (`2>&-`).

    Otherwise the next file that is opened would get the number of the stream, and what native libraries print would be
    written into it. Python itself would print errors to stdout.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, number)  # also lets child processes inherit it
            if nowhere != number:
                os.close(nowhere)
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            stream = open(number, mode, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


def cure_of_missing(error: ModuleNotFoundError) -> str | None:
    """The message for a missing package; None for a module of the toolkit or of an unknown package."""
    package = (error.name or "").partition(".")[0]
    if package in _FOR_RECOGNITION:
        return f"{package} is not installed: 'pip install --no-deps -r requirements-predict.txt'"
    if package in _FOR_TRAINING:
        return f"{package} is not installed: 'pip install -r requirements.txt'"
    if package in _ALONE:
        return f"{package} is not installed: 'pip install {package}'"
    return None


# --- quiet native libraries ------------------------------------------------------------------------------------------


class _StderrSilencer:
    """Redirects the file descriptor of stderr to the null device while at least one thread wants it silent.

    The descriptor belongs to the whole process. Threads therefore share one redirection: the first thread to enter
    starts it, and the last thread to leave ends it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._terminal = -1  # a copy of the original descriptor
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
                self._warnings = warnings.catch_warnings()  # can be used only once
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

    def before_fork(self) -> None:
        """Waits until no thread is in the middle of a change."""
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Ends the redirection, because the child lacks the threads that wanted it."""
        self._lock.release()
        if self._users:
            self._users = 1
            self.leave()


_silencer = _StderrSilencer()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_silencer.before_fork,
        after_in_parent=_silencer.after_fork_in_parent,
        after_in_child=_silencer.after_fork_in_child,
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drops the warnings of the code inside, and all that native libraries write to stderr.

    Several threads may be inside at the same time.
    """
    if sys.__stderr__ is None:  # stderr is closed, and descriptor 2 may belong to any other file by now
        yield
        return
    _silencer.enter()
    try:
        yield
    finally:
        _silencer.leave()


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Drops all that native libraries write to stderr while the code inside runs. Python's own messages still appear.

    Use it for long work with libraries such as FFmpeg, which report every damaged frame, from any thread.
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
    except (AttributeError, OSError, ValueError):  # not a file, as in a notebook or a test
        return None


# --- signals ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Makes SIGTERM (a request to end) and SIGHUP (a closed terminal) raise SystemExit in the code inside.

    The code can then finish files and release devices, as after Ctrl-C. The exit status is 128 plus the number of the
    signal, as in a shell.
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
    """Ignores Ctrl-C, SIGTERM and SIGHUP while the code inside runs. It has to be short."""
    numbers = [getattr(signal, name) for name in _REQUESTS if hasattr(signal, name)]
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --- several processes -----------------------------------------------------------------------------------------------


def available_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parallel(
    work: Callable[[Any], Any], items: Sequence[Any], processes: int, prepare: Callable[[], None] | None = None
) -> Generator[Any, None, None]:
    """`work(item)` for each of `items`, in their order, done by several processes.

    work: is given to each process once, by fork where the system can, so it may hold large things. prepare: is called
    once in each process before its first item. With one process, or one item, all is done in this process, without
    `prepare`. Only a few items for each process are under way at a time, so that memory does not grow with their
    number. After Ctrl-C the items under way are finished, then KeyboardInterrupt is raised; likewise for the signals of
    `ended_by_signals`. Raises UserError when a process was killed.
    """
    processes = min(processes, len(items), _MOST_PROCESSES)
    if processes <= 1:
        yield from map(work, items)
        return
    pool = ProcessPoolExecutor(processes, initializer=_begin, initargs=(work, prepare))
    with _noted_signals() as noted, pool:
        waiting: deque[Future[Any]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(_work_on, item))
                if len(waiting) == _AHEAD * processes:
                    yield waiting.popleft().result()
                for end in noted:
                    end()
            while waiting:
                yield waiting.popleft().result()
                for end in noted:
                    end()
        except BrokenProcessPool as error:
            raise UserError("a process was ended from outside (out of memory?): try --processes=1") from error
        finally:
            pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Lets OpenCV compute in one thread. Forked processes need it: they would wait for its threads, which they lack."""
    import cv2  # imported here, because not every command needs it

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


_work: Callable[[Any], Any] | None = None  # of `parallel`, in its processes


def _begin(work: Callable[[Any], Any], prepare: Callable[[], None] | None) -> None:
    global _work
    follow_parent()
    for name in _REQUESTS[1:]:
        if hasattr(signal, name) and callable(signal.getsignal(getattr(signal, name))):
            signal.signal(getattr(signal, name), signal.SIG_DFL)  # not the handler of the parent
    _work = work
    if prepare is not None:
        prepare()


def _work_on(item: Any) -> Any:
    assert _work is not None
    return _work(item)


@contextlib.contextmanager
def _noted_signals() -> Iterator[list[Callable[[], Any]]]:
    """Ctrl-C and other requests to end that the program handles are put off, into a list of what they would do.

    During the start of processes they could otherwise get lost or hang the pool.
    """
    noted: list[Callable[[], Any]] = []
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # other threads receive no signals
        numbers = [getattr(signal, name) for name in _REQUESTS if hasattr(signal, name)]
        before = {number: handler for number in numbers if callable(handler := signal.getsignal(number))}
    for number, handler in before.items():
        signal.signal(number, lambda *arguments, handler=handler: noted.append(lambda: handler(*arguments)))
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def follow_parent() -> None:
    """Makes a child process ignore Ctrl-C, which its parent handles, and end when the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)
