"""How a script ends while its imports run: after Ctrl-C, and when parameters.py cannot be used.

    if __name__ == "__main__":  # before the other imports
        from ferkit.startup import begin

        begin()

It imports next to nothing, because nothing before `begin` is covered.
"""

import signal
import sys
from types import TracebackType


def begin() -> None:
    """Makes Ctrl-C end this process at once, until `processes.command` takes over, and explains parameters.py."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # otherwise it is ignored, in the background
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.excepthook = _report


def _report(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Reports an error that nothing has caught: in one line if parameters.py is its cause."""
    from ferkit.processes import complain

    if fault := fault_of_parameters(error):
        complain(fault)
        raise SystemExit(2)
    sys.__excepthook__(kind, error, traceback)


def fault_of_parameters(error: BaseException) -> str | None:
    """What is wrong with parameters.py, in one line, if this error comes from its text or from a name it lacks."""
    import re
    from pathlib import Path
    from traceback import walk_tb

    missing = r"cannot import name '(\w+)' from 'parameters'|module 'parameters' has no attribute '(\w+)'"
    if isinstance(error, ImportError | AttributeError) and (found := re.match(missing, str(error))):
        return f"parameters.py has no {found[1] or found[2]}: write it there again, as ferkit/settings.py describes it"
    if isinstance(error, SyntaxError) and Path(error.filename or "").name == "parameters.py":
        return f"line {error.lineno} of parameters.py cannot be read: {error.msg}"
    lines = [line for frame, line in walk_tb(error.__traceback__) if frame.f_globals.get("__name__") == "parameters"]
    if not lines:
        return None
    unknown = r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'"
    if found := re.match(unknown, str(error)):
        return f"line {lines[0]} of parameters.py sets '{found[2]}', which does not exist: {_names_of(found[1])}"
    return f"line {lines[0]} of parameters.py: {error}"


def _names_of(group: str) -> str:
    """The names of the settings in a group, in words."""
    import dataclasses

    from ferkit import settings

    return f"{group} has {', '.join(field.name for field in dataclasses.fields(getattr(settings, group)))}"
