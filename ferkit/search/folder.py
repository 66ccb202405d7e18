"""The folder of a search. It belongs to one search, and only one process at a time may write to it."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ferkit.errors import UserError
from ferkit.files import lock, read_bytes, whole_file
from ferkit.learning.configuration import TrainingSettings
from ferkit.search import report
from ferkit.search.local import STATE
from ferkit.search.trials import Trial

ORIGIN = "origin.txt"  # names the search that the results in the folder belong to
HERE = "a search on this machine"


@contextlib.contextmanager
def own(folder: Path, origin: str) -> Iterator[bool]:
    """Locks `folder`. Gives whether the lock was free. Raises UserError when the files belong to another search."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise UserError(f"{folder.parent} is a file, not a folder: use another --search_folder") from error
    with lock(folder) as locked:
        known = origin_of(folder)
        if known not in (None, origin):
            raise UserError(f"{folder} is of {known}, not of {origin}: use another --search_folder")
        yield locked


def origin_of(folder: Path) -> str | None:
    """Where the trials are whose results are in `folder`; None if it has no results."""
    try:
        return read_bytes(folder / ORIGIN).decode(errors="replace").strip()
    except FileNotFoundError:
        return HERE if (folder / STATE).exists() else None


def write_search(
    settings: dict[str, Any], trials: Sequence[Trial], usual: TrainingSettings, dataset: str, folder: Path, origin: str
) -> None:
    """Writes the files of the result, and prints how to use them. For the arguments see report.training_command."""
    with whole_file(folder / ORIGIN) as temporary:
        temporary.write_text(f"{origin}\n", encoding="utf-8")
    report.write_results(settings, trials, folder)
    pictures = report.draw(settings, trials, folder)
    if pictures:
        print(f"Train with it: {report.training_command(settings, usual, dataset, folder)}")
    print(f"Trials: {', '.join(str(path) for path in (folder / 'trials.csv', *pictures))}")
