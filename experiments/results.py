"""The results file, with one line for each row of the experiment, and one detail file per row.

    records = read(Path("results/results.csv"))

`python -m experiments.reproduce_results` fills it.
"""

import csv
import io
import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from ferkit.constants import EMOTIONS
from ferkit.errors import UserError
from ferkit.files import open_file, read_text, whole_file
from ferkit.schemas import Count, Names, Share, check_shape
from ferkit.settings import SOURCES_OF_SETTINGS, upgraded

FIVE = (0, 3, 4, 5, 6)  # without Disgust and Fear, as for most published figures
SEVEN = tuple(range(len(EMOTIONS)))
FINISHED, DIVERGED = "finished", "diverged in epoch"  # outcomes; the number of the epoch follows the second
COUNTS = ("training", "public_test", "private_test")  # number of faces in each split
ACCURACIES = (
    "validation_accuracy", "test_accuracy", "test_accuracy_deduplicated", "macro_f1",
    "validation_accuracy_augmented", "test_accuracy_augmented",  # with test-time augmentation
)  # fmt: skip
COLUMNS = (
    "model", "features", "expressions", "batch_norm", "settings", "labels", "seed",
    *ACCURACIES,
    "epochs", "best_epoch", "seconds", *COUNTS,
    "outcome", "dataset", "versions", "commit", "finished",
)  # fmt: skip

# The cells of the experiment. They are listed here so that new features or architectures do not change the plan.
INPUTS = ("none", "landmarks", "landmarks_hog", "landmarks_hog_windows")
FURTHER = ("lbp", "gabor", "sift", "geometry")  # inputs that were not published
PUBLISHED_MODELS = ("A", "B")
MODELS = (*PUBLISHED_MODELS, "C")
LABELS = ("fer2013", "ferplus")  # see settings.LABELS

Record = dict[str, str]  # one line of the file


@dataclass(frozen=True)
class Row:
    """One experiment, identified by the first columns of its line in the results file."""

    model: str
    features: str
    expressions: tuple[int, ...] = FIVE
    batch_norm: bool = True
    settings: str = "published"
    labels: str = "fer2013"
    seed: int = 0

    @property
    def name(self) -> str:
        """The name for files, such as `B_landmarks_03456_published_seed0`."""
        expressions = "".join(map(str, self.expressions))
        without = () if self.batch_norm or self.model == "SVM" else ("no_batch_norm",)
        labels = () if self.labels == "fer2013" else (self.labels,)
        return "_".join((self.model, self.features, expressions, self.settings, *without, *labels, f"seed{self.seed}"))

    @property
    def columns(self) -> Record:
        """The first columns of its line."""
        return {
            "model": self.model,
            "features": self.features,
            "expressions": " ".join(map(str, self.expressions)),
            "batch_norm": "yes" if self.batch_norm else "no",
            "settings": self.settings,
            "labels": self.labels,
            "seed": str(self.seed),
        }

    @staticmethod
    def of(record: Record) -> "Row":
        return Row(
            record["model"],
            record["features"],
            tuple(map(int, record["expressions"].split())),
            record["batch_norm"] == "yes",
            record["settings"],
            record["labels"],
            int(record["seed"]),
        )


def read(path: Path) -> list[Record]:
    """The lines of the results file; empty without a file. Raises UserError when it is damaged or another file."""
    if not path.exists():
        return []
    records, names = [], []
    try:
        with io.TextIOWrapper(open_file(path), encoding="utf-8", newline="") as file:
            lines = csv.DictReader(file)
            if tuple(lines.fieldnames or ()) != COLUMNS:
                raise UserError(f"{path} has other columns than results have: move it away, or name another --results")
            for record in lines:
                check(record)
                records.append(record)
                names.append(Row.of(record).name)
    except (ValueError, csv.Error) as error:
        raise UserError(f"line {len(records) + 2} of {path} is damaged ({error}): mend or delete it") from error
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UserError(f"{path} has {' and '.join(sorted(twice))} twice: delete one of the lines")
    for expressions, labels in {(record["expressions"], record["labels"]) for record in records}:
        same = [record for record in records if (record["expressions"], record["labels"]) == (expressions, labels)]
        if len({record["dataset"] for record in same}) > 1:
            raise UserError(f"{path} has rows of different datasets, of expressions {expressions}: delete some lines")
    return records


def check(record: Record) -> None:
    """Raises ValueError when a line has values that `append` never writes."""
    if None in record or None in record.values():
        raise ValueError("it has more or fewer columns than the first line")
    row = Row.of(record)
    for value, choices in (
        (row.model, (*MODELS, "SVM")),
        (row.features, (*INPUTS, *FURTHER)),
        (row.settings, SOURCES_OF_SETTINGS),
        (row.labels, LABELS),
        (record["batch_norm"], ("yes", "no")),
    ):
        if value not in choices:
            raise ValueError(f"{value!r} is none of {', '.join(choices)}")
    if (row.model, row.features) == ("SVM", "none") or (
        (row.model not in PUBLISHED_MODELS or row.features in FURTHER) and row.settings != "ours"
    ):
        raise ValueError(f"there is no row {row.name}")
    if not set(row.expressions) <= set(SEVEN):
        raise ValueError(f"there are no expressions {record['expressions']}")
    for column in ACCURACIES:
        if record[column] and not 0 <= float(record[column]) <= 1:
            raise ValueError(f"{column} is {record[column]}, which is no fraction of one")
    for column in (*COUNTS, *(name for name in ("epochs", "best_epoch", "seconds") if record[name])):
        if int(record[column]) < 0:
            raise ValueError(f"{column} is {record[column]}")
    if record["outcome"] != FINISHED and not record["outcome"].startswith(DIVERGED):
        raise ValueError(f"{record['outcome']!r} is no outcome")
    has = {bool(record[column]) for column in ACCURACIES[:4]}
    if len(has) > 1 or (record["outcome"] == FINISHED and False in has):
        raise ValueError("it lacks an accuracy")


def append(path: Path, record: Record) -> None:
    """Adds a line to the results file. An incomplete line never appears."""
    text = _csv([record], head=not path.exists())
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    before += "\n" * (before != "" and not before.endswith("\n"))  # an editor may have removed it
    with whole_file(path) as temporary:
        temporary.write_text(before + text, encoding="utf-8")


def drop(path: Path, rows: Collection[Row]) -> None:
    """Removes the lines of `rows` from the results file."""
    kept = [record for record in read(path) if Row.of(record) not in rows]
    with whole_file(path) as temporary:
        temporary.write_text(_csv(kept, head=True), encoding="utf-8")


def _csv(records: Sequence[Record], head: bool) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    if head:
        writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def number(record: Record, column: str = "test_accuracy") -> float:
    """The number in a column; NaN for a row that diverged in its first epoch."""
    return float(record[column]) if record[column] else math.nan


def select(records: Sequence[Record], **wanted: Any) -> list[Record]:
    """The lines whose columns have the wanted values: a value, a tuple of allowed values, or expressions as labels."""

    def fits(record: Record, column: str, value: Any) -> bool:
        if column == "expressions":
            return record[column] == " ".join(map(str, value))
        return record[column] in (value if isinstance(value, tuple) else (str(value),))

    return [record for record in records if all(fits(record, *item) for item in wanted.items())]


def detail_path(folder: Path, row: Row) -> Path:
    return folder / "rows" / f"{row.name}.json"


def predictions_path(folder: Path, row: Row) -> Path:
    return folder / "rows" / f"{row.name}.npz"


class Epoch(TypedDict):
    epoch: Count
    accuracy: float
    validation_accuracy: float


class SplitMetrics(TypedDict):
    accuracy: Share
    count: Count
    confusion_matrix: list[list[Count]]


class Metrics(TypedDict):
    expressions: Names
    splits: dict[str, SplitMetrics]


class Detail(TypedDict):
    """What the detail file of a row must hold; see ferkit/schemas.py."""

    settings: dict[str, dict[str, Any]]
    record: Record
    history: list[Epoch]
    metrics: Metrics | None


def detail(folder: Path, record: Record) -> dict:
    """The detail file of a row: its settings, metrics and history. Raises UserError if it is missing or damaged."""
    path = detail_path(folder, Row.of(record))
    cure = "delete its line in results.csv, and run the row again"
    try:
        content = json.loads(read_text(path))
        check_shape(content, Detail)
        if record["test_accuracy"]:
            check_matrix(content["metrics"])
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: {cure}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}): {cure}") from error
    if content["record"] != record:
        raise UserError(f"{path} is of another run than its line in results.csv: {cure}")
    return {**content, "settings": upgraded(content["settings"])}


def check_matrix(metrics: dict[str, Any] | None) -> None:
    """Raises ValueError when there is no confusion matrix of PrivateTest with a row and a column per expression."""
    if metrics is None or "PrivateTest" not in metrics["splits"]:
        raise ValueError("it has no metrics of PrivateTest")
    check_shape(metrics, Metrics)
    matrix, sides = metrics["splits"]["PrivateTest"]["confusion_matrix"], len(metrics["expressions"])
    if [len(row) for row in matrix] != [sides] * sides:
        raise ValueError("its confusion matrix is not of its expressions")
