"""Training: runs the epochs and saves the best one.

state = train(Run(dataset, architecture, network, hyperparams, training))
"""

import dataclasses
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from ferkit import saved_model
from ferkit.data.dataset import Split
from ferkit.errors import UserError
from ferkit.files import check_writable, whole_file
from ferkit.flags import shown
from ferkit.learning import plots
from ferkit.learning.calibration import best_temperature
from ferkit.learning.checkpoints import Checkpoints
from ferkit.learning.distillation import find_teachers
from ferkit.learning.run import Diverged, Run, State, check_engine, check_trainable, log_name, uses_bfloat16
from ferkit.learning.sampling import changed_batch, frequencies, is_degraded, shuffled_batches
from ferkit.learning.scaling import Scaling
from ferkit.learning.starting import Start
from ferkit.provenance import made_with
from ferkit.settings import Hyperparams, Training

if TYPE_CHECKING:  # TensorFlow is slow to import
    from ferkit.learning.graph import TrainingGraph

VALIDATION_BATCH = 256


def check_places(training: Training) -> None:
    """Raises UserError when a result could not be written, so that it does not fail after hours of training."""
    if Path(training.save_model_path).is_dir():
        raise UserError(
            f"{training.save_model_path} is a folder: the saved model is a file, name one with --model_path"
        )
    path = Path(training.save_model_path)
    saved_model.check_replaced(path)
    for place in (path.parent, Path(training.checkpoint_folder), Path(training.logs_folder)):
        check_writable(place)


def check_teacher(hyperparams: Hyperparams, training: Training) -> None:
    """Raises UserError when the saved model would replace its teacher: a resumed training needs the teacher again."""
    if hyperparams.teacher_share > 0:
        for path in find_teachers(hyperparams.teacher):
            _check_kept(Path(path), "the teacher", training)


def check_start(start: Start, training: Training) -> None:
    """Raises UserError when the saved model would replace the one to start from: a resumed training needs it again.

    And when the training is one of PyTorch, which does not start from saved models.
    """
    if training.engine == "pytorch":
        raise UserError("training starts from a saved model with TensorFlow alone: leave out --engine=pytorch")
    _check_kept(start.path, "the model to start from,", training)


def _check_kept(model: Path, role: str, training: Training) -> None:
    place = Path(training.save_model_path)
    if training.save_model and place.exists() and model.exists() and place.samefile(model):
        raise UserError(f"{role} {model} would be replaced: name another --model_path")


def train(run: Run, resume: bool = False, after_epoch: Callable[[State], None] | None = None) -> State:
    """Trains a network and saves its best epoch. After Ctrl-C or divergence, saves the best of the finished epochs.

    after_epoch: called after each epoch.
    Raises UserError when the dataset does not fit the network, when another process trains in the same checkpoint
    folder, when the checkpoint to resume is missing or of another training (CannotResume), and when the loss or the
    weights become infinite or NaN (Diverged).
    """
    check_engine(run.training)
    check_trainable(run)
    if run.start is not None:
        run.start.check(run.dataset)
    learn = run.dataset.mixed(run.hyperparams.fer2013_share).load("Training", run.network.features)
    has_validation = "PublicTest" in run.dataset.counts
    validation = run.dataset.load("PublicTest", run.network.features) if has_validation else None
    checkpoints = Checkpoints(Path(run.training.checkpoint_folder))
    with checkpoints.alone():
        if run.training.engine == "pytorch":
            state = _train_in_pytorch(run, checkpoints, learn, validation, after_epoch, resume)
        else:
            state = checkpoints.read(run) if resume else State(run.resumable(), log_name(run.network))
            state = _train(run, state, checkpoints, learn, validation, after_epoch)
    plots.draw_learning_curve(state.history, Path(run.training.logs_folder) / state.log / "learning_curve.png")
    return state


def _train_in_pytorch(
    run: Run,
    checkpoints: Checkpoints,
    learn: Split,
    validation: Split | None,
    after_epoch: Callable[[State], None] | None,
    resume: bool,
) -> State:
    """The training with PyTorch, after `train` has locked the checkpoint folder."""
    from ferkit.learning import pytorch

    def finished(state: State) -> None:
        write_logs(Path(run.training.logs_folder) / state.log, state)
        if after_epoch is not None:
            after_epoch(state)

    def keep_best() -> None:
        weights = pytorch.weights_of(training.best)
        save(run, training.state, weights, training.scaling, validation, training.frequencies)

    training = pytorch.TorchTraining(run, learn, validation, checkpoints.folder / "pytorch.pt", resume)
    announce(run, learn, validation, training.state)
    try:
        training.fit(finished)
    except (KeyboardInterrupt, UserError):
        if training.state.history and run.training.save_model:
            print(f"\nStopped: keeping the best of the {len(training.state.history)} finished epochs", file=sys.stderr)
            keep_best()
        raise
    if run.training.save_model:
        keep_best()
    return training.state


def announce(run: Run, learn: Split, validation: Split | None, state: State) -> None:
    """Prints what is trained on what."""
    if state.history:
        left = run.training.epochs - len(state.history)
        print(f"Resuming after epoch {len(state.history)}, {left} left to train")
    faces = f"{len(learn)} faces of {len(run.dataset.expressions)} expressions"
    labels = "" if run.dataset.label_source == "fer2013" else f", labels: {run.dataset.label_source}"
    print(f"Training model {run.network.model} on {faces}, features: {run.network.features}{labels}")
    print(f"Settings: {settings_in_use(run)}")
    if run.start is not None and not state.history:
        print(f"Starting from {run.start.path}")
    if validation is None:
        print("No PublicTest split to choose an epoch by: the last epoch is kept")


def _train(
    run: Run,
    state: State,
    checkpoints: Checkpoints,
    learn: Split,
    validation: Split | None,
    after_epoch: Callable[[State], None] | None,
) -> State:
    """The training with TensorFlow, after `train` has locked the checkpoint folder."""
    from ferkit.learning.graph import TrainingGraph  # TensorFlow is slow to import

    scaling = Scaling.of(learn.images, learn.features) if run.network.standardize else None
    if run.start is not None:
        scaling = run.start.scaling(scaling)
    shares = frequencies(learn, run.network.output_size)
    graph = TrainingGraph(
        run.network,
        run.architecture,
        run.hyperparams,
        scaling,
        run.training.seed,
        run.steps,
        frequencies=shares,
        distributions=learn.targets is not None,
    )
    with graph.session(uses_bfloat16(run.training)) as session:
        if state.history:
            checkpoints.restore(graph, session, state)
        elif run.start is not None:
            run.start.fill(graph, session, run.dataset.expressions, scaling, learn)
        announce(run, learn, validation, state)
        try:
            for epoch in range(len(state.history) + 1, run.training.epochs + 1):
                row = train_epoch(run, graph, session, learn, validation, epoch)
                longer = dataclasses.replace(state, history=[*state.history, row])
                checkpoints.write(graph, session, longer)
                state = longer  # an epoch counts only when its weights are on disk
                checkpoints.tidy(state)
                write_logs(Path(run.training.logs_folder) / state.log, state)
                if after_epoch is not None:
                    after_epoch(state)
        except (KeyboardInterrupt, Diverged):
            if state.history and run.training.save_model:
                print(f"\nStopped: keeping the best of the {len(state.history)} finished epochs", file=sys.stderr)
                save(run, state, str(checkpoints.weights(state, state.best["epoch"])), scaling, validation, shares)
            raise
    if run.training.save_model:
        save(run, state, str(checkpoints.weights(state, state.best["epoch"])), scaling, validation, shares)
    return state


def settings_in_use(run: Run) -> str:
    """The settings of a training that differ from the defaults, wherever they were set: `epochs=64, mixup=0.2`."""
    groups = run.network, run.hyperparams, run.augmentation, run.training
    values = [(field, getattr(group, field.name)) for group in groups for field in dataclasses.fields(group)]
    return (
        ", ".join(f"{field.name}={shown(value)}" for field, value in values if value != field.default) or "the defaults"
    )


def train_epoch(
    run: Run, graph: "TrainingGraph", session: Any, learn: Split, validation: Split | None, epoch: int
) -> dict[str, float]:
    """Trains one epoch and validates it; returns its row of the history. Raises Diverged."""
    started = time.perf_counter()
    loss_sum = accuracy_sum = 0.0
    name = f"Epoch {epoch}/{run.training.epochs}"
    with tqdm(batches(run, learn, epoch), desc=name, total=run.steps_per_epoch, unit="step") as progress:
        for count, (batch, taught) in enumerate(progress, 1):
            feed = {graph.images: batch.images, graph.features: batch.features, graph.labels: batch.labels}
            if batch.targets is not None:
                feed[graph.targets] = batch.targets
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
    if not np.isfinite(session.run(graph.logits, feed)).all():  # the last loss was computed before the last update
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
    """The randomly changed faces of each step, and the teacher's probabilities if there is a teacher.

    A thread prepares each batch during the previous step. The batches depend only on the seed and the epoch.
    """
    rows = shuffled_batches(len(learn), run.hyperparams.batch_size, run.training.seed, epoch)
    shares = frequencies(learn, run.network.output_size)

    def batch(step: int) -> tuple[Split, np.ndarray | None]:
        chosen = learn.take(rows[step])
        faces = changed_batch(run, chosen, epoch, step)
        if run.teacher is None:
            return faces, None
        clear = changed_batch(run, chosen, epoch, step, clear=True) if is_degraded(run) else faces
        return faces, run.teacher.probabilities(clear.images, clear.features, shares)

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(batch, 0)
        for step in range(len(rows)):
            ready = ahead.result()
            if step + 1 < len(rows):
                ahead = pool.submit(batch, step + 1)
            yield ready


def validate(graph: "TrainingGraph", session: Any, split: Split) -> float:
    """Accuracy of the network in its present state."""
    hits = 0
    for start in range(0, len(split), VALIDATION_BATCH):
        rows = slice(start, start + VALIDATION_BATCH)
        feed = {graph.images: split.images[rows], graph.features: split.features[rows]}
        hits += int((session.run(graph.predictions, feed) == split.labels[rows]).sum())
    return hits / len(split)


def write_logs(folder: Path, state: State) -> None:
    """Writes the history as `history.csv`, and its last row for TensorBoard."""
    from ferkit.learning.tflearn_compat import tf

    history = pd.DataFrame(state.history).astype({"epoch": int})
    with whole_file(folder / "history.csv") as temporary:
        history.to_csv(temporary, index=False)
    row = state.history[-1]
    values = [tf.Summary.Value(tag=tag, simple_value=value) for tag, value in row.items() if tag != "epoch"]
    with tf.summary.FileWriter(str(folder), filename_suffix=f".epoch-{int(row['epoch'])}") as writer:
        writer.add_summary(tf.Summary(value=values), int(row["epoch"]))


def save(
    run: Run,
    state: State,
    weights: str | Mapping[str, np.ndarray],
    scaling: Scaling | None,
    validation: Split | None,
    frequencies: np.ndarray,
    more_facts: Mapping[str, Any] | None = None,
) -> None:
    """Writes the network of the best epoch and its facts to the saved model. weights: see `inference_flatbuffer`."""
    from ferkit.learning.graph import inference_flatbuffer

    epoch, facts = int(state.best["epoch"]), {**facts_of(run, state), **(more_facts or {})}
    facts["frequencies"] = frequencies.tolist()
    if run.training.balance:  # logit adjustment after the training (Menon et al., ICLR 2021)
        facts["balance"] = (np.maximum(frequencies, saved_model.LEAST_FREQUENCY) ** -run.training.balance).tolist()
    averaged = run.hyperparams.ema_decay > 0
    flatbuffer = inference_flatbuffer(weights, run.network, run.architecture, scaling, averaged)
    accuracy = accuracy_of(flatbuffer, facts, validation)
    if run.training.quantize:
        facts["validation_accuracy_unquantized"] = accuracy
        flatbuffer = inference_flatbuffer(weights, run.network, run.architecture, scaling, averaged, quantize=True)
        accuracy = accuracy_of(flatbuffer, facts, validation)
        if accuracy is not None:
            before = facts["validation_accuracy_unquantized"]
            print(f"8-bit weights: validation accuracy {accuracy:.2%}, with 32-bit weights {before:.2%}")
    facts |= calibration_of(flatbuffer, facts, validation, run.smoothing)
    path = run.training.save_model_path
    saved_model.save(path, flatbuffer, {**facts, "validation_accuracy": accuracy})
    reached = "" if accuracy is None else f", validation accuracy {accuracy:.1%}"
    print(f"Saved epoch {epoch}{reached}: {path} ({len(flatbuffer) / 1e6:.0f} MB)")


def facts_of(run: Run, state: State) -> dict[str, Any]:
    """The facts in the saved model: how to use the network, and how it was trained."""
    return {
        "expressions": list(run.dataset.expressions),
        "features": run.network.features,
        "feature_provenance": run.dataset.feature_provenance(run.network.features),
        "network": dataclasses.asdict(run.network),
        "hyperparams": dataclasses.asdict(run.hyperparams),
        "augmentation": dataclasses.asdict(run.augmentation),
        "training": dataclasses.asdict(run.training),
        **run.teacher_facts,
        **(run.start.facts if run.start else {}),
        "bfloat16": uses_bfloat16(run.training),
        "epochs_finished": len(state.history),
        "best_epoch": int(state.best["epoch"]),
        "seconds": sum(row["seconds"] for row in state.history),
        "dataset": run.dataset.facts,
        **made_with(
            *("tensorflow", "tflearn", "ai-edge-litert"),
            *(["torch"] if run.training.engine == "pytorch" and find_spec("torch") else []),
        ),
    }


def accuracy_of(flatbuffer: bytes, facts: dict, split: Split | None) -> float | None:
    """Accuracy of the network in its saved form; None without a split."""
    if split is None:
        return None
    probabilities = saved_model.SavedModel(flatbuffer, facts).predict(split.images, split.features)
    return float((probabilities.argmax(axis=1) == split.labels).mean())


def calibration_of(flatbuffer: bytes, facts: dict, split: Split | None, smoothing: float) -> dict[str, float]:
    """The calibration facts: they fit confidence to accuracy on `split`, with and without test-time augmentation."""
    facts = {**facts, "label_smoothing": smoothing}
    if split is None:
        return {"label_smoothing": smoothing}
    model = saved_model.SavedModel(flatbuffer, facts)
    temperatures = {
        name: best_temperature(model.predict(split.images, split.features, augmented), split.labels)
        for name, augmented in (("temperature", False), ("temperature_augmented", True))
    }
    return {"label_smoothing": smoothing, **temperatures}
