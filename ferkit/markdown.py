"""Tables in Markdown, and pages with a generated part."""

from collections.abc import Sequence
from pathlib import Path

from ferkit.errors import UserError


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def filled(page: str, part: str, text: str, name: str | Path) -> str:
    """`page` with `text` between the markers of the generated `part`. Raises UserError when it lacks the markers.

    name: name of the page, for the error.
    """
    begin, end = f"<!-- {part}: begin -->", f"<!-- {part}: end -->"
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise UserError(f"{name} needs the lines {begin} and {end}, once each, for the tables to stand between")
    before, after = page[: page.index(begin) + len(begin)], page[page.index(end) :]
    return f"{before}\n{text}\n{after}"
