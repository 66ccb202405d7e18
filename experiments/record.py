"""Trains the most accurate single network: several teachers, then a student that learns from all of them.

    python -m experiments.record                    # from fer2013_features; a GPU is used if there is one
    python -m experiments.record --list
    python -m experiments.record --labels=ferplus   # the votes of FER+ in place of FER2013's labels
    python -m experiments.record --evaluate         # what every network reaches, and the teachers together

Needs PyTorch. Every network is chosen on PublicTest, and gets a row in results/record.csv. Its weights go into the work
folder. A stopped command goes on where it was. At last the student is saved as a model, which needs TensorFlow: without
it, the command ends before, and goes on elsewhere with the same work folder.
"""

if __name__ == "__main__":  # Ctrl-C ends the imports below without a traceback
    from ferkit.startup import begin

    begin()

import argparse
import csv
import dataclasses
import hashlib
import importlib.util
import io
import json
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import parameters
from ferkit.data.dataset import Dataset, Split, open_dataset
from ferkit.errors import UserError
from ferkit.files import check_writable, lock, open_file, read_text, whole_file
from ferkit.flags import Parser, add_flags, add_yes_no, local_path, override
from ferkit.learning.checkpoints import check_same
from ferkit.learning.configuration import training_settings
from ferkit.learning.evaluation import EVALUATED
from ferkit.learning.run import Run, State, check_engine, check_trainable
from ferkit.markdown import table
from ferkit.processes import command
from ferkit.provenance import commit
from ferkit.settings import with_values
from model import ARCHITECTURES

if TYPE_CHECKING:
    from ferkit.learning.pytorch import TorchNetwork

# What differs from the settings of Model D in parameters.py: larger batches keep a GPU busy.
LARGE_BATCHES: dict[str, Any] = {
    "engine": "pytorch",
    "batch_size": 256,
    "learning_rate": 0.1,
    "warmup_steps": 224,
    "ema_decay": 0.998,
}
VOTES: dict[str, Any] = {"labels": "ferplus", "label_smoothing": 0.0, "blur": 0.2, "jpeg": 0.2, "darkness": 0.1}
COLUMNS = (
    "name", "labels", "model", "seed", "teachers", "epochs", "best_epoch", "seconds", "device", "commit", "public_test"
)  # fmt: skip
CURE = "delete it or name another --work"


@dataclass(frozen=True)
class Planned:
    """A network of the plan. settings: what differs from its own settings. teachers: names of networks before it."""

    name: str
    model: str
    seed: int
    epochs: int
    teachers: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def run(self, dataset: Dataset, labels: str) -> Run:
        """The training of this network. Raises UserError for a dataset without these labels."""
        values = {**LARGE_BATCHES, **(VOTES if labels == "ferplus" else {}), **self.settings}
        values |= {"seed": self.seed, "epochs": self.epochs, "labels": labels}
        if self.teachers:
            values |= {"teacher": ""}  # no saved model
        groups: list[Any] = []
        for group in training_settings(argparse.Namespace(model=self.model), parameters, ARCHITECTURES):
            names = {item.name for item in dataclasses.fields(group)}
            own = {name: value for name, value in values.items() if name in names}
            groups.append(with_values(group, own, "the plan"))
        network, hyperparams, training, augmentation = groups
        return Run(
            dataset.labelled(labels), ARCHITECTURES[self.model], network, hyperparams, training, augmentation,
            own_teachers=bool(self.teachers),
        )  # fmt: skip


def teachers_of_model_d(seeds: Sequence[int], epochs: int) -> tuple[Planned, ...]:
    return tuple(Planned(f"teacher-{seed}", "D", seed, epochs) for seed in seeds)


def with_student(teachers: tuple[Planned, ...], model: str, epochs: int, share: float) -> tuple[Planned, ...]:
    names = tuple(teacher.name for teacher in teachers)
    return (*teachers, Planned("student", model, 0, epochs, names, {"teacher_share": share}))


PLANS = {  # by the labels; the student is the last
    "fer2013": with_student(teachers_of_model_d((1, 2, 3), 55), "D", 90, share=0.8),
    "ferplus": with_student(teachers_of_model_d((1, 2), 30), "C", 50, share=0.5),
}


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    labels = override(parameters.TRAINING, arguments).labels
    work = Path(arguments.work or "record_work") / labels
    if arguments.list:
        for planned in PLANS[labels]:
            done = (work / f"{planned.name}.npz").is_file()
            print(f"{planned.name:<10} Model {planned.model}, {planned.epochs} epochs: {'done' if done else 'missing'}")
        return 0
    dataset = open_dataset(override(parameters.DATASET, arguments).folder)
    if arguments.evaluate:
        print(evaluation(dataset, labels, work))
        return 0
    table = Path(arguments.results or "results") / "record.csv"
    rows_of(table)  # tells what is wrong with it before all the trainings
    check_writable(table.parent)
    for planned in PLANS[labels]:
        check_trainable(planned.run(dataset, labels))
    work.mkdir(parents=True, exist_ok=True)
    with lock(work / "record") as locked:
        if not locked:
            raise UserError(f"another process trains in {work}: name another --work, or wait for it")
        for planned in PLANS[labels]:
            if not (work / f"{planned.name}.npz").is_file():
                train(planned, dataset, labels, work)
            add_row(table, finished(planned, dataset, labels, work).row)
        save_student(dataset, labels, work)
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line of this script."""
    parser = Parser(
        prog="python -m experiments.record",
        description="Train several teachers and a student of all of them, with PyTorch; save the student.",
    )
    add_yes_no(parser, "--list", default=False, help="list the networks, and which are trained")
    help = "print what the trained networks reach, as they would be saved"
    add_yes_no(parser, "--evaluate", default=False, help=help)
    add_flags(parser, parameters.DATASET, "folder")
    add_flags(parser, parameters.TRAINING, "labels", choices={"labels": PLANS})
    parser.add_argument(
        "--work", type=local_path, metavar="PATH", help="folder of the networks and the model (default: record_work)"
    )
    parser.add_argument("--results", type=local_path, metavar="PATH", help="folder of record.csv (default: results)")
    return parser


def train(planned: Planned, dataset: Dataset, labels: str, work: Path) -> None:
    """Trains a network of the plan, and writes its weights with its row. Raises UserError without PyTorch."""
    run = planned.run(dataset, labels)
    check_engine(run.training)
    from ferkit.learning import pytorch  # after it is known to be there

    learn, validation = run.dataset.load("Training", "none"), run.dataset.load("PublicTest", "none")
    teachers = [trained(name, dataset, labels, work, learn) for name in planned.teachers]
    taught_by = digest_of_teachers(planned, work)
    suffix = f"-{taught_by[:8]}" if taught_by else ""
    checkpoint = work / f"{planned.name}{suffix}.pt"  # other teachers begin another training
    print(f"Training {planned.name}: {planned.epochs} epochs", flush=True)
    training = pytorch.TorchTraining(run, learn, validation, checkpoint, checkpoint.is_file(), teachers, CURE)
    state = training.fit()
    row = {
        "name": planned.name,
        "labels": labels,
        "model": planned.model,
        "seed": planned.seed,
        "teachers": " ".join(planned.teachers),
        "epochs": planned.epochs,
        "best_epoch": int(state.best["epoch"]),
        "seconds": round(sum(epoch["seconds"] for epoch in state.history)),
        "device": pytorch.device_name(),
        "commit": commit() or "",
        "public_test": round(state.best["validation_accuracy"], 5),
    }
    arrays: dict[str, Any] = {"state": json.dumps(dataclasses.asdict(state)), "row": json.dumps(row)}
    arrays["taught_by"] = taught_by
    arrays |= {name: array.astype(np.float16) for name, array in pytorch.weights_of(training.best).items()}
    with whole_file(work / f"{planned.name}.npz") as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
    checkpoint.unlink()


def trained(name: str, dataset: Dataset, labels: str, work: Path, learn: Split) -> "TorchNetwork":
    """The network of the plan with this name, as it was trained, ready to be asked."""
    from ferkit.learning import pytorch
    from ferkit.learning.scaling import Scaling

    planned = next(planned for planned in PLANS[labels] if planned.name == name)
    network = pytorch.TorchNetwork(planned.run(dataset, labels), Scaling.of(learn.images, learn.features))
    pytorch.set_weights(network, finished(planned, dataset, labels, work).weights)
    return network.to(pytorch.best_device()).eval().requires_grad_(False)


class Trained(NamedTuple):
    """A trained network of the plan."""

    weights: dict[str, np.ndarray]  # by the names of the TensorFlow graph
    state: State
    row: dict[str, Any]
    taught_by: str  # digest_of_teachers; empty in files of earlier versions

    @property
    def digest(self) -> str:
        return hashlib.sha256(b"".join(array.tobytes() for array in self.weights.values())).hexdigest()


def as_trained(run: Run, state: State) -> Run:
    """The run with the precision that its network was trained in, perhaps on another machine."""
    bfloat16 = "yes" if state.settings.get("bfloat16") else "no"
    return dataclasses.replace(run, training=dataclasses.replace(run.training, bfloat16=bfloat16))


def finished(planned: Planned, dataset: Dataset, labels: str, work: Path) -> Trained:
    """A trained network of the plan. Raises UserError when its file has another one, or is damaged."""
    path = work / f"{planned.name}.npz"
    network = read(path)
    check_same(as_trained(planned.run(dataset, labels), network.state), network.state, path, CURE)
    if network.taught_by not in ("", digest_of_teachers(planned, work)):
        raise UserError(f"the network in {path} has learned from other teachers than those beside it: {CURE}")
    return network


def digest_of_teachers(planned: Planned, work: Path) -> str:
    """Identifies the weights of the teachers of a network; empty without teachers."""
    digests = "".join(read(work / f"{name}.npz").digest for name in planned.teachers)
    return hashlib.sha256(digests.encode()).hexdigest() if digests else ""


def read(path: Path) -> Trained:
    """The network in a file of the work folder. Raises UserError for any other file."""
    try:
        with open_file(path) as file, np.load(file, allow_pickle=False) as arrays:
            weights = {name: arrays[name].astype(np.float32) for name in arrays if name.startswith("network/")}
            taught_by = str(arrays["taught_by"]) if "taught_by" in arrays else ""
            return Trained(
                weights, State(**json.loads(str(arrays["state"]))), json.loads(str(arrays["row"])), taught_by
            )
    except (ValueError, zipfile.BadZipFile, AttributeError, TypeError, KeyError) as error:
        raise UserError(f"{path} holds no trained network: {CURE}") from error


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of the table; none if there is no file. Raises UserError for another file."""
    try:
        table = csv.DictReader(io.StringIO(read_text(path), newline=""))
        rows = list(table)
    except FileNotFoundError:
        return []
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no table of trainings: name another --results") from error
    if tuple(table.fieldnames or ()) != COLUMNS or any(None in row or None in row.values() for row in rows):
        raise UserError(f"{path} has other columns than {', '.join(COLUMNS)}: name another --results")
    return rows


def add_row(path: Path, row: Mapping[str, Any]) -> None:
    """Adds a row to the table, in place of one with the same name, labels and commit."""
    key = [str(row[name]) for name in ("name", "labels", "commit")]
    rows = [old for old in rows_of(path) if [old[name] for name in ("name", "labels", "commit")] != key]
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as table:
        writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*rows, row])


def evaluation(dataset: Dataset, labels: str, work: Path) -> str:
    """A table of what every trained network reaches with 8-bit weights, and the teachers together."""
    from ferkit.learning.graph import inference_flatbuffer
    from ferkit.learning.scaling import Scaling
    from ferkit.saved_model import SavedModel

    plan = [planned for planned in PLANS[labels] if (work / f"{planned.name}.npz").is_file()]
    if not plan:
        raise UserError(f"no network is trained in {work} yet")
    labelled = dataset.labelled(labels)
    learn = labelled.load("Training", "none")
    scaling = Scaling.of(learn.images, learn.features)
    facts = {"expressions": list(dataset.expressions), "features": "none", "feature_provenance": {}}
    splits = {name: labelled.load(name, "none") for name in EVALUATED}
    answers: dict[str, list[np.ndarray]] = {}
    for planned in plan:
        run = planned.run(dataset, labels)
        found = finished(planned, dataset, labels, work).weights
        model = SavedModel(inference_flatbuffer(found, run.network, run.architecture, scaling, quantize=True), facts)
        answers[planned.name] = [
            model.predict(split.images, split.features, augmented)
            for split in splits.values()
            for augmented in (False, True)
        ]
    if teachers := [answers[name] for name in PLANS[labels][-1].teachers if name in answers]:
        answers["the teachers, averaged"] = [np.mean(views, axis=0) for views in zip(*teachers, strict=True)]
    truths = [split.labels for split in splits.values() for _ in range(2)]
    header = ["", *(cell for name in splits for cell in (name, "with test-time augmentation"))]
    rows = []
    for name, views in answers.items():
        right = [(view.argmax(axis=1) == truth).mean() for view, truth in zip(views, truths, strict=True)]
        rows.append([name, *(f"{share:.1%}" for share in right)])
    return table(header, rows)


def save_student(dataset: Dataset, labels: str, work: Path) -> None:
    """Saves the last network of the plan as a model. Raises UserError without TensorFlow."""
    if importlib.util.find_spec("tensorflow") is None:  # it is not on every machine with a GPU
        raise UserError(
            f"the networks are trained; saving the model needs TensorFlow: repeat this where it is, with {work}"
        )
    from ferkit.learning.plots import draw_learning_curve
    from ferkit.learning.sampling import frequencies
    from ferkit.learning.scaling import Scaling
    from ferkit.learning.training import save

    planned = PLANS[labels][-1]
    student = finished(planned, dataset, labels, work)
    teachers = [read(work / f"{name}.npz").row for name in planned.teachers]
    run = as_trained(planned.run(dataset, labels), student.state)
    place = work / "saved_model.bin"
    run = dataclasses.replace(run, training=dataclasses.replace(run.training, save_model_path=str(place)))
    learn, validation = run.dataset.load("Training", "none"), run.dataset.load("PublicTest", "none")
    shares, scaling = frequencies(learn, run.network.output_size), Scaling.of(learn.images, learn.features)
    facts = {"student": student.row, "teachers": teachers}
    save(run, student.state, student.weights, scaling, validation, shares, facts)
    draw_learning_curve(student.state.history, work / "learning_curve.png")


if __name__ == "__main__":
    sys.exit(main())
