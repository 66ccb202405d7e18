"""Trains a network on the converted dataset, and evaluates the saved model.

    python train.py --train=yes
    python train.py --train=yes --evaluate=yes --model=A --features=landmarks
    python train.py --evaluate=yes

After each epoch the network is validated on PublicTest and a checkpoint is written; the best epoch becomes the saved
model. `--resume=yes` goes on after an interruption.
"""

import argparse
import contextlib
import dataclasses
import functools
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm import tqdm

import evaluation
import saved_model
from augmentation import augment
from command_line import (
    UserError,
    add_flags,
    add_yes_no,
    check_asked,
    command,
    in_short,
    override,
    read_settings,
    shown,
    with_values,
)
from data_loader import Dataset, Split, open_dataset
from files import lock, whole_file
from parameters import (
    AUGMENTATION,
    DATASET,
    HYPERPARAMS,
    NETWORK,
    OWN_SETTINGS,
    PUBLISHED_MODELS,
    TAUGHT_SETTINGS,
    TRAINING,
    VIDEO_PREDICTOR,
    Augmentation,
    Hyperparams,
    Network,
    Training,
)
from teacher import Teacher, find

if TYPE_CHECKING:  # imported by the functions that train: evaluation needs no TensorFlow, and is quicker without
    from model import Scaling, TrainingGraph

VALIDATION_BATCH = 256
LATER = {"teacher_share": 0.0}  # settings that did not exist in earlier trainings, with what these amounted to


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    arguments = parser.parse_args(argv)
    if not arguments.train and not arguments.evaluate:
        parser.error("nothing to do: say --train=yes, --evaluate=yes or both")
    if arguments.resume and not arguments.train:
        parser.error("--resume=yes goes on with a training: say --train=yes too")
    network, hyperparams, training, augmentation = settings_of(arguments)
    folder = override(DATASET, arguments).folder
    check_settings(network, hyperparams, training, augmentation)
    if arguments.train and arguments.evaluate and not training.save_model:
        raise UserError("evaluation needs the saved model: set TRAINING.save_model to True, or use --save_model=yes")
    if arguments.train:
        check_places(training)
        check_teacher(hyperparams, training)
    dataset = open_dataset(folder)
    if arguments.evaluate:
        evaluation.check_splits(dataset)
    if arguments.train:
        train(Run(dataset, network, hyperparams, training, augmentation), resume=arguments.resume)
    if arguments.evaluate:
        path = Path(training.save_model_path)
        model = saved_model.load(path)
        check_asked(path, model.facts["network"], arguments, "model", "features")
        augmented = override(VIDEO_PREDICTOR, arguments).test_time_augmentation
        evaluation.evaluate_and_write(model, dataset, path.parent, augmented)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train a network on the converted dataset; evaluate the saved model.")
    add_yes_no(parser, "--train", default=False, help="train")
    add_yes_no(parser, "--evaluate", default=False, help="evaluate the saved model")
    add_yes_no(parser, "--resume", default=False, help="go on from the last finished epoch")
    parser.add_argument("--hyperparams", metavar="FILE", help="hyperparameters as optimize_hyperparams.py writes them")
    for settings in (NETWORK, HYPERPARAMS, AUGMENTATION, TRAINING):
        group = parser.add_argument_group(type(settings).__name__.lower())
        add_flags(group, settings, *(field.name for field in dataclasses.fields(settings)))
    add_flags(parser.add_argument_group("dataset"), DATASET, "folder")
    add_flags(parser.add_argument_group("evaluation"), VIDEO_PREDICTOR, "test_time_augmentation")
    return parser


def settings_of(arguments: argparse.Namespace) -> tuple[Network, Hyperparams, Training, Augmentation]:
    """The settings of parameters.py, replaced by the model's own, the file's of --hyperparams, and the given flags.

    Raises UserError when settings are asked for that the model has not, and for values that do not fit.
    """
    file = getattr(arguments, "hyperparams", None)
    model = arguments.model or NETWORK.model
    wanted = getattr(arguments, "settings", None)
    if wanted not in (None, "ours") and model not in PUBLISHED_MODELS:
        raise UserError(f"Model {model} has no {wanted} settings: leave out --settings={wanted}")
    whose = wanted or TRAINING.settings if model in PUBLISHED_MODELS else "ours"
    own = {f"OWN_SETTINGS of Model {model}": OWN_SETTINGS[model]} if whose != "published" else {}
    own |= {"TAUGHT_SETTINGS": TAUGHT_SETTINGS} if whose == "taught" else {}
    replaced, known = [], set()
    for settings in (NETWORK, HYPERPARAMS, TRAINING, AUGMENTATION):
        names = {field.name for field in dataclasses.fields(settings)}
        for source, values in own.items():
            settings = with_values(settings, {name: values[name] for name in names & values.keys()}, source)
        if file is not None and isinstance(settings, Hyperparams):
            settings = read_settings(settings, file)
        replaced.append(override(settings, arguments))
        known |= names
    for source, values in own.items():
        if unknown := values.keys() - known:
            raise UserError(f"{source} has '{min(unknown)}', which is no setting of a training")
    return tuple(replaced)


def check_settings(network: Network, hyperparams: Hyperparams, training: Training, augmentation: Augmentation) -> None:
    """Raises UserError for a value that no training can use."""
    for settings, name, valid, wanted in (
        (network, "output_size", network.output_size >= 2, "2 or more"),
        (hyperparams, "learning_rate", 0 < hyperparams.learning_rate < math.inf, "above 0"),
        (hyperparams, "learning_rate_decay", 0 < hyperparams.learning_rate_decay <= 1, "above 0, at most 1"),
        (hyperparams, "decay_step", hyperparams.decay_step >= 1, "1 or more"),
        (hyperparams, "optimizer_param", 0 <= hyperparams.optimizer_param < 1, "0 or more, below 1"),
        (hyperparams, "keep_prob", 0 < hyperparams.keep_prob <= 1, "above 0, at most 1"),
        (hyperparams, "warmup_steps", hyperparams.warmup_steps >= 0, "0 or more"),
        (hyperparams, "weight_decay", 0 <= hyperparams.weight_decay < math.inf, "0 or more"),
        (hyperparams, "label_smoothing", 0 <= hyperparams.label_smoothing < 1, "0 or more, below 1"),
        (hyperparams, "teacher_share", 0 <= hyperparams.teacher_share <= 1, "from 0 to 1"),
        (hyperparams, "mixup", 0 <= hyperparams.mixup < math.inf, "0 or more"),
        (hyperparams, "weight_averaging", 0 <= hyperparams.weight_averaging < 1, "0 or more, below 1"),
        (hyperparams, "batch_size", hyperparams.batch_size >= 2, "2 or more"),
        (augmentation, "shift", 0 <= augmentation.shift <= 0.5, "from 0 to 0.5"),
        (augmentation, "zoom", 0 <= augmentation.zoom <= 1, "from 0 to 1"),
        (augmentation, "rotation", 0 <= augmentation.rotation <= 180, "from 0 to 180"),
        (augmentation, "contrast", 0 <= augmentation.contrast <= 1, "from 0 to 1"),
        (augmentation, "brightness", 0 <= augmentation.brightness <= 1, "from 0 to 1"),
        (augmentation, "erasing", 0 <= augmentation.erasing <= 1, "from 0 to 1"),
        (training, "epochs", training.epochs >= 1, "1 or more"),
        (training, "seed", 0 <= training.seed < 2**31, "0 or more, below 2³¹"),
    ):
        if not valid:
            raise UserError(f"{name} is {getattr(settings, name)}: it must be {wanted}")


def check_places(training: Training) -> None:
    """Raises UserError where something could not be written after hours of training."""
    if Path(training.save_model_path).is_dir():
        raise UserError(
            f"{training.save_model_path} is a folder: the saved model is a file, set TRAINING.save_model_path"
        )
    path = Path(training.save_model_path)
    saved_model.check_replaced(path)
    for place in (path.parent, Path(training.checkpoint_folder), Path(training.logs_folder)):
        check_writable(place)


def check_teacher(hyperparams: Hyperparams, training: Training) -> None:
    """Raises UserError when the saved model would replace its teacher, which a resumption needs."""
    place, teacher = Path(training.save_model_path), Path(find(hyperparams.teacher))
    saved = hyperparams.teacher_share > 0 and training.save_model
    if saved and place.exists() and teacher.exists() and place.samefile(teacher):
        raise UserError(f"the teacher {teacher} would be replaced: name another --save_model_path")


def check_writable(folder: Path) -> None:
    """Raises UserError when nothing can be written to `folder`, which need not be there yet."""
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"nothing can be written to {folder}: name another place, as --help says")


# --- training --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Run:
    """All that decides a training."""

    dataset: Dataset
    network: Network
    hyperparams: Hyperparams
    training: Training
    augmentation: Augmentation = AUGMENTATION

    @property
    def steps_per_epoch(self) -> int:
        return max(1, self.dataset.counts["Training"] // self.hyperparams.batch_size)

    @property
    def steps(self) -> int:
        return self.training.epochs * self.steps_per_epoch

    @functools.cached_property
    def teacher(self) -> Teacher | None:
        """What is learned beside the labels, loaded when first asked for. Raises UserError when it cannot be used."""
        if not self.hyperparams.teacher_share:
            return None
        teacher = Teacher(self.hyperparams.teacher, self.dataset.expressions, self.network.features)
        if any(self.dataset.recipes(self.network.features)[name] != recipe for name, recipe in teacher.recipes.items()):
            raise UserError(
                f"{self.dataset.folder} has features computed otherwise than the teacher's (another landmark "
                "predictor?): convert again, or name another --teacher"
            )
        return teacher

    @property
    def teacher_facts(self) -> dict[str, dict[str, Any]]:
        """What tells the teacher from others, under its name; nothing without one."""
        return {"teacher": self.teacher.facts} if self.teacher else {}

    def resumable(self) -> dict[str, Any]:
        """What must not change between a training and its resumption; epochs only in a cosine."""
        hyperparams = dataclasses.asdict(self.hyperparams)
        del hyperparams["teacher"]  # wherever it lies, so long as it is the same
        return {
            **dataclasses.asdict(self.network),
            **hyperparams,
            **dataclasses.asdict(self.augmentation),
            **({"epochs": self.training.epochs} if self.hyperparams.schedule == "cosine" else {}),
            "seed": self.training.seed,
            "bfloat16": uses_bfloat16(self.training),
            "dataset": self.dataset.fingerprint,
            "recipes": self.dataset.recipes(self.network.features),
            **self.teacher_facts,
        }


@dataclasses.dataclass
class State:
    """How far a training has come; written after each epoch's checkpoint."""

    settings: dict[str, Any]  # Run.resumable()
    log: str  # name of the log's folder
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)  # one row an epoch

    @property
    def best(self) -> dict[str, float]:
        """The epoch of the highest validation accuracy, the first of equals; without validation, the last epoch."""
        if math.isnan(self.history[-1]["validation_accuracy"]):
            return self.history[-1]
        return max(self.history, key=lambda row: row["validation_accuracy"])


class Diverged(UserError):
    """The loss is no number any more."""

    status = 3  # an outcome to report, unlike a mistake to mend


class CannotResume(UserError):
    """There is nothing to go on from: nothing at all, of another training, or damaged."""

    status = 4  # for those who start anew then


def check_steps(run: Run) -> None:
    """Raises UserError when the warm-up would not end within the training."""
    if run.hyperparams.warmup_steps > run.steps:
        raise UserError(
            f"warmup_steps is {run.hyperparams.warmup_steps}, but the training has only {run.steps} steps: "
            "use fewer --warmup_steps, or more --epochs"
        )


def train(run: Run, resume: bool = False, after_epoch: Callable[[State], None] | None = None) -> State:
    """Trains a network and saves the best epoch's; on Ctrl-C or divergence, the best of the finished epochs'.

    after_epoch: told of each finished epoch.
    Raises UserError when the dataset does not fit the network, when there is nothing to resume or it was another
    training, when another process trains in the same checkpoint folder, and when the loss is no number any more.
    """
    run.dataset.check(run.network.features, run.network.output_size)
    check_steps(run)
    learn = run.dataset.load("Training", run.network.features)
    has_validation = "PublicTest" in run.dataset.counts
    validation = run.dataset.load("PublicTest", run.network.features) if has_validation else None
    checkpoints = Checkpoints(Path(run.training.checkpoint_folder))
    with checkpoints.alone():
        state = checkpoints.read(run) if resume else State(run.resumable(), log_name(run.network))
        return _train(run, state, checkpoints, learn, validation, after_epoch)


def _train(
    run: Run,
    state: State,
    checkpoints: "Checkpoints",
    learn: Split,
    validation: Split | None,
    after_epoch: Callable[[State], None] | None,
) -> State:
    """What `train` does once the checkpoint folder is its own."""
    from model import Scaling, TrainingGraph

    scaling = Scaling.of(learn.images, learn.features) if run.network.standardize else None
    graph = TrainingGraph(run.network, run.hyperparams, scaling, run.training.seed, run.steps)
    with graph.session(uses_bfloat16(run.training)) as session:
        if state.history:
            checkpoints.restore(graph, session, state)
            left = run.training.epochs - len(state.history)
            print(f"Resuming after epoch {len(state.history)}, {left} left to train")
        faces = f"{len(learn)} faces of {len(run.dataset.expressions)} expressions"
        print(f"Training model {run.network.model} on {faces}, features: {run.network.features}")
        if validation is None:
            print("No PublicTest split to choose an epoch by: the last epoch is kept")
        try:
            for epoch in range(len(state.history) + 1, run.training.epochs + 1):
                row = train_epoch(run, graph, session, learn, validation, epoch)
                longer = dataclasses.replace(state, history=[*state.history, row])
                checkpoints.write(graph, session, longer)
                state = longer  # only now: an epoch counts once its weights are on disk
                checkpoints.tidy(state)
                write_logs(Path(run.training.logs_folder) / state.log, state)
                if after_epoch is not None:
                    after_epoch(state)
        except (KeyboardInterrupt, Diverged):
            if state.history and run.training.save_model:
                print(f"\nStopped: keeping the best of the {len(state.history)} finished epochs", file=sys.stderr)
                save(run, state, checkpoints, scaling, validation)
            raise
    if run.training.save_model:
        save(run, state, checkpoints, scaling, validation)
    evaluation.draw_learning_curve(state.history, Path(run.training.logs_folder) / state.log / "learning_curve.png")
    return state


def train_epoch(
    run: Run, graph: "TrainingGraph", session: Any, learn: Split, validation: Split | None, epoch: int
) -> dict[str, float]:
    """One pass over the training set and one over the validation set; returns the history's row."""
    started = time.perf_counter()
    loss_sum = accuracy_sum = 0.0
    name = f"Epoch {epoch}/{run.training.epochs}"
    with tqdm(batches(run, learn, epoch), desc=name, total=run.steps_per_epoch, unit="step") as progress:
        for count, (batch, taught) in enumerate(progress, 1):
            feed = {graph.images: batch.images, graph.features: batch.features, graph.labels: batch.labels}
            if taught is not None:
                feed[graph.taught] = taught
            _, loss, accuracy = session.run([graph.train, graph.loss, graph.accuracy], feed)
            if not math.isfinite(loss):
                raise Diverged(f"the loss became {loss} in epoch {epoch}: try a lower --learning_rate")
            loss_sum += float(loss)
            accuracy_sum += float(accuracy)
            progress.set_postfix(loss=f"{loss_sum / count:.3f}", accuracy=f"{accuracy_sum / count:.1%}")
    validated = math.nan if validation is None else validate(graph, session, validation)
    feed = {graph.images: learn.images[:VALIDATION_BATCH], graph.features: learn.features[:VALIDATION_BATCH]}
    if not np.isfinite(session.run(graph.logits, feed)).all():  # a loss is of the weights before its step
        raise Diverged(f"the weights are no numbers after epoch {epoch}: try a lower --learning_rate")
    if validation is not None:
        print(f"Epoch {epoch}: validation accuracy {validated:.1%}", flush=True)
    return {
        "epoch": epoch,
        "loss": loss_sum / run.steps_per_epoch,
        "accuracy": accuracy_sum / run.steps_per_epoch,
        "validation_accuracy": validated,
        "seconds": time.perf_counter() - started,
    }


def batches(run: Run, learn: Split, epoch: int) -> Iterator[tuple[Split, np.ndarray | None]]:
    """The faces of each step, changed at random, and what the teacher makes of them where there is one.

    Made while the step before is computed; from seed and epoch alone.
    """
    rows = shuffled_batches(len(learn), run.hyperparams.batch_size, run.training.seed, epoch)

    def batch(step: int) -> tuple[Split, np.ndarray | None]:
        random = np.random.default_rng((run.training.seed, epoch, step))
        images, vectors = learn.images[rows[step]], learn.features[rows[step]]
        images, vectors = augment(images, vectors, run.network.features, run.augmentation, random)
        taught = run.teacher.probabilities(images, vectors) if run.teacher else None
        return Split(images, vectors, learn.labels[rows[step]]), taught

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(batch, 0)
        for step in range(len(rows)):
            ready = ahead.result()
            if step + 1 < len(rows):
                ahead = pool.submit(batch, step + 1)
            yield ready


def shuffled_batches(count: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The rows of each step, from `seed` and `epoch` alone. What does not fill a batch sits this epoch out."""
    order = np.random.default_rng((seed, epoch)).permutation(count)
    steps = max(1, count // batch_size)
    return [order[step * batch_size : (step + 1) * batch_size] for step in range(steps)]


def validate(graph: "TrainingGraph", session: Any, split: Split) -> float:
    """Accuracy of the network as it is now."""
    hits = 0
    for start in range(0, len(split), VALIDATION_BATCH):
        rows = slice(start, start + VALIDATION_BATCH)
        feed = {graph.images: split.images[rows], graph.features: split.features[rows]}
        hits += int((session.run(graph.predictions, feed) == split.labels[rows]).sum())
    return hits / len(split)


def uses_bfloat16(training: Training) -> bool:
    """The setting; "auto" is yes where the CPU multiplies bf16 itself, as elsewhere it would be slower than fp32."""
    if training.bfloat16 != "auto":
        return training.bfloat16 == "yes"
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


# --- what a training leaves on disk ----------------------------------------------------------------------------------


class Checkpoints:
    """The folder that a training is resumed from: the last and the best epoch's weights, and the state.

    The state is written last and names the epochs, so that a kill at any moment leaves a whole earlier state.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.state_path = folder / "state.json"

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps other trainings out of the folder, as each would delete the other's weights. Raises UserError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with lock(self.state_path) as locked:
            if not locked:
                raise UserError(
                    f"another training uses {self.folder}: name another --checkpoint_folder, or wait for it"
                )
            yield

    def weights(self, state: State, epoch: float) -> Path:
        """Where an epoch's weights are; another training's never have the same name."""
        return self.folder / f"{state.log}_epoch-{int(epoch)}"

    def write(self, graph: "TrainingGraph", session: Any, state: State) -> None:
        epoch = state.history[-1]["epoch"]
        try:
            graph.saver.save(session, str(self.weights(state, epoch)), write_meta_graph=False, write_state=False)
        except Exception as error:  # TensorFlow's errors are none of the system's; a full disk is the likely one
            raise UserError(f"no checkpoint could be written to {self.folder}: {str(error).splitlines()[0]}") from error
        with whole_file(self.state_path) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(state), indent=2) + "\n", encoding="utf-8")

    def tidy(self, state: State) -> None:
        """Deletes all weights but the last and the best epoch's, those of an earlier training too."""
        kept = {self.weights(state, row["epoch"]).name for row in (state.history[-1], state.best)}
        for file in self.folder.glob("*_epoch-*.*"):
            if file.name.split(".")[0] not in kept:
                file.unlink()

    def read(self, run: Run) -> State:
        """The state to resume `run` from. Raises CannotResume when there is none or it is another training's."""
        settings = run.resumable()
        try:
            state = State(**json.loads(self.state_path.read_text(encoding="utf-8")))
            epochs = [row["epoch"] for row in (state.best, state.history[-1])]
            whole = isinstance(state.settings, dict) and isinstance(state.log, str)
        except FileNotFoundError as error:
            raise CannotResume(f"nothing to resume in {self.folder}: leave out --resume=yes") from error
        except (OSError, MemoryError):  # which tell nothing of the training
            raise
        except Exception as error:  # whatever somebody wrote into it
            raise CannotResume(f"{self.state_path} is damaged ({in_short(error)}): leave out --resume=yes") from error
        if not whole or not all(self.weights(state, epoch).with_suffix(".index").is_file() for epoch in epochs):
            raise CannotResume(f"{self.folder} is missing or damaged in part: leave out --resume=yes")
        for name in {**settings, **state.settings}:
            was, now = state.settings.get(name, LATER.get(name)), settings.get(name)
            if was != now and name in ("dataset", "recipes"):
                raise CannotResume(f"the training in {self.folder} is of another dataset: leave out --resume=yes")
            if was != now:
                raise CannotResume(
                    f"the training in {self.folder} has {name}={shown(was)}, not {shown(now)}: use that, or leave out "
                    "--resume=yes"
                )
        if len(state.history) > run.training.epochs:
            raise CannotResume(
                f"the training in {self.folder} has {len(state.history)} epochs already, more than "
                f"{run.training.epochs}: use --epochs={len(state.history)}, or leave out --resume=yes"
            )
        return state

    def restore(self, graph: "TrainingGraph", session: Any, state: State) -> None:
        from tflearn_compat import tf

        path = self.weights(state, state.history[-1]["epoch"])
        try:
            graph.saver.restore(session, str(path))
        except (tf.errors.ResourceExhaustedError, MemoryError) as error:
            raise UserError(f"no memory for {path}: end other programs, and resume again") from error
        except Exception as error:  # TensorFlow's errors share no narrower class
            raise CannotResume(f"{path} is missing or damaged: leave out --resume=yes") from error


def log_name(network: Network) -> str:
    return f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{network.model}_{network.features}"


def write_logs(folder: Path, state: State) -> None:
    """The history as `history.csv`, and its last row for TensorBoard."""
    from tflearn_compat import tf

    history = pd.DataFrame(state.history).astype({"epoch": int})
    with whole_file(folder / "history.csv") as temporary:
        history.to_csv(temporary, index=False)
    row = state.history[-1]
    values = [tf.Summary.Value(tag=tag, simple_value=value) for tag, value in row.items() if tag != "epoch"]
    with tf.summary.FileWriter(str(folder), filename_suffix=f".epoch-{int(row['epoch'])}") as writer:
        writer.add_summary(tf.Summary(value=values), int(row["epoch"]))


def save(run: Run, state: State, checkpoints: Checkpoints, scaling: "Scaling | None", validation: Split | None) -> None:
    """Writes the best epoch's network with its facts to the saved model."""
    from model import inference_flatbuffer

    epoch, facts = int(state.best["epoch"]), facts_of(run, state)
    weights = str(checkpoints.weights(state, epoch))
    averaged = run.hyperparams.weight_averaging > 0
    flatbuffer = inference_flatbuffer(weights, run.network, scaling, averaged)
    accuracy = accuracy_of(flatbuffer, facts, validation)
    if run.training.quantize:
        facts["validation_accuracy_unquantized"] = accuracy
        flatbuffer = inference_flatbuffer(weights, run.network, scaling, averaged, quantize=True)
        accuracy = accuracy_of(flatbuffer, facts, validation)
        if accuracy is not None:
            before = facts["validation_accuracy_unquantized"]
            print(f"8-bit weights: validation accuracy {accuracy:.2%}, with 32-bit weights {before:.2%}")
    smoothing = run.hyperparams.label_smoothing * (1 - run.hyperparams.teacher_share)  # a teacher's are not smoothed
    facts |= calibration_of(flatbuffer, facts, validation, smoothing)
    path = run.training.save_model_path
    saved_model.save(path, flatbuffer, {**facts, "validation_accuracy": accuracy})
    reached = "" if accuracy is None else f", validation accuracy {accuracy:.1%}"
    print(f"Saved epoch {epoch}{reached}: {path} ({len(flatbuffer) / 1e6:.0f} MB)")


def facts_of(run: Run, state: State) -> dict[str, Any]:
    """What the saved model carries besides its network: how to use it, and how it came about."""
    return {
        "expressions": list(run.dataset.expressions),
        "features": run.network.features,
        "recipes": run.dataset.recipes(run.network.features),
        "network": dataclasses.asdict(run.network),
        "hyperparams": dataclasses.asdict(run.hyperparams),
        "augmentation": dataclasses.asdict(run.augmentation),
        "training": dataclasses.asdict(run.training),
        **run.teacher_facts,
        "bfloat16": uses_bfloat16(run.training),
        "epochs_finished": len(state.history),
        "best_epoch": int(state.best["epoch"]),
        "seconds": sum(row["seconds"] for row in state.history),
        **provenance(run.dataset, "tensorflow", "tflearn", "ai-edge-litert"),
    }


def provenance(dataset: Dataset, *packages: str) -> dict[str, Any]:
    """Facts of any saved model: what it was made of, by what, when."""
    return {
        "dataset": {
            "source": dataset.manifest["source"],
            "fingerprint": dataset.fingerprint,
            "counts": dataset.counts,
        },
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "commit": commit(),
        "saved": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def accuracy_of(flatbuffer: bytes, facts: dict, split: Split | None) -> float | None:
    """Accuracy of the very thing that is saved, or None without a split to measure it on."""
    if split is None:
        return None
    probabilities = saved_model.SavedModel(flatbuffer, facts).predict(split.images, split.features)
    return float((probabilities.argmax(axis=1) == split.labels).mean())


def calibration_of(flatbuffer: bytes, facts: dict, split: Split | None, smoothing: float) -> dict[str, float]:
    """The facts that make the model's confidence fit its accuracy on `split`, with and without augmentation."""
    facts = {**facts, "label_smoothing": smoothing}
    if split is None:
        return {"label_smoothing": smoothing}
    model = saved_model.SavedModel(flatbuffer, facts)
    temperatures = {
        name: evaluation.best_temperature(model.predict(split.images, split.features, augmented), split.labels)
        for name, augmented in (("temperature", False), ("temperature_augmented", True))
    }
    return {"label_smoothing": smoothing, **temperatures}


def commit() -> str | None:
    """The commit that the code is at, with "-dirty" when a module was changed since; None outside git."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True).stdout.strip()

    try:
        name = git("describe", "--always")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":(glob)*.py")  # results grow meanwhile
    except OSError:
        return None
    return f"{name}-dirty" if changed else name or None


if __name__ == "__main__":
    sys.exit(main())
