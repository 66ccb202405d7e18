"""The runner of the experiments and its report: no row twice, none lost, a page that says what the file says."""

import importlib
import json
import math
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, run_script
from test_search import wait_until

import parameters
from experiments import comparison, report, reproduce_results, results, runner, support_vector_machine, train_svm
from experiments.report import tables
from experiments.results import COLUMNS, FIVE, SEVEN, Record, Row, append, read
from experiments.runner import (
    CELLS,
    MODEL_C,
    ON_REQUEST,
    OTHER,
    OURS,
    QUICK_FACES,
    SVMS,
    TAUGHT,
    VOTED,
    WITHOUT_BATCH_NORM,
    Experiment,
    RowFailed,
    is_converted,
    plan,
)
from ferkit import features
from ferkit.constants import TEACHER
from ferkit.data import conversion
from ferkit.data.dataset import open_dataset
from ferkit.data.drawn_faces import write_csv
from ferkit.errors import UserError
from ferkit.files import lock
from ferkit.learning.configuration import training_parser, training_settings
from ferkit.learning.distillation import Teacher, find_teachers
from ferkit.learning.run import CannotResume, Diverged
from ferkit.markdown import filled
from ferkit.settings import ADDED, upgraded
from model import ARCHITECTURES

PAGE = Path("docs/experiment.md")
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
SLIM_A = """
import dataclasses, sys
sys.path[:0] = [{root!r}, {root!r} + "/tests"]
from slim import slim
from model import ARCHITECTURES
ARCHITECTURES["A"] = dataclasses.replace(ARCHITECTURES["A"], build=slim)  # in the processes of the rows, too
if __name__ == "__main__":
    from experiments import reproduce_results, runner
    sys.exit(reproduce_results.main())
"""
FIRST_COLUMNS = (
    "model,features,expressions,batch_norm,settings,labels,seed,"
    "validation_accuracy,test_accuracy,test_accuracy_deduplicated"
)


def record(row: Row, validation: float = 0.66, test: float = 0.68, **changes: str) -> Record:
    """A finished row's line."""
    accuracies = (validation, test, test - 0.02)
    measured = dict(zip(COLUMNS[7:10], (f"{share:.5f}" for share in accuracies), strict=True))
    measured |= {"macro_f1": "0.67", "validation_accuracy_augmented": "", "test_accuracy_augmented": ""}
    rest = {"epochs": "13", "best_epoch": "9", "seconds": "600", "outcome": "finished"}
    counts = {"training": "24176", "public_test": "3037", "private_test": "3006"}
    facts = {"dataset": "0123", "versions": "python 3.11", "commit": "abc", "finished": "2026-01-01T00:00:00+00:00"}
    return {**row.columns, **measured, **rest, **counts, **facts, **changes}


def put(folder: Path, line: Record, **content: object) -> None:
    """A finished row as the runner leaves it in `folder`: its line, and a file of its own."""
    row = Row.of(line)
    settings = runner.row_settings(row, Experiment("fer2013.csv"))
    path = results.detail_path(folder, row)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert content.keys() <= {"settings", "record", "metrics", "history"}
    metrics = metrics_of(row) if line["test_accuracy"] else None
    path.write_text(json.dumps({"settings": settings, "record": line, "metrics": metrics, "history": [], **content}))
    append(folder / "results.csv", line)


def landmarks_of_tomorrow() -> features.Part:
    return replace(features.PARTS["landmarks"], provenance=lambda path: {"method": "of tomorrow"})


def metrics_of(row: Row) -> dict:
    """As much of evaluation's metrics as a picture needs."""
    names = [f"{label}" for label in row.expressions]
    matrix = [[7 if one == other else 1 for one in names] for other in names]
    return {
        "expressions": names,
        "splits": {"PrivateTest": {"accuracy": 0.6, "count": 90, "confusion_matrix": matrix}},
    }


DIVERGED = dict.fromkeys((*COLUMNS[7:11], "best_epoch", "seconds"), "")
DIVERGED |= {"outcome": "diverged in epoch 1", "epochs": "0"}


# --- the plan --------------------------------------------------------------------------------------------------------


def test_plan_has_every_published_cell_in_the_order_of_importance():
    rows = plan([])
    assert rows == [*CELLS, *OURS, *WITHOUT_BATCH_NORM, *SVMS, MODEL_C, *TAUGHT, *VOTED, *OTHER]
    assert [row.name for row in OTHER[::4]] == ["SVM_lbp_03456_ours_seed0", "A_lbp_03456_ours_seed0"]
    assert len(CELLS) == len(OURS) == len(WITHOUT_BATCH_NORM) == 8 and (len(SVMS), len(TAUGHT), len(VOTED)) == (
        3,
        4,
        11,
    )
    assert {(row.model, row.features) for row in (*CELLS, *SVMS)} == set(report.PUBLISHED)
    assert len({row.name for row in (*rows, *ON_REQUEST)}) == len(rows) + len(ON_REQUEST)
    assert all(Row.of(row.columns) == row for row in (*rows, *ON_REQUEST))


def test_public_test_chooses_the_cells_of_more_seeds_and_the_features_of_seven_expressions():
    validation = dict(zip(OURS, (0.60, 0.63, 0.61, 0.62, 0.66, 0.65, 0.69, 0.64), strict=True))
    records = [record(row, validation[row], test=1 - validation[row]) for row in OURS]
    assert plan(records[1:]) == plan([]), "not before all eight are there"
    added = [row for row in plan(records) if row not in plan([])]
    best, second = Row("B", "landmarks_hog", settings="ours"), Row("B", "none", settings="ours")
    seeds = [replace(row, seed=seed) for row in (best, second) for seed in (1, 2)]
    assert added == [*seeds, Row("A", "landmarks", SEVEN, settings="ours"), replace(best, expressions=SEVEN)]
    assert plan(records).index(seeds[-1]) < plan(records).index(WITHOUT_BATCH_NORM[0])
    records[6] = record(OURS[6], **DIVERGED)
    again = [row for row in plan(records) if row.labels == "fer2013" and (row.seed or row.expressions == SEVEN)]
    assert OURS[6].features not in {row.features for row in again}


# --- the file --------------------------------------------------------------------------------------------------------


def test_file_begins_with_the_agreed_columns_and_is_appended_to(tmp_path):
    path = tmp_path / "results" / "results.csv"
    assert read(path) == []
    records = [record(CELLS[0]), record(CELLS[1], **DIVERGED)]
    for line in records:
        append(path, line)
    assert path.read_text().splitlines()[0].startswith(FIRST_COLUMNS + ",")
    assert (
        path.read_text().splitlines()[1].startswith("A,none,0 3 4 5 6,yes,published,fer2013,0,0.66000,0.68000,0.66000,")
    )
    assert read(path) == records and len(path.read_text().splitlines()) == 3


def test_file_that_is_damaged_or_has_a_row_twice_is_refused(tmp_path):
    path = tmp_path / "results.csv"
    append(path, record(CELLS[0]))
    whole = path.read_text()
    line = whole.splitlines()[1]
    for text, reason in (
        (whole + line + "\n", "A_none_03456_published_seed0 twice"),
        (whole[: whole.index("yes")], "line 2 of .* is damaged"),
        (whole + line.replace("none", "landmarks")[:60], "line 3 of .* is damaged .*columns"),
        (whole.rstrip("\n") + ",more\n", "line 2 of .* is damaged .*columns"),
        (whole.replace("0.68000", "much"), "line 2 of .* is damaged"),
        (whole.replace("0.68000", "68.0"), "no fraction of one"),
        (whole.replace("0.68000", "nan"), "no fraction of one"),
        (whole.replace("0.68000", ""), "lacks an accuracy"),
        (whole.replace(",finished,", ",broken off,"), "'broken off' is no outcome"),
        (whole.replace(",finished,", ",diverged in epoch 3,").replace("0.66000", "", 1), "lacks an accuracy"),
        (whole + line.replace("none", "landmarks").replace("0123", "4567") + "\n", "rows of different datasets"),
        (whole.replace("A,none", "D,none"), "'D' is none of A, B, C, SVM"),
        (whole.replace("A,none", "A,hog"), "'hog' is none of"),
        (whole.replace("published", "mine"), "'mine' is none of"),
        (whole.replace("A,none", "SVM,none"), "there is no row SVM_none"),
        (whole.replace("A,none", "C,none"), "there is no row C_none_03456_published"),
        (whole.replace("6,yes", "6,maybe"), "'maybe' is none of"),
        (whole.replace("0 3 4 5 6", "0 3 9"), "no expressions 0 3 9"),
        (whole.replace("24176", "many"), "is damaged"),
        (whole.replace("macro_f1", "f1"), "has other columns"),
        ("", "has other columns"),
    ):
        assert text != whole
        path.write_text(text)
        with pytest.raises(UserError, match=reason):
            read(path)


def test_line_is_added_to_a_file_whose_last_line_has_no_end(tmp_path):
    path = tmp_path / "results.csv"
    append(path, record(CELLS[0]))
    path.write_text(path.read_text().rstrip("\n"))
    append(path, record(CELLS[1]))
    assert read(path) == [record(CELLS[0]), record(CELLS[1])]


# --- the report ------------------------------------------------------------------------------------------------------


def test_page_has_the_tables_of_the_file():
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    text = tables(read(ROOT / "results" / "results.csv"))
    assert filled(page, report.PART, text, PAGE) == page, "run 'python -m experiments.reproduce_results --report'"
    links = [part.split(")")[0] for part in text.split("](")[1:]]
    assert links and all((ROOT / PAGE.parent / link).is_file() for link in links)


def test_rows_in_the_file_were_trained_with_the_settings_of_today():
    """Otherwise inputs would be compared that had different recipes."""
    runs = Experiment("fer2013.csv", results=ROOT / "results")
    records = read(runs.table)
    assert runner.outdated(runs, records) == []
    for line in records:
        content = results.detail(runs.results, line)
        if content["metrics"] is not None:
            trained = runner.trained_settings(upgraded(content["metrics"]["model"]), content["settings"])
            assert json.loads(json.dumps(trained)) == content["settings"]
            assert_accuracies_are_measured(line, content)


def assert_accuracies_are_measured(line: Record, content: dict) -> None:
    """The line has the metrics' numbers, each in its column."""
    validation, test = (content["metrics"]["splits"][split] for split in ("PublicTest", "PrivateTest"))
    expected = [validation["accuracy"], test["accuracy"], test["deduplicated"]["accuracy"], test["macro_f1"]]
    if content["metrics_augmented"] is not None:
        assert content["metrics_augmented"]["test_time_augmentation"] is True
        splits = content["metrics_augmented"]["splits"]
        expected += [splits[split]["accuracy"] for split in ("PublicTest", "PrivateTest")]
    shown = [line[column] for column in results.ACCURACIES]
    assert shown == [*(f"{share:.5f}" for share in expected), *[""] * (6 - len(expected))]


def test_rows_of_other_settings_are_told_and_not_mixed_with_those_of_today(tmp_path, monkeypatch, capsys):
    runs = Experiment("fer2013.csv", tmp_path / "work", tmp_path / "results", None)
    monkeypatch.setattr(runner, "experiment_of", lambda arguments: runs)
    for row in (CELLS[0], OURS[0], SVMS[0]):
        put(runs.results, record(row))
    assert runner.outdated(runs, read(runs.table)) == []
    assert reproduce_results.main(["--report"]) == 0 and "Model A, raw pixels" in capsys.readouterr().out

    monkeypatch.setitem(parameters.OWN_SETTINGS["A"], "keep_prob", 0.123)
    monkeypatch.setattr(parameters, "SVM", replace(parameters.SVM, penalties=(2.0,)))
    assert runner.outdated(runs, read(runs.table)) == [OURS[0], SVMS[0]]
    for flags in (["--report"], []):
        assert reproduce_results.main(flags) == 2
        message = capsys.readouterr().err
        assert f"other settings than today's ({OURS[0].name}, {SVMS[0].name})" in message
    assert reproduce_results.main(["--list", "--only=A_none_03456_*seed0"]) == 0
    published, ours = capsys.readouterr().out.splitlines()[:2]
    assert ours.endswith("68.0% PrivateTest, with other settings") and published.endswith("68.0% PrivateTest")
    assert not (tmp_path / "work").exists()


def test_it_is_the_teacher_that_counts_and_not_where_it_lies(tmp_path, monkeypatch, small_model):
    runs = Experiment("fer2013.csv", results=tmp_path)
    for row in (OURS[0], TAUGHT[0]):
        put(tmp_path, record(row))
    other = tmp_path / "other.bin"
    shutil.copy(*find_teachers(TEACHER), other)
    monkeypatch.setattr(parameters, "HYPERPARAMS", replace(parameters.HYPERPARAMS, teacher=str(other)))
    assert runner.outdated(runs, read(runs.table)) == []
    monkeypatch.setattr(parameters, "HYPERPARAMS", replace(parameters.HYPERPARAMS, teacher=str(small_model)))
    monkeypatch.setattr(runner, "Teacher", lambda path, *others: Teacher(path, (), "landmarks"))
    assert runner.outdated(runs, read(runs.table)) == [TAUGHT[0]]


def test_setting_that_came_later_had_its_default_of_then(tmp_path, monkeypatch):
    monkeypatch.setitem(ADDED["hyperparams"], "mixup", 0.0)
    runs = Experiment("fer2013.csv", results=tmp_path)
    for row in (CELLS[0], OURS[1]):
        settings = runner.row_settings(row, runs)
        del settings["hyperparams"]["mixup"]
        put(tmp_path, record(row), settings=settings)
    assert runner.outdated(runs, read(runs.table)) == []
    with monkeypatch.context() as patch:
        patch.setitem(parameters.OWN_SETTINGS["A"], "mixup", 0.4)
        assert runner.outdated(runs, read(runs.table)) == [OURS[1]]
    with monkeypatch.context() as patch:
        edited = replace(parameters.HYPERPARAMS, mixup=0.4)  # which is no default any more
        patch.setattr(parameters, "HYPERPARAMS", edited)
        assert runner.outdated(runs, read(runs.table)) == [CELLS[0], OURS[1]]
    with monkeypatch.context() as patch:
        patch.setitem(features.PARTS, "landmarks", landmarks_of_tomorrow())
        assert runner.outdated(runs, read(runs.table)) == [OURS[1]], "the other is of raw pixels"
    settings["hyperparams"]["gone"] = 1.0
    (tmp_path / "results.csv").unlink()
    put(tmp_path, record(OURS[1]), settings=settings)
    assert runner.outdated(runs, read(runs.table)) == [OURS[1]]


def test_file_of_a_row_that_is_not_of_its_line_is_refused(tmp_path, capsys):
    runs, line = Experiment("fer2013.csv", results=tmp_path), record(CELLS[0])
    metrics = metrics_of(CELLS[0])
    ragged = metrics_of(CELLS[0])
    ragged["splits"]["PrivateTest"]["confusion_matrix"][1].pop()
    epoch = {"epoch": 1, "accuracy": 0.5, "validation_accuracy": 0.5}
    for content, fault in (
        ({"record": {**line, "test_accuracy": "0.98000"}}, "is of another run than its line in results.csv"),
        ({"settings": []}, r"is damaged \(Expected `object`, got `array` - at `\$.settings`\)"),
        ({"settings": {"network": 1}}, r"is damaged \(Expected `object`, got `int` - at `\$.settings\[...\]`\)"),
        ({"history": [{}]}, "is damaged .*`epoch`"),
        ({"history": [{**epoch, "accuracy": "x"}]}, "is damaged .*accuracy"),
        ({"metrics": None}, r"is damaged \(it has no metrics of PrivateTest\)"),
        ({"metrics": {}}, "is damaged .*`expressions`"),
        ({"metrics": {**metrics, "expressions": ["a"] * 5}}, "an expression occurs twice"),
        ({"metrics": {**metrics, "expressions": ["a", "b"]}}, "confusion matrix is not of its expressions"),
        ({"metrics": ragged}, "confusion matrix is not of its expressions"),
        ({"metrics": {**metrics, "splits": {"PrivateTest": {}}}}, "is damaged"),
    ):
        (tmp_path / "results.csv").unlink(missing_ok=True)
        put(tmp_path, line, **content)
        assert reproduce_results.main(["--report", f"--results={tmp_path}"]) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert re.search(f"{CELLS[0].name}.json .*{fault}.*: delete its line", error), error
    results.detail_path(tmp_path, CELLS[0]).unlink()
    assert reproduce_results.main(["--report", f"--results={tmp_path}"]) == 2
    assert f"{CELLS[0].name}.json is missing: delete its line" in capsys.readouterr().err
    (tmp_path / "results.csv").unlink()
    put(tmp_path, line, settings={})
    assert runner.outdated(runs, read(runs.table)) == [CELLS[0]]


def test_tables_give_published_and_measured_side_by_side():
    records = [record(row, 0.60 + place / 100, 0.61 + place / 100) for place, row in enumerate(CELLS)]
    records += [record(row, 0.5, 0.55) for row in WITHOUT_BATCH_NORM[1:]]
    augmented = {"validation_accuracy_augmented": "0.71000", "test_accuracy_augmented": "0.73000"}
    records += [
        record(replace(OURS[7], seed=seed), 0.7, test, **augmented) for seed, test in enumerate((0.70, 0.72, 0.74))
    ]
    records += [record(SVMS[0], 0.6, 0.61), record(replace(OURS[7], expressions=SEVEN), 0.6, 0.63)]
    text = tables([*records, record(WITHOUT_BATCH_NORM[0], **DIVERGED)])
    for line in (
        "| SVM, landmarks | 46.9% | – | – | – | **61.0%** (60.0%) | – | – |",
        "| Model A, raw pixels | 72.4% | – | **61.0%** (60.0%) | – | – | – | – |",
        "| Model A, + landmarks + HOG | 68.7% | -3.7 | **63.0%** (62.0%) | +2.0 | – | – | – |",
        "| Model B, + landmarks + HOG windows | 75.1% | +1.6 | **68.0%** (67.0%) | +3.0 "
        "| **72.0%** (70.0%) ± 2.0 over 3 seeds | – | **73.0%** (71.0%) ± 0.0 over 3 seeds |",
        "| raw pixels | +7.4 | diverges without | +39.3 | +10.0 (55.0%) |",
        "| Model B, + landmarks + HOG windows | 60.0% | 63.0% | 61.0% | 67.0% | – | 9 of 13 | 10 min |",
    ):
        assert line in text.splitlines()
    assert "of 3,006 faces is 0.8 points" in text and "of two rows about 1.2 points" in text
    assert tables([record(CELLS[0], **DIVERGED)]).count("| diverged |") == 1
    text = tables([*records, record(TAUGHT[3], 0.75, 0.76, **augmented)])
    assert "± 0.0 over 3 seeds | **76.0%** (75.0%) | – | **73.0%** (71.0%) |" in text
    assert "| our settings with a teacher | adds | with test-time augmentation |" in text.splitlines()[0]
    assert "Model C" not in text
    others = [record(row, 0.70, test, **augmented) for row, test in ((MODEL_C, 0.75), (ON_REQUEST[0], 0.76))]
    lines = tables([*records, *others]).splitlines()
    assert "| Model C, raw pixels | – | – | – | – | **75.0%** (70.0%) | – | **73.0%** (71.0%) |" in lines
    assert "| Model C, + landmarks | – | – | – | – | **76.0%** (70.0%) | +1.0 | **73.0%** (71.0%) |" in lines
    later = {"outcome": "diverged in epoch 3"}
    assert "**68.0%** (66.0%), then diverged |" in tables([record(CELLS[0], **later)])
    text = tables([record(CELLS[0]), record(WITHOUT_BATCH_NORM[0], 0.5, 0.55, **later)])
    assert "| raw pixels | +7.4 | +13.0 (55.0%, then diverged) | +39.3 | – |" in text
    text = tables([record(replace(OURS[0], expressions=SEVEN), **DIVERGED)])
    assert "| Model A, raw pixels | – | – | – | – | – | – of 0, then diverged | – |" in text
    seeds = [record(replace(CELLS[0], seed=seed), 0.6, test) for seed, test in enumerate((0.7, 0.74))]
    seeds.append(record(replace(CELLS[0], seed=2), **DIVERGED))
    assert "**72.0%** (60.0%) over 2 seeds, 1 of 3 diverged |" in tables(seeds), "two have no deviation to speak of"
    assert "± is" not in tables(seeds) and "± is" in tables(records)
    assert "batch normalization adds" not in tables(records[:8]), "nothing to say of it yet"


def test_gain_is_of_the_means_over_all_seeds():
    records = [record(OURS[0], 0.7, 0.70), record(OURS[1], 0.7, 0.77)]  # whose first seed is no better than another
    records += [record(replace(OURS[1], seed=seed), 0.7, test) for seed, test in ((1, 0.71), (2, 0.68))]
    assert "| **72.0%** (70.0%) ± 4.6 over 3 seeds | +2.0 |" in tables(records)
    records.append(record(replace(OURS[1], seed=3), **DIVERGED))
    assert "| **72.0%** (70.0%) ± 4.6 over 3 seeds, 1 of 4 diverged | +2.0 |" in tables(records)


def test_rows_of_votes_are_compared_on_the_same_faces(tmp_path):
    rows = [row for row in VOTED if row.model == "A"][:2]
    labels = np.zeros(100, np.uint8)
    for row, wrong in zip(rows, (range(30), range(10, 25)), strict=True):
        answers = labels.copy()
        answers[list(wrong)] = 1
        (tmp_path / "rows").mkdir(exist_ok=True)
        comparison.write(comparison.Predictions(labels, answers), results.predictions_path(tmp_path, row))
    records = [record(rows[0], 0.6, 0.7), record(rows[1], 0.65, 0.85)]
    lines = tables(records, tmp_path).splitlines()
    assert "| Model A, raw pixels | 60.0% | 70.0% | – | – | – | – | – |" in lines
    assert "| Model A, + landmarks | 65.0% | 85.0% | – | +15.0 | +8.0 to +22.0 | 0 : 15 | 6.1e-05 |" in lines
    assert not any("seven expressions | PublicTest | PrivateTest | new faces" in line for line in lines)


def test_further_inputs_stand_beside_the_published_ones(tmp_path):
    rows = {row.name: row for row in (OURS[0], OURS[1], SVMS[0], *OTHER)}
    raw, lbp = rows["A_none_03456_ours_seed0"], rows["A_lbp_03456_ours_seed0"]
    records = [record(raw, 0.7, 0.73), record(OURS[1], 0.72, 0.74)]
    assert "further inputs" not in tables(records, tmp_path)
    records += [record(lbp, 0.71, 0.72), record(rows["SVM_gabor_03456_ours_seed0"], 0.6, 0.65)]
    lines = tables(records, tmp_path).splitlines()
    assert "| Model A, + LBP | 71.0% | 72.0% | – | -1.0 | – | – | – |" in lines, "its raw pixels have no answers"
    assert "| SVM, Gabor energies | 60.0% | 65.0% | – | – | – | – | – |" in lines
    (tmp_path / "rows").mkdir()
    labels = np.zeros(100, np.uint8)
    for row, wrong in ((raw, 30), (lbp, 20)):
        answers = (np.arange(100) < wrong).astype(np.uint8)
        comparison.write(comparison.Predictions(labels, answers), results.predictions_path(tmp_path, row))
    line = next(line for line in tables(records, tmp_path).splitlines() if line.startswith("| Model A, + LBP |"))
    assert "| – | +10.0 | +" in line and line.endswith("| 0 : 10 | 0.002 |")


def test_difference_of_two_models_is_that_of_mcnemar_and_of_the_normal_approximation():
    # 1000 faces: both right 700, first alone 60, second alone 100. Agresti's formula gives the standard error.
    right = np.repeat([[1, 1], [1, 0], [0, 1], [0, 0]], [700, 60, 100, 140], axis=0).astype(bool)
    labels = np.zeros(1000, np.uint8)
    first, second = (comparison.Predictions(labels, np.where(column, 0, 1).astype(np.uint8)) for column in right.T)
    found = comparison.difference(first, second)
    assert (found.first_alone, found.second_alone) == (60, 100) and found.difference == pytest.approx(0.04)
    error = math.sqrt((100 + 60 - (100 - 60) ** 2 / 1000) / 1000**2)
    assert (found.low, found.high) == pytest.approx((0.04 - 1.96 * error, 0.04 + 1.96 * error), abs=0.0015)
    tail = sum(math.comb(160, k) for k in range(61)) / 2**160
    assert found.chance == pytest.approx(2 * tail)
    assert comparison.difference(first, first)._replace(low=0, high=0) == (0, 0, 0, 0, 0, 1)
    with pytest.raises(ValueError, match="same faces"):
        comparison.difference(first, comparison.Predictions(labels[:-1], labels[:-1]))


def test_report_of_a_folder_without_results_is_refused(tmp_path, capsys):
    assert reproduce_results.main(["--report", f"--results={tmp_path}"]) == 2
    assert capsys.readouterr() == (
        "",
        f"error: no results at {tmp_path}/results.csv: run the rows first, or name another --results\n",
    )
    assert not list(tmp_path.iterdir())


def test_report_fills_the_markers_and_draws_the_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [*CELLS[:2], SVMS[0], replace(OURS[4], expressions=SEVEN)]
    for row in (*rows, CELLS[2]):
        history = [] if row == CELLS[2] else [{"epoch": 1, "accuracy": 0.5, "validation_accuracy": 0.6}]
        line = record(row, **(DIVERGED if row == CELLS[2] else {}))
        put(Path("results"), line, history=history)
    PAGE.parent.mkdir()
    PAGE.write_text(f"# Before\n\n{BEGIN}\nold\n{END}\n\nAfter\n")
    assert reproduce_results.main(["--report"]) == 0
    page = PAGE.read_text()
    assert page == f"# Before\n\n{BEGIN}\n{tables(read(Path('results/results.csv')))}\n{END}\n\nAfter\n"
    assert reproduce_results.main(["--report"]) == 0 and PAGE.read_text() == page
    pictures = {path.name for path in Path("results").glob("*.png")}
    assert pictures == {"answer.png", "learning_curves.png", "confusion_03456.png", "confusion_0123456.png"}
    assert all(f"(../results/{name})" in page for name in pictures)
    assert reproduce_results.main(["--report", f"--results={tmp_path}/results"]) == 0, "the same folder"
    assert "docs/experiment.md: 5 rows" in capsys.readouterr().out

    drawn: list[tuple[str, str]] = []
    monkeypatch.setattr(
        report, "_draw_bars", lambda axes, position, records, model, kind, *_: drawn.append((model, kind))
    )
    records = read(Path("results/results.csv"))
    report.draw_answer(records, tmp_path / "answer.png")
    assert drawn == list(report.PUBLISHED)
    drawn.clear()
    report.draw_answer([*records, record(MODEL_C)], tmp_path / "answer.png")
    assert drawn == [*report.PUBLISHED, ("C", "none")]
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    report.draw_answer([*records, record(MODEL_C)], tmp_path / "answer.png")

    PAGE.write_text(page.replace(END, ""))
    assert reproduce_results.main(["--report"]) == 2 and "results: end" in capsys.readouterr().err
    Path(f"results/rows/{rows[0].name}.json").unlink()
    PAGE.write_text(page)
    assert reproduce_results.main(["--report"]) == 2 and f"{rows[0].name}.json is missing" in capsys.readouterr().err


def test_learning_curves_leave_out_what_has_none(tmp_path, monkeypatch):
    drawn = []
    one = {"epoch": 1, "accuracy": 0.5, "validation_accuracy": 0.6}
    further = next(row for row in OTHER if row.model == "A")
    report.draw_learning_curves([(record(further), [one])], tmp_path / "learning_curves.png")
    assert (tmp_path / "learning_curves.png").stat().st_size > 1000
    monkeypatch.setattr(report, "draw_learning_curves", lambda histories, path: drawn.extend(histories))
    records = [record(CELLS[0]), record(WITHOUT_BATCH_NORM[0], **DIVERGED), record(SVMS[0], epochs="")]
    for line, history in zip(records, ([one], [], []), strict=True):
        put(tmp_path, line, history=history)
    report.draw_pictures(records, tmp_path)
    assert drawn == [(records[0], [one])] and "learning_curves.png" in tables(records)
    report.draw_pictures(records[1:], tmp_path)
    assert len(drawn) == 1 and "learning_curves.png" not in tables(records[1:])


def test_headline_is_chosen_on_public_test():
    records = [
        record(CELLS[0], 0.6, 0.7),
        record(CELLS[1], 0.65, 0.6),
        record(CELLS[2], **DIVERGED),
        record(SVMS[0], 0.9),
        record(replace(CELLS[0], seed=1), 0.9),
        record(WITHOUT_BATCH_NORM[0], 0.9),
    ]
    assert report.headline(records) == [records[1]]


# --- the runner ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quick_work(tmp_path_factory) -> Path:
    """The work folder of a quick run that has its faces, converted."""
    work = tmp_path_factory.mktemp("quick") / "work"
    runs = runner.quick_experiment(work)
    write_csv(runs.input, *QUICK_FACES)
    convert(runs)
    return work


def convert(runs: Experiment) -> None:
    """As the runner does it, in this process."""
    conversion.convert(runs.input, str(runs.faces(CELLS[0])), FIVE, list(features.PARTS), processes=2)
    assert is_converted(runs.faces(CELLS[0]), CELLS[0], runs.input)


def quick(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """A quick run in which Model A is slim."""
    return subprocess.run(
        quick_command(folder, *flags), cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300
    )


def quick_command(folder: Path, *flags: str) -> list[str]:
    script = folder / "slim_a.py"
    script.write_text(SLIM_A.format(root=str(ROOT)))
    return [sys.executable, str(script), "--quick", *flags]


def stopped_in_a_training(number: signal.Signals, checkpoint: Path, folder: Path, *flags: str) -> tuple[int, str, str]:
    """Sends the signal once the checkpoint is there; exit status, output and errors, when all processes have ended."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(quick_command(folder, *flags), cwd=folder, text=True, **pipes)
    wait_until(lambda: checkpoint.exists() or process.poll() is not None)
    process.send_signal(number)
    output, errors = process.communicate(timeout=300)  # which ends when the children have ended too
    assert checkpoint.exists(), output + errors
    return process.returncode, output, errors


@pytest.mark.slow
def test_quick_run_from_an_empty_folder_with_the_whole_model_a(tmp_path):
    run = run_script("experiments.reproduce_results", "--quick", cwd=tmp_path)
    assert run.returncode == 0 and "Traceback" not in run.stderr, run.stderr
    table = Path("results_work", "quick", "results", "results.csv")
    assert run.stdout.splitlines()[-1] == f"Nothing is missing: {table} has all of 2 rows"
    svm, network = read(tmp_path / table)
    assert (Row.of(svm), Row.of(network)) == (SVMS[0], OURS[1])
    assert svm["outcome"] == network["outcome"] == "finished"
    assert [path.name for path in tmp_path.iterdir()] == ["results_work"]


def test_run_that_is_killed_goes_on_where_it_was_and_repeats_nothing(tmp_path, monkeypatch, capsys):
    """It begins in an empty folder: it draws and converts its faces, too."""
    work = tmp_path / "results_work" / "quick"
    table, checkpoint = work / "results" / "results.csv", work / OURS[1].name / "checkpoints" / "state.json"
    _, output, _ = stopped_in_a_training(signal.SIGKILL, checkpoint, tmp_path)
    assert [Row.of(line) for line in read(table)] == [SVMS[0]], output
    first = table.read_text()

    run = quick(tmp_path)
    assert run.returncode == 0 and "Traceback" not in run.stderr, run.stderr
    assert "Resuming after epoch" in run.stdout and "train_svm" not in run.stdout
    told = "Nothing is missing: results_work/quick/results/results.csv has all of 2 rows\n"
    assert run.stdout.endswith(told)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results_work", "slim_a.py"]
    assert table.read_text().startswith(first)
    svm, network = read(table)
    assert (svm["test_accuracy_augmented"], svm["epochs"]) == ("", "")
    assert (Row.of(svm), Row.of(network)) == (SVMS[0], OURS[1])
    assert float(svm["test_accuracy"]) > 0.5, "of five, guessing gets 20%"
    assert (network["epochs"], network["training"], network["outcome"]) == ("2", "200", "finished")
    assert "tensorflow 2." in network["versions"] and "scikit-learn 1." in svm["versions"]
    assert not list(work.glob("A_*")) and not list(work.glob("SVM_*")), "what was needed meanwhile is gone"
    content = json.loads((work / "results" / "rows" / f"{OURS[1].name}.json").read_text())
    assert [row["epoch"] for row in content["history"]] == [1, 2] and "--settings=ours" in content["command"]
    assert_accuracies_are_measured(network, content)
    assert network["test_accuracy_augmented"]

    before = table.read_text()
    (work / OURS[1].name).mkdir()  # as a kill leaves it that comes right after the line was written
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert (reproduce_results.main(["--quick"]), table.read_text()) == (0, before)
    assert capsys.readouterr().out == told and not (work / OURS[1].name).exists()
    assert reproduce_results.main(["--quick", "--report"]) == 0
    output = capsys.readouterr().out
    assert "| SVM, landmarks | 46.9% |" in output
    assert "](results_work/quick/results/learning_curves.png)" in output
    content["settings"]["hyperparams"]["keep_prob"] = 0.123  # as if parameters.py had had that
    (work / "results" / "rows" / f"{OURS[1].name}.json").write_text(json.dumps(content))
    assert reproduce_results.main(["--quick", "--report"]) == 2
    run = quick(tmp_path, "--only=SVM_*")
    assert run.returncode == 0 and [Row.of(line) for line in read(table)] == [SVMS[0]], "it tries out what is new"
    assert (work / "results" / "learning_curves.png").exists() and not (tmp_path / "docs").exists()


def test_ctrl_c_stops_the_row_at_once_and_it_goes_on_later(quick_work, tmp_path):
    shutil.copytree(quick_work, tmp_path / "results_work" / "quick")
    checkpoint = tmp_path / "results_work" / "quick" / OURS[1].name / "checkpoints" / "state.json"
    status, _, errors = stopped_in_a_training(signal.SIGINT, checkpoint, tmp_path, "--only=A_*")
    assert status == 130 and "Traceback" not in errors
    assert f"Stopped at {OURS[1].name}: the same command goes on" in errors
    assert not (checkpoint.parent.parent / "metrics.json").exists(), "which its process would have written at its end"
    assert not (tmp_path / "results_work" / "quick" / "results" / "results.csv").exists()
    run = quick(tmp_path, "--only=A_*")
    assert run.returncode == 0 and "Resuming after epoch" in run.stdout


def test_list_and_only_name_rows(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    put(Path("results"), record(CELLS[0], 0.61, 0.62))
    put(Path("results"), record(CELLS[1], **DIVERGED))
    assert reproduce_results.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == [row.name for row in (*plan([]), *ON_REQUEST)]
    assert lines[0].endswith("61.0% PublicTest, 62.0% PrivateTest") and lines[1].endswith("diverged in epoch 1")
    assert lines[2].endswith("missing") and lines[-2].endswith("only on request") and "More seeds" in lines[-1]
    assert reproduce_results.main(["--list", "--only=SVM_*,B_none_*"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()[:-1]]
    chosen = [row for row in plan([]) if row.model == "SVM" or (row.model, row.features) == ("B", "none")]
    assert names == [row.name for row in chosen] and len(names) == 15
    for only, unknown in (("D_*", "D_*"), ("", ""), (" ,", ""), ("A_*,,D_*,", "D_*"), ("A_none", "A_none")):
        for action in ([], ["--list"]):
            assert reproduce_results.main([*action, f"--only={only}"]) == 2
            assert f"no row is called '{unknown}'" in capsys.readouterr().err
    assert reproduce_results.main(["--list", "--only=*_0123456_ours_seed0,C_landmarks_0*"]) == 2, "there are none yet"
    assert "no row is called '*_0123456_ours_seed0', or not yet: --list" in capsys.readouterr().err
    assert reproduce_results.main(["--list", "--only=*,C_landmarks_0*"]) == 0
    assert ON_REQUEST[0].name in (output := capsys.readouterr().out) and ON_REQUEST[1].name not in output
    assert reproduce_results.main(["--list", "--only=*"]) == 0
    assert MODEL_C.name in (output := capsys.readouterr().out) and ON_REQUEST[0].name not in output, "which takes hours"
    for flags in (["--list", "--report"], ["--report", "--only=A_*"], ["--list", "--keep_models"]):
        with pytest.raises(SystemExit):
            reproduce_results.main(flags)
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: --") and line.endswith("--help)"), "one line, not the whole usage"
    assert reproduce_results.main(["--quick", "--results=./results"]) == 2
    assert "another --results than results" in capsys.readouterr().err
    for flags in (["--only=SVM_*"], ["--quick"]):
        assert reproduce_results.main([*flags, "--input=none.csv"]) == 2
        assert "no FER2013 at none.csv" in capsys.readouterr().err and not Path("none.csv").exists()


@pytest.fixture(scope="module")
def five_faces(drawn_csv, tmp_path_factory) -> Path:
    """The drawn faces of five expressions, converted."""
    runs = Experiment(str(drawn_csv), tmp_path_factory.mktemp("five"))
    convert(runs)
    return runs.faces(CELLS[0])


def experiment_with_faces(folder: Path, source: Path, faces: Path, *rows: Row) -> Experiment:
    """An experiment whose faces have been converted before."""
    runs = experiment(folder, str(source), *rows)
    runs.work.mkdir()
    runs.faces(CELLS[0]).symlink_to(faces)
    return runs


def in_this_process(script: str, flags: Sequence[str]) -> int:
    """As runner.in_a_process, without the start of a process."""
    try:
        return importlib.import_module(script).main(list(flags))
    except SystemExit as exit:  # of the parser
        return exit.code


def experiment(folder: Path, source: str, *rows: Row) -> Experiment:
    return Experiment(source, folder / "work", folder / "results", None, lambda records: list(rows), ())


def test_failing_row_stays_missing_and_a_diverging_one_is_a_result(drawn_csv, tmp_path, monkeypatch, capfd):
    pixels = replace(SVMS[0], features="none")  # which no SVM is given
    runs = experiment(tmp_path, str(drawn_csv), pixels, CELLS[0], SVMS[0])
    monkeypatch.setattr(runner, "experiment_of", lambda arguments: runs)
    scripts = []

    def diverging(script: str, flags: Sequence[str]) -> int:
        scripts.append(script)
        return Diverged.status if script == "train" else in_this_process(script, flags)

    monkeypatch.setattr(runner, "in_a_process", diverging)
    assert reproduce_results.main([]) == 1
    assert scripts == [
        "convert_fer2013_to_images_and_landmarks",
        "experiments.train_svm",
        "train",
        "experiments.train_svm",
    ]
    errors = capfd.readouterr().err
    assert f"{pixels.name} failed: exit status 2" in errors and f"failed: {pixels.name}" in errors.splitlines()
    diverged, finished = read(runs.table)
    assert (Row.of(diverged), Row.of(finished)) == (CELLS[0], SVMS[0])
    assert (diverged["outcome"], diverged["test_accuracy"]) == ("diverged in epoch 1", "")
    assert diverged["private_test"] == finished["private_test"] == "100"
    assert runner.missing_rows(runs, None, []) == [pixels]


@pytest.mark.parametrize(
    ("left_behind", "statuses", "calls", "diverged"),
    [
        ((), [0], [""], False),
        (("checkpoints/state.json",), [CannotResume.status, 0], ["--resume=yes", ""], False),
        (("checkpoints/state.json",), [2], ["--resume=yes"], RowFailed),  # a full disk, say: nothing is thrown away
        (("checkpoints/state.json",), [0], ["--resume=yes"], False),
        ((), [Diverged.status], [""], True),
        (("checkpoints/state.json", "saved_model.bin"), [3, 0], ["--resume=yes", "--train=no"], True),
        ((), [2], [""], RowFailed),
        ((), [-9], [""], RowFailed),
        (("checkpoints/state.json", "saved_model.bin"), [3, 2], ["--resume=yes", "--train=no"], RowFailed),
    ],
)
def test_how_a_row_ends(tmp_path, monkeypatch, left_behind, statuses, calls, diverged):
    done, folder = [], tmp_path / "row"
    for name in left_behind:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()

    def in_a_process(script: str, flags: tuple[str, ...]) -> int:
        done.append(next((flag for flag in flags if flag in ("--resume=yes", "--train=no")), ""))
        return statuses[len(done) - 1]

    monkeypatch.setattr(runner, "in_a_process", in_a_process)
    if diverged is RowFailed:
        with pytest.raises(RowFailed):
            runner.train_in_a_process("train", ("--train=yes",), folder)
    else:
        assert runner.train_in_a_process("train", ("--train=yes",), folder) is diverged
    assert done == calls
    states = sorted(path.parent.parent.name for path in tmp_path.glob("*/checkpoints/state.json"))
    kept = "row.old" if CannotResume.status in statuses else "row"
    assert states == ([kept] if left_behind else []), "what cannot be resumed is kept until the row is finished"


def test_two_runs_at_once_are_refused(tmp_path):
    runs = experiment(tmp_path, "fer2013.csv", CELLS[0])
    for place in (runs.work / "run", runs.table):  # of the same rows; of other rows into the same table
        place.parent.mkdir()
        with lock(place), pytest.raises(UserError, match=f"another process works in {place.parent}"):
            runner.run(runs)


def test_experiment_with_pytorch_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(parameters, "TRAINING", replace(parameters.TRAINING, engine="pytorch"))
    with pytest.raises(UserError, match="trains with TensorFlow alone: set engine to tensorflow in parameters"):
        runner.run(experiment(tmp_path, "fer2013.csv", CELLS[0]))


def test_place_that_cannot_be_written_is_told_before_anything_is_trained(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for flag in ("--work", "--results"):
        assert reproduce_results.main([f"{flag}=/dev/null/place", "--input=none.csv"]) == 2
        assert "/dev/null" in capsys.readouterr().err


def test_every_row_is_trained_as_its_name_says(tmp_path):
    runs = experiment(tmp_path, "fer2013.csv")
    another = replace(OURS[0], expressions=SEVEN, seed=2)
    parser = training_parser(parameters, ARCHITECTURES)
    for row in (*CELLS, *OURS, *TAUGHT, *WITHOUT_BATCH_NORM, *SVMS, MODEL_C, *ON_REQUEST, *VOTED, another):
        script, flags = runner.command_of(row, runs)
        if script == "experiments.train_svm":
            given = train_svm.parser().parse_args(flags)
            assert (row.model, given.features, given.labels) == ("SVM", row.features, row.labels)
            continue
        network, hyperparams, training, _ = training_settings(parser.parse_args(flags), parameters, ARCHITECTURES)
        assert (hyperparams.teacher_share > 0) == (row.settings == "taught")
        assert (network.model, network.features, network.batch_norm_conv) == (row.model, row.features, row.batch_norm)
        assert network.output_size == len(row.expressions)
        assert (training.settings, training.labels, training.seed) == (row.settings, row.labels, row.seed)


def test_dataset_is_converted_anew_when_it_is_not_the_one_of_today(drawn_csv, drawn_dataset, tmp_path, monkeypatch):
    seven = replace(CELLS[0], expressions=SEVEN)
    assert is_converted(drawn_dataset, seven, str(drawn_csv))
    assert not is_converted(drawn_dataset, CELLS[0], str(drawn_csv))
    assert not is_converted(tmp_path, seven, str(drawn_csv))
    other = tmp_path / "other.csv"
    other.write_bytes(drawn_csv.read_bytes() + b"\n")
    assert not is_converted(drawn_dataset, seven, str(other))
    damaged = tmp_path / "damaged"
    shutil.copytree(drawn_dataset, damaged)
    assert is_converted(damaged, seven, str(drawn_csv))
    path = damaged / "PublicTest" / "hog_windows.npy"
    path.write_bytes(path.read_bytes()[:-100])
    assert not is_converted(damaged, seven, str(drawn_csv))
    monkeypatch.setitem(features.PARTS, "landmarks", landmarks_of_tomorrow())
    assert not is_converted(drawn_dataset, seven, str(drawn_csv))


def test_rows_of_another_dataset_are_refused(drawn_dataset, tmp_path):
    runs, dataset = experiment(tmp_path, "fer2013.csv"), open_dataset(drawn_dataset)
    put(runs.results, record(replace(OURS[0], expressions=SEVEN), dataset=dataset.fingerprint[:12]))
    put(runs.results, record(OURS[0], dataset="of five expressions"))
    runner.check_dataset(dataset, replace(CELLS[0], expressions=SEVEN), runs)
    (runs.results / "results.csv").unlink()
    put(runs.results, record(replace(OURS[1], expressions=SEVEN)))
    with pytest.raises(UserError, match="rows of another dataset"):
        runner.check_dataset(dataset, replace(CELLS[0], expressions=SEVEN), runs)


def test_rows_of_another_copy_of_fer2013_stand_beside_ours(drawn_csv, five_faces, tmp_path, monkeypatch, capsys):
    runs = experiment_with_faces(tmp_path, drawn_csv, five_faces, SVMS[0])
    put(runs.results, record(SVMS[0], dataset="of our copy"))
    ours = runs.table.read_bytes()
    fingerprint = open_dataset(five_faces).fingerprint[:12]
    trained = []

    def finish(row: Row, experiment: Experiment) -> Record:
        trained.append(row)
        put(experiment.results, record(row, dataset=fingerprint))
        return read(experiment.table)[-1]

    monkeypatch.setattr(runner, "finish", finish)
    assert runner.run(runs) == [] and trained == [SVMS[0]]
    copy = runs.results / f"fer2013_{fingerprint}"
    assert [line["dataset"] for line in read(copy / "results.csv")] == [fingerprint] and runs.table.read_bytes() == ours
    assert f"is another copy of FER2013 than that of {runs.table}: its rows go to {copy}" in capsys.readouterr().out
    assert runner.run(runs) == [] and trained == [SVMS[0]], "a second run goes on there"


def test_row_tells_the_code_that_it_was_begun_with(drawn_csv, five_faces, tmp_path, monkeypatch):
    runs = experiment_with_faces(tmp_path, drawn_csv, five_faces, SVMS[0])

    def and_then_somebody_commits(script: str, flags: Sequence[str]) -> int:
        status = in_this_process(script, flags)
        monkeypatch.setattr(runner, "commit", lambda: "bbb")
        return status

    monkeypatch.setattr(runner, "commit", lambda: "aaa")
    monkeypatch.setattr(runner, "in_a_process", and_then_somebody_commits)
    assert runner.run(runs) == []
    assert [line["commit"] for line in read(runs.table)] == ["aaa and bbb"]


def test_settings_that_change_under_a_row_stop_the_run(drawn_csv, five_faces, tmp_path, monkeypatch):
    runs = experiment_with_faces(tmp_path, drawn_csv, five_faces, SVMS[0])
    monkeypatch.setattr(parameters, "SVM", replace(parameters.SVM, penalties=(2.0,)))  # here, not there
    with pytest.raises(UserError, match="parameters.py was changed while SVM_landmarks_03456_ours_seed0 was trained"):
        runner.run(runs)
    assert read(runs.table) == []


def test_kept_model_is_in_its_place_before_the_row_counts(drawn_csv, five_faces, tmp_path, monkeypatch):
    runs = replace(experiment_with_faces(tmp_path, drawn_csv, five_faces, SVMS[0]), keep_models=True)
    kept = runs.work / f"{SVMS[0].name}.npz"

    def append_after_a_look(table: Path, line: Record) -> None:
        assert support_vector_machine.load(kept).features == "landmarks"
        append(table, line)

    monkeypatch.setattr(results, "append", append_after_a_look)
    monkeypatch.setattr(runner, "in_a_process", in_this_process)
    assert runner.run(runs) == []
    assert len(read(runs.table)) == 1 and not (runs.work / SVMS[0].name).exists()
