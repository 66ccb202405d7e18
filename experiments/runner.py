"""The experiment: its plan, and the runner that trains one row after another.

    run(Experiment("fer2013.csv"), ["SVM_*"])  # returns the rows that failed

Each row is trained and evaluated in a process of its own. A stopped run goes on where it was.
"""

import argparse
import contextlib
import fnmatch
import importlib
import json
import math
import multiprocessing
import os
import platform
import shlex
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

import parameters
from experiments import comparison, report, results, support_vector_machine
from experiments.results import FURTHER, INPUTS, PUBLISHED_MODELS, SEVEN, Record, Row, number
from ferkit import features, saved_model
from ferkit.constants import EMOTIONS, SPLITS
from ferkit.data import fer2013, ferplus
from ferkit.data.dataset import Dataset, open_dataset
from ferkit.data.drawn_faces import write_csv
from ferkit.errors import UserError
from ferkit.files import lock, read_text, real_path, whole_file
from ferkit.learning.configuration import TrainingSettings, training_parser, training_settings
from ferkit.learning.distillation import Teacher
from ferkit.learning.evaluation import EVALUATED, Classifier
from ferkit.learning.run import CannotResume, Diverged
from ferkit.markdown import filled
from ferkit.processes import follow_parent, uninterrupted
from ferkit.provenance import commit
from ferkit.settings import Svm, with_added
from model import ARCHITECTURES

PACKAGES = ("tensorflow", "tflearn", "ai-edge-litert", "scikit-learn", "numpy")
SEEDS = 3  # number of seeds of the two best cells
QUICK_FACES = (280, 70, 70)  # number of drawn faces in the three splits
STARTED = "commit.json"  # in a row's folder: the commit of the code at the start of its training
FINGERPRINT = 12  # number of digits of a dataset's fingerprint in the results


# --- the plan --------------------------------------------------------------------------------------------------------

CELLS = tuple(Row(model, features) for model in PUBLISHED_MODELS for features in INPUTS)
OURS = tuple(replace(row, settings="ours") for row in CELLS)
TAUGHT = tuple(replace(row, settings="taught") for row in CELLS if row.model == "B")  # the better model
WITHOUT_BATCH_NORM = tuple(replace(row, batch_norm=False) for row in CELLS)
SVMS = tuple(Row("SVM", features, batch_norm=False, settings="ours") for features in INPUTS if features != "none")
# The question asked again, with the votes of FER+ as labels.
VOTED = tuple(replace(row, expressions=SEVEN, labels="ferplus") for row in (*OURS, *SVMS))
# The question asked of other features.
OTHER = tuple(
    Row(model, features, batch_norm=model != "SVM", settings="ours") for model in ("SVM", "A") for features in FURTHER
)
MODEL_C = Row("C", "none", settings="ours")  # shows what is possible beyond A and B
ON_REQUEST = tuple(replace(MODEL_C, features=features) for features in INPUTS if features != "none")


def plan(records: Sequence[Record]) -> list[Row]:
    """The rows in the order of their importance. records: the finished rows, which later rows depend on.

    The PublicTest accuracies decide which cells get more seeds, and which features are used with seven expressions.
    These rows are added when the eight rows that they are chosen from are finished.
    """
    best = ranking(OURS, records)
    seeds = [replace(row, seed=seed) for row in best[:2] for seed in range(1, SEEDS)]
    firsts = [next(row for row in best if row.model == model) for model in PUBLISHED_MODELS] if best else []
    seven = [replace(row, expressions=SEVEN) for row in firsts]
    return [*CELLS, *OURS, *seeds, *WITHOUT_BATCH_NORM, *SVMS, *seven, MODEL_C, *TAUGHT, *VOTED, *OTHER]


def ranking(rows: Sequence[Row], records: Sequence[Record]) -> list[Row]:
    """`rows` sorted by their accuracy on PublicTest, the best first; empty until all are finished."""
    reached = {Row.of(record): number(record, "validation_accuracy") for record in records}
    if not set(rows) <= reached.keys():
        return []
    return sorted(rows, key=lambda row: -math.inf if math.isnan(reached[row]) else reached[row], reverse=True)


def quick_plan(records: Sequence[Record]) -> list[Row]:
    """A few rows for a quick test of the whole experiment."""
    return [SVMS[0], OURS[1]]


@dataclass(frozen=True)
class Experiment:
    """The rows to run, the dataset, and the places of the results."""

    input: str
    work: Path = Path("results_work")
    results: Path = Path("results")
    page: Path | None = Path("docs/experiment.md")  # None: the tables are only printed
    plan: Callable[[Sequence[Record]], list[Row]] = plan
    extra: tuple[Row, ...] = ON_REQUEST  # run only if named
    flags: dict[str, tuple[str, ...]] = field(default_factory=dict)  # further flags of each script
    keep_models: bool = False
    ferplus: str = "fer2013new.csv"  # the votes, for the rows that learn from them

    @property
    def table(self) -> Path:
        return self.results / "results.csv"

    def rows(self, patterns: Sequence[str] | None = None) -> list[Row]:
        """The plan's rows whose names match one of the patterns; without patterns, all rows.

        An extra row matches only a pattern that begins with its model.
        """
        rows = self.plan(results.read(self.table))
        if patterns is None:
            return rows
        named = {row: [text for text in patterns if text.startswith(row.model)] for row in self.extra}
        return [
            row
            for row in (*rows, *self.extra)
            if any(fnmatch.fnmatch(row.name, text) for text in named.get(row, patterns))
        ]

    def folder(self, row: Row) -> Path:
        """The folder with the files of a row while it is trained."""
        return self.work / row.name

    def faces(self, row: Row) -> Path:
        """The folder of the converted dataset that a row is trained on."""
        votes = () if row.labels == "fer2013" else (row.labels,)
        further = (row.features,) if row.features in FURTHER else ()
        return self.work / "_".join(("faces", "".join(map(str, row.expressions)), *votes, *further))

    def finished(self) -> set[Row]:
        return {Row.of(record) for record in results.read(self.table)}


def quick_experiment(work: Path) -> Experiment:
    """The quick rows, with all their files in `work`, separate from the real results."""
    flags: dict[str, tuple[str, ...]] = {"train": ("--epochs=2", "--batch_size=32", "--warmup_steps=0")}
    return Experiment(str(work / "fer2013.csv"), work, work / "results", None, quick_plan, (), flags)


def prepare_quick(experiment: Experiment, draw: bool) -> None:
    """Draws the faces of the quick rows if there are none, and forgets rows of other settings.

    Quick rows are for trying out a change, so they run again after one.
    """
    if draw and not Path(experiment.input).exists():
        write_csv(experiment.input, *QUICK_FACES)
    if old := outdated(experiment, results.read(experiment.table)):
        results.drop(experiment.table, old)


# --- what is asked for -----------------------------------------------------------------------------------------------


def experiment_of(arguments: argparse.Namespace) -> Experiment:
    """The experiment that the flags describe."""
    quick = Path(arguments.work or "results_work/quick")
    experiment = quick_experiment(quick) if arguments.quick else Experiment(parameters.DATASET.input)
    kinds: dict[str, type] = {"input": str, "ferplus": str, "work": Path, "results": Path}
    given = {name: kind(getattr(arguments, name)) for name, kind in kinds.items() if getattr(arguments, name)}
    real = real_path(given.get("results", experiment.results)) == real_path(Experiment.results)
    if arguments.quick and real:
        raise UserError(f"--quick tries things out: give it another --results than {Experiment.results}")
    if not real:
        given["page"] = None  # the page has the tables of the real results
    return replace(experiment, **given, keep_models=arguments.keep_models)


def patterns_of(only: str | None, experiment: Experiment) -> list[str] | None:
    """The patterns of --only; None without it. Raises UserError when a pattern matches no row."""
    if only is None:
        return None
    patterns = [text.strip() for text in only.split(",") if text.strip()] or [""]
    for pattern in patterns:
        if not experiment.rows([pattern]):
            listed = "--list" if experiment.plan is plan else "--quick --list"
            raise UserError(f"no row is called '{pattern}', or not yet: {listed} shows their names")
    return patterns


def listing(experiment: Experiment, patterns: Sequence[str] | None) -> str:
    """One line per row: its name and its result, or that it is missing."""
    records = {Row.of(record): record for record in results.read(experiment.table)}
    shown = experiment.rows(patterns) if patterns is not None else [*experiment.rows(), *experiment.extra]
    width = max((len(row.name) for row in shown), default=0)
    marks = dict.fromkeys(outdated(experiment, list(records.values())), ", with other settings")
    lines = [f"{row.name:{width}}  {state(row, records.get(row), experiment)}{marks.get(row, '')}" for row in shown]
    if experiment.plan is plan and not ranking(OURS, list(records.values())):
        lines.append("More seeds of the two best, and seven expressions, follow once the first rows of ours are there.")
    return "\n".join(lines)


def state(row: Row, record: Record | None, experiment: Experiment) -> str:
    """The state of a row, as `--list` shows it."""
    if record is None:
        return "only on request" if row in experiment.extra else "missing"
    diverged = record["outcome"] != results.FINISHED
    if diverged and not record["test_accuracy"]:
        return record["outcome"]
    accuracies = f"{number(record, 'validation_accuracy'):.1%} PublicTest, {number(record):.1%} PrivateTest"
    return accuracies + (f", {record['outcome']}" if diverged else "")


def write_report(experiment: Experiment) -> None:
    """Writes the tables into the page, or prints them if there is no page, and draws the pictures."""
    if not experiment.table.is_file():
        raise UserError(f"no results at {experiment.table}: run the rows first, or name another --results")
    records = results.read(experiment.table)
    check_unchanged(experiment, records)
    folder = experiment.results if experiment.page is None else report.RESULTS
    text = report.tables(records, experiment.results, folder)
    page = experiment.page
    content = filled(page.read_text(encoding="utf-8"), report.PART, text, page) if page else ""
    for path in report.draw_pictures(records, experiment.results):  # before the page that shows them
        print(path)
    if page is None:
        print(text)
    else:
        with whole_file(page) as temporary:
            temporary.write_text(content, encoding="utf-8")
        print(f"{page}: {len(records)} rows")


# --- the settings of a row -------------------------------------------------------------------------------------------


def row_settings(
    row: Row, experiment: Experiment, known: features.Provenance | None = None
) -> dict[str, dict[str, Any]]:
    """The present settings that the result of a row depends on. known: see features.extract."""
    provenance = {
        "feature_provenance": features.provenance(row.features, parameters.DATASET.shape_predictor_path, known)
    }
    if row.model == "SVM":
        settings = asdict(svm_settings(row))
        return {"svm": {name: value for name, value in settings.items() if name != "save_model_path"}, **provenance}
    network, hyperparams, training, augmentation = network_settings(row, experiment)
    settings = {
        "network": asdict(network),
        "hyperparams": asdict(hyperparams),
        "augmentation": asdict(augmentation),
        "training": {
            name: getattr(training, name) for name in ("engine", "epochs", "seed", "quantize", "bfloat16", "labels")
        },
        **provenance,
    }
    if hyperparams.teacher_share:
        expressions = [EMOTIONS[label] for label in row.expressions]
        settings["teacher"] = Teacher(hyperparams.teacher, expressions, row.features).facts
    return settings


def svm_settings(row: Row) -> Svm:
    """The settings of a row with a support vector machine."""
    return replace(parameters.SVM, features=row.features, seed=row.seed)


def network_settings(row: Row, experiment: Experiment) -> TrainingSettings:
    """The settings of a row with a network, as train.py makes them from the row's flags."""
    _, flags = command_of(row, experiment)
    arguments = training_parser(parameters, ARCHITECTURES).parse_args(flags)
    return training_settings(arguments, parameters, ARCHITECTURES)


def outdated(experiment: Experiment, records: Sequence[Record]) -> list[Row]:
    """The finished rows that were trained with other settings than the present ones. Tables must not mix them."""

    def changed(record: Record) -> bool:
        then = results.detail(experiment.results, record)["settings"]
        return not are_same(then, row_settings(Row.of(record), experiment, then.get("feature_provenance")))

    return [Row.of(record) for record in records if changed(record)]


def are_same(then: dict[str, dict[str, Any]], now: dict[str, dict[str, Any]]) -> bool:
    """Whether both settings mean the same training. then: the settings as read from a file."""
    now = json.loads(json.dumps(now))  # turns tuples into lists, as in the file
    before = with_added(then)
    for settings in (before, now):  # a teacher's path is irrelevant; "teacher" identifies it
        settings["hyperparams"] = {**settings.get("hyperparams", {}), "teacher": ""}
    return before == now


def check_unchanged(experiment: Experiment, records: Sequence[Record]) -> None:
    """Raises UserError when a finished row was trained with other settings than the present ones."""
    if old := outdated(experiment, records):
        names = ", ".join(row.name for row in old)
        raise UserError(
            f"{experiment.table} has rows that were trained with other settings than today's ({names}): delete their "
            "lines to train them again, or start anew with another --results"
        )


# --- running ---------------------------------------------------------------------------------------------------------


def run(experiment: Experiment, patterns: Sequence[str] | None = None) -> list[Row]:
    """Runs all missing rows; returns the rows that failed. After a failed row, the other rows still run.

    Raises UserError when parameters.py asks for PyTorch, when another process runs the same experiment, when the
    results cannot be written, when the dataset cannot be converted, and when finished rows have other settings or
    another dataset.
    """
    networks = [row for row in experiment.rows(patterns) if row.model != "SVM"]
    if any(network_settings(row, experiment).training.engine != "tensorflow" for row in networks):
        raise UserError("the experiment trains with TensorFlow alone: set engine to tensorflow in parameters.py")
    check_unchanged(experiment, results.read(experiment.table))
    failed: list[Row] = []
    with contextlib.ExitStack() as locks:

        def alone(place: Path) -> None:
            place.parent.mkdir(parents=True, exist_ok=True)
            if not locks.enter_context(lock(place)):
                raise UserError(f"another process works in {place.parent}: wait for it, or name another folder")

        alone(experiment.work / "run")
        experiment = beside_other_copies(experiment)
        alone(experiment.table)
        check_unchanged(experiment, results.read(experiment.table))
        for row in experiment.finished():
            tidy(row, experiment)  # a kill may have prevented it
        while missing := missing_rows(experiment, patterns, failed):
            row = missing[0]
            print(f"{row.name}: {len(missing)} to go", flush=True)
            try:
                record = finish(row, experiment)
                print(f"{row.name}: {state(row, record, experiment)}, see {experiment.table}", flush=True)
            except RowFailed as error:
                print(f"{row.name} failed: {error}", file=sys.stderr)
                failed.append(row)
            except KeyboardInterrupt:
                print(f"\nStopped at {row.name}: the same command goes on", file=sys.stderr)
                raise
    if not failed:
        print(f"Nothing is missing: {experiment.table} has all of {len(experiment.rows(patterns))} rows")
    return failed


def beside_other_copies(experiment: Experiment) -> Experiment:
    """The experiment; with results in a folder of their own if those there are of another copy of FER2013.

    Copies differ by a few grey levels, or in the order of their rows, and their rows must not be mixed.
    """
    if not Path(experiment.input).exists():
        return experiment  # `converted` reports it, if a row is missing
    records = {(record["expressions"], record["labels"]): record for record in results.read(experiment.table)}
    for row in experiment.rows():
        record = records.get((row.columns["expressions"], row.labels))
        if record is None:
            continue
        fingerprint = converted(row, experiment).fingerprint[:FINGERPRINT]
        if record["dataset"] == fingerprint:
            return experiment
        copy = experiment.results / f"{Path(experiment.input).name.partition('.')[0]}_{fingerprint}"
        print(f"{experiment.input} is another copy of FER2013 than that of {experiment.table}: its rows go to {copy}")
        return replace(experiment, results=copy, page=None)
    return experiment


def missing_rows(experiment: Experiment, patterns: Sequence[str] | None, failed: Sequence[Row]) -> list[Row]:
    """The rows that still have to run. Finished rows change the plan, so this is called again after each row."""
    done = {*experiment.finished(), *failed}
    return [row for row in experiment.rows(patterns) if row not in done]


class RowFailed(Exception):
    """A row's process ended in an error; the row stays missing."""


def finish(row: Row, experiment: Experiment) -> Record:
    """Trains and evaluates one row, and writes its results. Raises RowFailed when its process fails."""
    dataset = converted(row, experiment)
    check_dataset(dataset, row, experiment)
    folder = experiment.folder(row)
    script, flags = command_of(row, experiment)
    line = f"python {f'-m {script}' if '.' in script else f'{script}.py'} {shlex.join(flags)}"
    print(line, flush=True)
    diverged = train_in_a_process(script, flags, folder)
    metrics, state = read_json(folder / "metrics.json"), read_json(folder / "checkpoints" / "state.json")
    if metrics is None and not diverged:
        raise RowFailed(f"{folder} has no metrics.json")
    settings = row_settings(row, experiment, dataset.manifest["feature_provenance"])
    if metrics is not None and not are_same(trained_settings(metrics["model"], settings), settings):
        raise UserError(f"parameters.py was changed while {row.name} was trained: start again to train it as it is now")
    if metrics is not None and row.settings != "published" and script == "train":
        status = in_a_process(script, (*of_the_saved_model(flags), "--test_time_augmentation=yes"))
        if status != 0:
            raise RowFailed(f"exit status {status}")
    augmented = read_json(folder / "metrics_augmented.json")
    history = state["history"] if state else []
    commits = dict.fromkeys(name or "unknown" for name in (read_json(folder / STARTED), commit()))
    record = {
        **dict.fromkeys(results.COLUMNS, ""),
        **row.columns,
        **measured(metrics),
        **measured_with_augmentation(augmented),
        "epochs": str(len(history)) if script == "train" else "",
        **{column: str(dataset.counts[split]) for column, split in zip(results.COUNTS, SPLITS, strict=True)},
        "outcome": f"{results.DIVERGED} {len(history) + 1}" if diverged else results.FINISHED,
        "dataset": dataset.fingerprint[:FINGERPRINT],
        "versions": ", ".join(
            (f"python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES))
        ),
        "commit": " and ".join(commits),  # two if a stopped row was resumed with newer code
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    with whole_file(results.detail_path(experiment.results, row)) as temporary:
        content = {"command": line, "settings": settings, "record": record}
        content |= {"history": history, "metrics": metrics, "metrics_augmented": augmented}
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if metrics:
        predictions = comparison.predictions_of(load_model(folder / model_name(script)), dataset)
        comparison.write(predictions, results.predictions_path(experiment.results, row))
    if experiment.keep_models and metrics:
        os.replace(folder / model_name(script), experiment.work / f"{row.name}{Path(model_name(script)).suffix}")
    results.append(experiment.table, record)  # last, because this line makes the row finished
    tidy(row, experiment)
    return record


def tidy(row: Row, experiment: Experiment) -> None:
    """Deletes the temporary files of a finished row."""
    folder = experiment.folder(row)
    for path in (folder, aside(folder)):
        shutil.rmtree(path, ignore_errors=True)


def aside(folder: Path) -> Path:
    """The folder for a stopped training that cannot be resumed. It is kept until the row is finished."""
    return folder.with_name(f"{folder.name}.old")


def trained_settings(facts: dict[str, Any], settings: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The values at training time of the names in `settings`, from a saved model's facts."""
    found = {**facts, "svm": facts["settings"]} if "svm" in settings else facts
    return {part: {name: found.get(part, {}).get(name) for name in settings[part]} for part in settings}


def converted(row: Row, experiment: Experiment) -> Dataset:
    """The dataset of a row, with its labels and features; converts it if necessary.

    Raises UserError when the source is missing, cannot be converted, or lacks a split.
    """
    folder = experiment.faces(row)
    if not Path(experiment.input).exists():
        raise UserError(f"no FER2013 at {experiment.input}: put Kaggle's fer2013.csv there, or name it with --input")
    if not is_converted(folder, row, experiment.input):
        expressions = ",".join(map(str, row.expressions))
        flags = [f"--input={experiment.input}", f"--folder={folder}", f"--expressions={expressions}"]
        flags += [f"--features={row.features}"] if row.features in FURTHER else []
        if row.labels != "fer2013":
            if not Path(experiment.ferplus).exists():
                raise UserError(
                    f"no FER+ votes at {experiment.ferplus}: get them from {ferplus.ADDRESS}, or say --ferplus=PATH"
                )
            flags.append(f"--ferplus={experiment.ferplus}")
        if in_a_process("convert_fer2013_to_images_and_landmarks", flags) != 0:
            raise UserError(f"{experiment.input} could not be converted into {folder}, for the reason above")
    dataset = open_dataset(folder)
    if set(dataset.counts) != set(SPLITS):
        raise UserError(f"{experiment.input} lacks one of the splits {', '.join(SPLITS)}: the experiments need all")
    return dataset.labelled(row.labels)


def is_converted(folder: Path, row: Row, source: str) -> bool:
    """Whether `folder` has what the present code would convert `source` to for a row, with its features."""
    kind = row.features if row.features in FURTHER else INPUTS[-1]
    try:
        dataset = open_dataset(folder).labelled(row.labels)
        dataset.check(kind, len(row.expressions))
        for split in dataset.counts:
            dataset.load(split, kind)  # raises UserError if it is incomplete
    except UserError:
        return False
    known, path = dataset.feature_provenance(kind), parameters.DATASET.shape_predictor_path
    return (
        dataset.manifest["source"]["sha256"] == fer2013.hash_of(source)
        and dataset.expressions == tuple(EMOTIONS[label] for label in row.expressions)
        and known == features.provenance(kind, path, known)
    )


def check_dataset(dataset: Dataset, row: Row, experiment: Experiment) -> None:
    """Raises UserError when the results have rows with a row's expressions and labels from a different dataset."""
    records = results.select(results.read(experiment.table), expressions=row.expressions, labels=row.labels)
    if any(record["dataset"] != dataset.fingerprint[:FINGERPRINT] for record in records):
        raise UserError(
            f"{experiment.table} has rows of another dataset than {experiment.input}: name another --results"
        )


def command_of(row: Row, experiment: Experiment) -> tuple[str, tuple[str, ...]]:
    """The script that trains a row, and its flags."""
    folder = experiment.folder(row)
    flags = [f"--features={row.features}", f"--seed={row.seed}", f"--folder={experiment.faces(row)}"]
    flags.append(f"--labels={row.labels}")
    script = "experiments.train_svm" if row.model == "SVM" else "train"
    flags.append(f"--model_path={folder / model_name(script)}")
    if script == "train":
        flags += [
            "--train=yes",
            "--evaluate=yes",
            f"--model={row.model}",
            f"--settings={row.settings}",
            f"--batch_norm_conv={'yes' if row.batch_norm else 'no'}",
            f"--output_size={len(row.expressions)}",
            "--save_model=yes",
            "--test_time_augmentation=no",
            f"--checkpoint_folder={folder / 'checkpoints'}",
            f"--logs_folder={folder / 'logs'}",
        ]
    return script, (*flags, *experiment.flags.get(script, ()))


def of_the_saved_model(flags: Sequence[str]) -> tuple[str, ...]:
    """The flags that evaluate the model that `flags` trained."""
    return ("--train=no", *(flag for flag in flags if flag != "--train=yes"))


def model_name(script: str) -> str:
    return "svm.npz" if script == "experiments.train_svm" else "saved_model.bin"


def load_model(path: Path) -> Classifier:
    """The saved network or support vector machine."""
    return support_vector_machine.load(path) if path.suffix == ".npz" else saved_model.load(path)


def train_in_a_process(script: str, flags: Sequence[str], folder: Path) -> bool:
    """Trains and evaluates in `folder`, and resumes a stopped training there; returns whether the training diverged.

    If a network diverged after some epochs, its best epoch is evaluated. Raises RowFailed when the process fails.
    """
    status = None
    if (folder / "checkpoints" / "state.json").exists():
        status = in_a_process(script, (*flags, "--resume=yes"))
        if status == CannotResume.status:
            print(f"It cannot be resumed: it is kept in {aside(folder)} until the row is finished", flush=True)
            shutil.rmtree(aside(folder), ignore_errors=True)
            os.replace(folder, aside(folder))
            status = None
    if status is None:
        shutil.rmtree(folder, ignore_errors=True)  # it has no finished epoch
        with whole_file(folder / STARTED) as temporary:
            temporary.write_text(json.dumps(commit()), encoding="utf-8")
        status = in_a_process(script, flags)
    diverged = status == Diverged.status
    if diverged and (folder / model_name(script)).exists():
        status = in_a_process(script, of_the_saved_model(flags))
    if status != 0 and not (diverged and status == Diverged.status):
        raise RowFailed(f"exit status {status}")
    return diverged


def in_a_process(script: str, flags: Sequence[str]) -> int:
    """Runs one of the toolkit's scripts in a process that ends with this one, even after a kill; returns its status."""
    process = multiprocessing.get_context("spawn").Process(target=_run_script, args=(script, list(flags)))
    with uninterrupted():  # the new process inherits this, so it ignores Ctrl-C from its start
        process.start()
    try:
        process.join()
    finally:
        process.kill()  # after Ctrl-C: the last epoch is on disk, and the process may ignore other signals
        process.join()
    return process.exitcode if process.exitcode is not None else 1


def _run_script(script: str, flags: Sequence[str]) -> None:
    follow_parent()
    tqdm.set_lock(threading.RLock())  # the default lock is shared, and leaks when this process is killed
    sys.exit(importlib.import_module(script).main(flags))


def measured(metrics: dict | None) -> Record:
    """The results for a line of the results file, from the metrics of the evaluation; empty without metrics."""
    if metrics is None:
        return {}
    validation, test = (metrics["splits"][split] for split in EVALUATED)
    return {
        "validation_accuracy": f"{validation['accuracy']:.5f}",
        "test_accuracy": f"{test['accuracy']:.5f}",
        "test_accuracy_deduplicated": f"{test['deduplicated']['accuracy']:.5f}",
        "macro_f1": f"{test['macro_f1']:.5f}",
        "best_epoch": str(metrics["model"].get("best_epoch", "")),
        "seconds": f"{metrics['model']['seconds']:.0f}",
    }


def measured_with_augmentation(metrics: dict | None) -> Record:
    """The additional accuracies of a row that was also evaluated with test-time augmentation."""
    if metrics is None:
        return {}
    validation, test = (metrics["splits"][split]["accuracy"] for split in EVALUATED)
    return {"validation_accuracy_augmented": f"{validation:.5f}", "test_accuracy_augmented": f"{test:.5f}"}


def read_json(path: Path) -> Any:
    """The content of the file; None if there is no file."""
    return json.loads(read_text(path)) if path.exists() else None
