"""Fills the tables of flags in the pages of this folder, from the commands' own parsers, and a table of the card.

    python docs/tables.py
    python docs/tables.py --check  # changes nothing; exit status 1 when a page differs

A page has a line `<!-- flags of predict.py: begin -->` and one with `end`; the table of that command stands between.
The card of ferplus has such lines for the table with which benchmarks/benchmark_photographs.py ended.
"""

import argparse
import importlib
import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ferkit.markdown import filled, table
from ferkit.processes import command

ROOT = Path(__file__).resolve().parents[1]
# The commands of each page, as `python` takes them: a script, or `-m` and a module.
PAGES: dict[str, tuple[str, ...]] = {
    "own_faces.md": ("prepare_faces.py", "check_labels.py"),
    "train.md": ("convert_fer2013_to_images_and_landmarks.py", "train.py", "-m ferkit.data.drawn_faces"),
    "predict.md": ("predict.py",),
    "video.md": ("predict-from-video.py",),
    "web.md": ("serve.py",),
    "export.md": ("export_model.py",),
    "search.md": ("optimize_hyperparams.py",),
    "experiment.md": ("-m experiments.reproduce_results", "-m experiments.train_svm"),
}
# Pages with the last table that the benchmark on photographs printed, and the files with its output.
MEASURED = {"pretrained/ferplus/README.md": "results/photographs.txt"}
# Groups of flags that are another command's, and where that one's table is.
ELSEWHERE = {"what each trial trains": "[train.py](train.md#flags-of-trainpy)"}
DEFAULT = re.compile(r"\s*\(default: (.*?)\)")


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    status = 0
    pages = {ROOT / "docs" / name: filled_page(name, read(ROOT / "docs" / name)) for name in PAGES}
    for card, source in MEASURED.items():
        pages[ROOT / card] = filled(read(ROOT / card), "photographs", last_table(read(ROOT / source)), card)
    for path, after in pages.items():
        name = path.relative_to(ROOT).as_posix()
        if read(path) == after:
            continue
        if arguments.check:
            print(f"{name} differs: run 'python docs/tables.py'", file=sys.stderr)
            status = 1
        else:
            path.write_text(after, encoding="utf-8")
            print(name)
    return status


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def last_table(text: str) -> str:
    """The table in Markdown at the end of a benchmark's output."""
    return "\n" + "\n".join(line for line in text.splitlines() if line.startswith("|")) + "\n"


def parser() -> argparse.ArgumentParser:
    """The command line of this script."""
    parser = argparse.ArgumentParser(description="Fill the tables of flags in the documentation.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit status 1 when a page differs")
    return parser


def filled_page(name: str, text: str) -> str:
    """The page with its tables as they are today."""
    for script in PAGES[name]:
        text = filled(text, part_of(script), flags_table(parser_of(script)), f"docs/{name}")
    return text


def part_of(script: str) -> str:
    """The name of the part of a page in which a command's table stands."""
    return f"flags of {script.removeprefix('-m ')}"


def parser_of(script: str) -> argparse.ArgumentParser:
    """The parser of a command."""
    if script.startswith("-m "):
        return importlib.import_module(script.removeprefix("-m ")).parser()
    spec = importlib.util.spec_from_file_location(Path(script).stem.replace("-", "_"), ROOT / script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.parser()


def flags_table(parser: argparse.ArgumentParser) -> str:
    """A table for each group of flags, under the group's name where it has one of its own."""
    parts = []
    for group in parser._action_groups:  # argparse has no other way to its flags
        actions = [action for action in group._group_actions if is_shown(action)]
        if not actions:
            continue
        title = group.title if group not in (parser._optionals, parser._positionals) else None
        if title in ELSEWHERE:
            flags = ", ".join(names(action) for action in actions)
            parts.append(f"{title[:1].upper()}{title[1:]}, as for {ELSEWHERE[title]}: {flags}.")
            continue
        if title:
            parts.append(f"{title[:1].upper()}{title[1:]}:")
        with_choices = any(action.choices for action in actions)
        heads = ["flag", "default", "meaning", *(["choices"] if with_choices else [])]
        parts.append(table(heads, [row(action, with_choices) for action in actions]))
    return "\n" + "\n\n".join(parts) + "\n"


def is_shown(action: argparse.Action) -> bool:
    """Not `--help`, and no flag that `--help` hides."""
    return action.dest != "help" and action.help != argparse.SUPPRESS


def row(action: argparse.Action, with_choices: bool) -> list[str]:
    """A flag's line: its names, default, meaning and, where a column is wanted for them, choices."""
    text = (action.help or "") % {"default": action.default}
    stated = DEFAULT.search(text)
    default = stated[1] if stated else "" if action.default is None else str(action.default)
    if action.required:
        default = "required"
    cells = [names(action), default, DEFAULT.sub("", text)]
    if with_choices:
        cells.append(", ".join(map(str, action.choices or ())))
    return [cell.replace("|", r"\|") for cell in cells]


def names(action: argparse.Action) -> str:
    """All names of a flag, or what stands for a value without one."""
    return ", ".join(f"`{option}`" for option in action.option_strings or (str(action.metavar),))


if __name__ == "__main__":
    sys.exit(main())
