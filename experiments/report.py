"""The report of the results: tables for docs/experiment.md, learning curves, confusion matrices, and a bar chart.

    records = read(Path("results/results.csv"))
    print(tables(records))

`python -m experiments.reproduce_results --report` makes all of it. This module contains only the published figures. All
measured figures come from the results file.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import comparison
from experiments.results import (
    FINISHED,
    FIVE,
    FURTHER,
    INPUTS,
    MODELS,
    PUBLISHED_MODELS,
    SEVEN,
    Record,
    Row,
    detail,
    number,
    predictions_path,
    select,
)
from ferkit import features
from ferkit.files import whole_file
from ferkit.learning.plots import draw_confusion_matrix, pyplot
from ferkit.markdown import table
from ferkit.settings import SOURCES_OF_SETTINGS

RESULTS, ANSWER, CURVES = "../results", "answer.png", "learning_curves.png"  # as in docs/experiment.md
CONFUSION = "confusion matrix of the network that PublicTest likes best"
PART = "results"  # name of the generated part of the page
LABELS = {name: features.label(name) for name in (*INPUTS, *FURTHER)}
KINDS = tuple(LABELS)
# Accuracies on five expressions; the publication does not say on which split.
PUBLISHED = {
    ("SVM", "landmarks"): 0.469,
    ("SVM", "landmarks_hog"): 0.550,
    ("SVM", "landmarks_hog_windows"): 0.594,
    ("A", "none"): 0.724,
    ("A", "landmarks"): 0.735,
    ("A", "landmarks_hog"): 0.687,
    ("A", "landmarks_hog_windows"): 0.714,
    ("B", "none"): 0.735,
    ("B", "landmarks"): 0.744,
    ("B", "landmarks_hog"): 0.732,
    ("B", "landmarks_hog_windows"): 0.751,
}
PUBLISHED_BATCH_NORM = {  # how much batch normalization increases the accuracies above
    ("A", "none"): 0.074,
    ("A", "landmarks"): 0.262,
    ("A", "landmarks_hog"): 0.019,
    ("A", "landmarks_hog_windows"): 0.167,
    ("B", "none"): 0.393,
    ("B", "landmarks"): 0.500,
    ("B", "landmarks_hog"): 0.501,
    ("B", "landmarks_hog_windows"): 0.169,
}
BARS = {  # settings and colour of each bar
    "published figure": ("", "#b9c4d0"),
    "measured on PrivateTest, published settings": ("published", "#4a7fb5"),
    "measured on PrivateTest, our settings": ("ours", "#c8553d"),
    "measured on PrivateTest, our settings with a teacher": ("taught", "#8a2f4f"),
}
SETTINGS_NAMES = {"published": "published settings", "ours": "our settings", "taught": "our settings with a teacher"}
PUBLISHED_SEVEN = 0.614  # the best model, on seven expressions

# --- the file --------------------------------------------------------------------------------------------------------


# --- the tables ------------------------------------------------------------------------------------------------------


def tables(records: Sequence[Record], results: Path = Path("results"), folder: str | Path = RESULTS) -> str:
    """The generated part of docs/experiment.md, in Markdown.

    results: the folder with results.csv, for the predictions of the rows. folder: the folder of the pictures, as the
    page links them.
    """
    if not records:
        return "No row has been run yet."
    parts = [
        answer_table(records),
        picture_links(records, folder),
        batch_norm_table(records),
        further_table(records, results),
        seven_table(records),
        votes_table(records, results),
    ]
    return "\n\n".join(part for part in parts if part)


def answer_table(records: Sequence[Record]) -> str:
    """The main table: one row per model and input; columns for the published figure and for each of the settings."""
    shown = [settings for settings in SOURCES_OF_SETTINGS if settings != "taught" or select(records, settings=settings)]
    heads = ["five expressions", "published", "adds"]
    for settings in shown:
        heads += [SETTINGS_NAMES[settings], "adds"]
        heads += ["with test-time augmentation"] if settings != "published" else []
    cells = shown_cells(records)
    means = {settings: {key: mean(cell_rows(records, *key, settings)) for key in cells} for settings in shown}
    lines = []
    for model, kind in cells:
        line = [
            row_name(Row(model, kind)),
            _percent(PUBLISHED.get((model, kind), math.nan)),
            _points(_gain(PUBLISHED, model, kind)),
        ]
        for settings in shown:
            rows = cell_rows(records, model, kind, settings)
            line += [cell(rows), _points(_gain(means[settings], model, kind))]
            line += [cell(rows, "_augmented")] if settings != "published" else []
        lines.append(line)
    note = (
        "**PrivateTest** accuracy, in brackets that on PublicTest, which chose the epoch and our settings; beside it "
        "what the input adds to the raw pixels, in points of PrivateTest accuracy. Test-time augmentation averages "
        "what the same network says of six views of a face."
    )
    text = table(heads, lines)
    faces = [int(record["private_test"]) for record in select(records, expressions=FIVE)]
    if faces:
        error = math.sqrt(0.7 * 0.3 / max(faces))
        note += (
            f" The standard error of 70% of {max(faces):,} faces is {100 * error:.1f} points, the whiskers in the "
            f"picture; that of the difference of two rows about {100 * math.sqrt(2) * error:.1f} points (less where "
            "they err on the same faces). Both tell of the choice of faces alone: what the seed does comes on top."
        )
    if any(model not in ("SVM", *PUBLISHED_MODELS) for model, _ in cells):
        note += " Model C has settings of its own, not the recipe of A and B."
    if "±" in text:
        note += " ± is the deviation of rows that differ in their seed alone."
    return f"{text}\n\n{note}"


def picture_links(records: Sequence[Record], folder: str | Path = RESULTS) -> str:
    """Pictures and links for docs/experiment.md, to the files that draw_pictures makes."""
    links = [
        f"[{CONFUSION} on {record['expressions'].count(' ') + 1} expressions]({folder}/{confusion_name(record)})"
        for record in headline(records)
    ]
    if any(_has_epochs(record) for record in records):
        links.insert(0, f"[learning curves]({folder}/{CURVES})")
    more = f"\n\nMore pictures: {', '.join(links)}." if links else ""
    return f"![The accuracies of the table as bars]({folder}/{ANSWER}){more}"


def shown_cells(records: Sequence[Record]) -> list[tuple[str, str]]:
    """The models and inputs in the main table: the published ones, and those of other models with results."""
    others = [(model, kind) for model in MODELS if model not in PUBLISHED_MODELS for kind in INPUTS]
    return [*PUBLISHED, *(key for key in others if cell_rows(records, *key, "ours"))]


def cell_rows(records: Sequence[Record], model: str, kind: str, settings: str) -> list[Record]:
    """The lines of one cell of the main table. They differ only in their seed."""
    answer = "no" if model == "SVM" else "yes"
    return select(records, model=model, features=kind, expressions=FIVE, batch_norm=answer, settings=settings)


def mean(records: Sequence[Record], column: str = "test_accuracy") -> float:
    """The mean of a column. Rows that diverged in their first epoch have no value; NaN if no row has one."""
    numbers = [number(record, column) for record in records if record[column]]
    return float(np.mean(numbers)) if numbers else math.nan


def cell(records: Sequence[Record], how: str = "") -> str:
    """Mean accuracies of rows that differ only in their seed, with the standard deviation of three or more.

    how: "_augmented" for the accuracies with test-time augmentation.
    """
    test, validation = f"test_accuracy{how}", f"validation_accuracy{how}"
    if math.isnan(mean(records, test)):
        return "diverged" if records and not how else "–"
    text = f"**{mean(records, test):.1%}** ({mean(records, validation):.1%})"
    numbers = [number(record, test) for record in records if record[test]]
    if len(numbers) > 1:
        text += f" ± {100 * np.std(numbers, ddof=1):.1f}" if len(numbers) > 2 else ""  # meaningless for two
        text += f" over {len(numbers)} seeds"
    return text + diverged(records)


def diverged(records: Sequence[Record]) -> str:
    """The note beside the accuracy of rows if some of them diverged."""
    count = sum(record["outcome"] != FINISHED for record in records)
    if len(records) > 1:
        return f", {count} of {len(records)} diverged" if count else ""
    return ", then diverged" if count else ""


def batch_norm_table(records: Sequence[Record]) -> str:
    """The gain from batch normalization, published and measured; empty until a row without it is finished."""
    if not select(records, model=PUBLISHED_MODELS, batch_norm="no"):
        return ""
    heads = ["batch normalization adds", "to A, published", "measured", "to B, published", "measured"]
    lines = []
    for kind in INPUTS:
        line = [LABELS[kind]]
        for model in PUBLISHED_MODELS:
            line += [_points(PUBLISHED_BATCH_NORM[model, kind]), batch_norm_gain(records, model, kind)]
        lines.append(line)
    note = "Points of PrivateTest accuracy on five expressions, published settings, seed 0"
    note += "; in brackets that without." if any("(" in line for line in itertools.chain(*lines)) else "."
    return f"{table(heads, lines)}\n\n{note}"


def batch_norm_gain(records: Sequence[Record], model: str, kind: str) -> str:
    wanted = {"model": model, "features": kind, "expressions": FIVE, "settings": "published", "seed": 0}
    without, with_it = (select(records, **wanted, batch_norm=answer) for answer in ("no", "yes"))
    if not without:
        return "–"
    if math.isnan(mean(without)):
        return "diverges without"
    return f"{_points(mean(with_it) - mean(without))} ({mean(without):.1%}{diverged(without)})"


def seven_table(records: Sequence[Record]) -> str:
    """The rows with seven expressions, one by one; empty until there is one."""
    seven = select(records, expressions=SEVEN, labels="fer2013")
    if not seven:
        return ""
    heads = ["seven expressions", "PublicTest", "PrivateTest", "new faces alone", "macro F1"]
    heads += ["test-time augmentation", "epoch", "time"]
    rows = []
    for record in seven:
        epochs = f"{record['best_epoch'] or '–'} of {record['epochs']}{diverged([record])}"
        columns = ("validation_accuracy", "test_accuracy", "test_accuracy_deduplicated", "macro_f1")
        accuracies = [_percent(number(record, column)) for column in columns]
        minutes = f"{number(record, 'seconds') / 60:.0f} min" if record["seconds"] else "–"
        rows.append([row_name(Row.of(record)), *accuracies, cell([record], "_augmented"), epochs, minutes])
    note = f"Our settings. Published of the best model: {PUBLISHED_SEVEN:.1%}. New faces do not also occur in Training."
    return f"{table(heads, rows)}\n\n{note}"


def votes_table(records: Sequence[Record], results: Path) -> str:
    """The rows that learned FER+'s votes, each compared with the first input of its model; empty until there is one."""
    voted = {Row.of(record): record for record in select(records, labels="ferplus")}
    if not voted:
        return ""
    text = comparison_table("FER+, seven expressions", voted, results)
    faces = next(iter(voted.values()))["private_test"]
    note = (
        "Our settings, trained on the votes of FER+. Right is what more than half of the people say, of "
        f"{int(faces):,} faces of PrivateTest. “Adds” compares with the first row of the same model, on the same "
        "faces: points of accuracy, their bootstrap interval, the faces that only the first row and only this row get "
        "right, and the p of McNemar's exact test. Both tell of the choice of faces alone: what the seed does comes on "
        "top."
    )
    return f"{text}\n\n{note}"


def further_table(records: Sequence[Record], results: Path) -> str:
    """The inputs that were not published, beside the published ones; empty until there is one."""
    chosen = select(records, model=("SVM", "A"), expressions=FIVE, settings="ours", labels="fer2013", seed=0)
    if not select(chosen, features=FURTHER):
        return ""
    text = comparison_table("further inputs, five expressions", {Row.of(record): record for record in chosen}, results)
    note = (
        "Our settings, seed 0. “Adds” compares with the first row of the same model, as in the table of FER+'s votes. "
        "Rows that were trained before their answers were kept have no interval."
    )
    return f"{text}\n\n{note}"


def comparison_table(head: str, records: Mapping[Row, Record], results: Path) -> str:
    """A table of rows, each compared with the first input of its model on the same faces. head: of the first column."""
    heads = [head, "PublicTest", "PrivateTest", "test-time augmentation", "adds", "95% interval", "right alone", "p"]
    lines = []
    for model in ("SVM", *PUBLISHED_MODELS):
        rows = [row for row in records if row.model == model]
        rows.sort(key=lambda row: (KINDS.index(row.features), row.seed))
        for row in rows:
            accuracies = [_percent(number(records[row], name)) for name in ("validation_accuracy", "test_accuracy")]
            lines.append([row_name(row), *accuracies, _percent(number(records[row], "test_accuracy_augmented"))])
            if row == rows[0]:
                lines[-1] += ["–"] * 4
            elif row.labels == "fer2013" and not all(predictions_path(results, one).exists() for one in (rows[0], row)):
                lines[-1] += [_points(number(records[row]) - number(records[rows[0]])), *["–"] * 3]
            else:
                lines[-1] += compared(rows[0], row, results)
    return table(heads, lines)


def compared(first: Row, second: Row, results: Path) -> list[str]:
    """How much more often the second row is right: four cells of a table."""
    found = comparison.difference(*(comparison.read(predictions_path(results, row)) for row in (first, second)))
    interval = f"{_points(found.low)} to {_points(found.high)}"
    return [_points(found.difference), interval, f"{found.first_alone} : {found.second_alone}", f"{found.chance:.2g}"]


def row_name(row: Row) -> str:
    """The name of a row's model and input in a table."""
    if row.model == "SVM":
        return f"SVM, {LABELS[row.features].removeprefix('+ ')}"
    return f"Model {row.model}, {LABELS[row.features]}"


def _gain(figures: Mapping[tuple[str, str], float], model: str, kind: str) -> float:
    """The gain of `kind` over raw pixels; NaN for raw pixels themselves, and if they have no figure."""
    if kind == "none":
        return math.nan
    return figures.get((model, kind), math.nan) - figures.get((model, "none"), math.nan)


def _points(share: float) -> str:
    return "–" if math.isnan(share) else f"{round(100 * share, 1) + 0.0:+.1f}"  # no -0.0


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{share:.1%}"


# --- pictures --------------------------------------------------------------------------------------------------------


def draw_pictures(records: Sequence[Record], folder: Path) -> list[Path]:
    """Draws the bar chart, the learning curves and the confusion matrices of the best models; returns their paths.

    folder: the folder with results.csv; the detail files of the rows are in its folder `rows`.
    """
    drawn = []
    if records:
        draw_answer(records, folder / ANSWER)
        drawn.append(folder / ANSWER)
    if histories := [(record, detail(folder, record)["history"]) for record in records if _has_epochs(record)]:
        draw_learning_curves(histories, folder / CURVES)
        drawn.append(folder / CURVES)
    for record in headline(records):
        name = f"Model {record['model']}, {LABELS[record['features']]}\n{SETTINGS_NAMES[record['settings']]}"
        draw_confusion_matrix(detail(folder, record)["metrics"], folder / confusion_name(record), name)
        drawn.append(folder / confusion_name(record))
    return drawn


def confusion_name(record: Record) -> str:
    return f"confusion_{record['expressions'].replace(' ', '')}.png"


def headline(records: Sequence[Record]) -> list[Record]:
    """The networks with the highest PublicTest accuracy for five and for seven expressions, with the first seed."""
    best = []
    for expressions in (FIVE, SEVEN):
        finished = [
            record
            for record in select(
                records, expressions=expressions, labels="fer2013", model=MODELS, batch_norm="yes", seed=0
            )
            if record["test_accuracy"]
        ]
        best += sorted(finished, key=lambda record: -number(record, "validation_accuracy"))[:1]
    return best


def draw_answer(records: Sequence[Record], path: Path) -> None:
    """Draws the bar chart: the accuracy of each model with each input, published and measured."""
    plt = pyplot()
    cells = shown_cells(records)
    inputs: dict[str, list[str]] = {}
    for model, kind in cells:
        inputs.setdefault(model, []).append(kind)
    widths = [len(kinds) for kinds in inputs.values()]
    size = 1 + 1.1 * sum(widths), 4.6
    figure, panels = plt.subplots(1, len(inputs), figsize=size, sharey=True, layout="constrained", width_ratios=widths)
    shown = {name: bar for name, bar in BARS.items() if any(_has(records, *key, bar[0]) for key in cells)}
    for axes, (model, kinds) in zip(panels, inputs.items(), strict=True):
        own = [bar for bar in shown.values() if any(_has(records, model, kind, bar[0]) for kind in kinds)]
        for position, kind in enumerate(kinds):
            _draw_bars(axes, position, records, model, kind, own)
        names = [LABELS[kind].removeprefix("+ " if model == "SVM" else "").replace(" + ", "\n+ ") for kind in kinds]
        axes.set_xticks(range(len(kinds)), names, fontsize=8.5)
        axes.set_xlim(-0.6, len(kinds) - 0.4)
        axes.set_title("SVM, without the pixels" if model == "SVM" else f"Model {model}")
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
    panels[0].set_ylabel("accuracy on five expressions")
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for _, colour in shown.values()]
    figure.legend(handles, list(shown), loc="outside lower center", ncols=3, frameon=False)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)


def _has(records: Sequence[Record], model: str, kind: str, settings: str) -> bool:
    """Whether the cell has a figure with these settings, or a published figure for ""."""
    return bool(cell_rows(records, model, kind, settings)) if settings else (model, kind) in PUBLISHED


def _draw_bars(
    axes: Any, position: int, records: Sequence[Record], model: str, kind: str, bars: Sequence[tuple[str, str]]
) -> None:
    """Draws the bars of one model and input. Error bars are the standard error for the number of test faces."""
    width = 0.8 / max(len(bars), 2)  # a single bar is as wide as one of two
    for place, (settings, colour) in enumerate(bars):
        rows = cell_rows(records, model, kind, settings)  # empty for the published figure
        value = mean(rows) if settings else PUBLISHED[model, kind]
        if math.isnan(value):
            continue
        error = math.sqrt(value * (1 - value) / int(rows[0]["private_test"])) if settings else 0.0
        x = position + (place - (len(bars) - 1) / 2) * width
        axes.bar(x, value, width * 0.94, color=colour, yerr=error or None, ecolor="#333333", capsize=2)
        ink = "#222222" if not settings else "white"
        axes.text(x, value - 0.03, f"{100 * value:.1f}", ha="center", va="top", rotation=90, fontsize=8, color=ink)


def draw_learning_curves(histories: Sequence[tuple[Record, Sequence[Mapping[str, float]]]], path: Path) -> None:
    """Draws the accuracy over the epochs: columns of panels for models, rows for other differences, colours for inputs.

    histories: the line of each row and its epochs, as in run.State.
    """
    plt = pyplot()
    models = sorted({record["model"] for record, _ in histories})
    kinds = list(dict.fromkeys(_kind(record) for record, _ in histories))
    size = 5 * len(models), 0.6 + 2.8 * len(kinds)
    figure, panels = plt.subplots(
        len(kinds), len(models), figsize=size, squeeze=False, sharey=True, layout="constrained"
    )
    for record, history in histories:
        axes = panels[kinds.index(_kind(record)), models.index(record["model"])]
        epochs = [row["epoch"] for row in history]
        style = {"color": f"C{KINDS.index(record['features'])}", "linewidth": 1.2}
        style["marker"] = "." if len(epochs) == 1 else None  # one epoch gives no line
        axes.plot(epochs, [row["validation_accuracy"] for row in history], **style)
        axes.plot(epochs, [row["accuracy"] for row in history], linestyle=":", **style)
    for (line, column), axes in np.ndenumerate(panels):
        axes.set_title(f"Model {models[column]}: {', '.join(kinds[line])}", fontsize=10)
        axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        axes.set_xlabel("epoch" if line == len(kinds) - 1 else "")
        first = column == 0 or not any(other.lines for other in panels[line, :column])  # first visible panel of its row
        axes.set_ylabel("accuracy" if first else "")
        axes.tick_params(labelleft=first)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.set_visible(bool(axes.lines))
    inputs = [kind for kind in KINDS if any(record["features"] == kind for record, _ in histories)]
    handles = [plt.Line2D([], [], color=f"C{KINDS.index(kind)}") for kind in inputs]
    handles += [plt.Line2D([], [], color="grey"), plt.Line2D([], [], color="grey", linestyle=":")]
    names = [*(LABELS[kind] for kind in inputs), "PublicTest", "Training, while it learns"]
    figure.legend(handles, names, loc="outside lower center", ncols=min(3, 1 + len(models)), frameon=False, fontsize=9)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=100)
    plt.close(figure)


def _has_epochs(record: Record) -> bool:
    """Whether the row has a learning curve: not for a support vector machine, nor after divergence in epoch 1."""
    return record["epochs"] not in ("", "0")


def _kind(record: Record) -> tuple[str, ...]:
    """The properties that learning curves in the same panel have in common, besides the model."""
    without = () if record["batch_norm"] == "yes" else ("no batch norm",)
    count = {5: "five", 7: "seven"}.get(len(record["expressions"].split()), "some")
    labels = () if record["labels"] == "fer2013" else ("FER+",)
    return (SETTINGS_NAMES[record["settings"]], f"{count} expressions", *without, *labels)
