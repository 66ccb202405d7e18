"""Training as a user runs it: repeatable, resumable, stoppable, and strict about what it is given."""

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, command_line, full_disk

import parameters
from ferkit import saved_model
from ferkit.data.conversion import convert
from ferkit.data.dataset import Dataset, Split, open_dataset
from ferkit.errors import UserError
from ferkit.files import lock
from ferkit.learning import checkpoints as checkpoints_module
from ferkit.learning import training as training_script
from ferkit.learning.architecture import Architecture
from ferkit.learning.augmentation import augment
from ferkit.learning.checkpoints import Checkpoints
from ferkit.learning.configuration import TrainingSettings, training_settings
from ferkit.learning.run import Diverged, Run, State, uses_bfloat16
from ferkit.learning.sampling import shuffled_batches
from ferkit.learning.training import batches, settings_in_use, train
from ferkit.provenance import commit
from ferkit.settings import Augmentation, Hyperparams, Network, Training, check, choices_of
from model import ARCHITECTURES
from parameters import AUGMENTATION, HYPERPARAMS, OWN_SETTINGS, TAUGHT_SETTINGS, TRAINING
from train import main, parser

NETWORK = Network(model="slim", features="landmarks")
PUBLISHED_MODELS = ("A", "B")
QUICK = Hyperparams(optimizer="adam", optimizer_param=0.9, learning_rate=1e-3, batch_size=64, keep_prob=0.8)
MODERN = Hyperparams(
    optimizer="nesterov",
    optimizer_param=0.9,
    learning_rate=0.05,
    schedule="cosine",
    warmup_steps=5,
    keep_prob=0.8,
    weight_decay=5e-4,
    label_smoothing=0.1,
    mixup=0.2,
    ema_decay=0.9,
    batch_size=64,
)
CHANGES = Augmentation(flip=True, shift=0.1, zoom=0.1, rotation=12, contrast=0.2, brightness=0.1, erasing=0.25)


def settings(folder: Path, **changes: object) -> Training:
    places = {
        "save_model_path": str(folder / "best_model" / "saved_model.bin"),
        "checkpoint_folder": str(folder / "checkpoints"),
        "logs_folder": str(folder / "logs"),
    }
    return replace(TRAINING, **{"epochs": 2, **places, **changes})


def run_of(
    dataset: Dataset,
    network: Network,
    hyperparams: Hyperparams,
    training: Training,
    augmentation: Augmentation = AUGMENTATION,
) -> Run:
    return Run(dataset, ARCHITECTURES[network.model], network, hyperparams, training, augmentation)


def learned(state: State) -> np.ndarray:
    """Loss, accuracy and validation accuracy, a row an epoch."""
    return np.array([(row["loss"], row["accuracy"], row["validation_accuracy"]) for row in state.history])


@pytest.fixture(scope="module")
def uninterrupted(drawn_dataset, tmp_path_factory) -> tuple[State, Path]:
    """Three epochs in one go, and where they were saved."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    return train(run_of(open_dataset(drawn_dataset), NETWORK, QUICK, settings(folder, epochs=3))), folder


def test_one_seed_makes_a_run_repeatable(drawn_dataset, uninterrupted, tmp_path):
    again = train(run_of(open_dataset(drawn_dataset), NETWORK, QUICK, settings(tmp_path, epochs=1, save_model=False)))
    np.testing.assert_allclose(learned(again), learned(uninterrupted[0])[:1], rtol=1e-4)
    other = train(
        run_of(open_dataset(drawn_dataset), NETWORK, QUICK, settings(tmp_path, epochs=1, save_model=False, seed=1))
    )
    assert not np.allclose(learned(other), learned(again), rtol=1e-3)


def test_what_a_training_leaves_on_disk(uninterrupted):
    state, folder = uninterrupted
    model = saved_model.load(folder / "best_model" / "saved_model.bin")
    assert model.facts["best_epoch"] == state.best["epoch"]
    assert model.facts["training"]["seed"] == 0 and model.facts["hyperparams"]["learning_rate"] == 1e-3
    assert model.facts["dataset"]["counts"]["Training"] == 700
    assert model.facts["validation_accuracy"] == pytest.approx(state.best["validation_accuracy"], abs=0.02)
    (log,) = (folder / "logs").iterdir()
    history = pd.read_csv(log / "history.csv")
    assert history["epoch"].tolist() == [1, 2, 3]
    np.testing.assert_allclose(history["loss"], [row["loss"] for row in state.history])
    events = [event for file in sorted(log.glob("events*")) for event in tensorboard_values(file)]
    assert [value for tag, value in events if tag == "loss"] == pytest.approx(history["loss"].tolist(), rel=1e-5)
    assert (log / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    kept = {path.name.split(".")[0] for path in (folder / "checkpoints").glob("*epoch-*")}
    assert kept == {f"{state.log}_epoch-3", f"{state.log}_epoch-{state.best['epoch']}"}


def tensorboard_values(file: Path) -> list[tuple[str, float]]:
    from ferkit.learning.tflearn_compat import tf

    return [(v.tag, v.simple_value) for event in tf.train.summary_iterator(str(file)) for v in event.summary.value]


def test_best_epoch_is_the_first_of_the_highest_validation_accuracy():
    def best(*accuracies: float) -> float:
        return State({}, "", [{"epoch": i, "validation_accuracy": a} for i, a in enumerate(accuracies, 1)]).best[
            "epoch"
        ]

    assert best(0.3, 0.5, 0.5, 0.4) == 2
    assert best(float("nan"), float("nan")) == 2, "without validation the last epoch is kept"
    rows = [{"epoch": i, "validation_accuracy": a} for i, a in enumerate((0.3, 0.5, 0.5, 0.4), 1)]
    assert State({"start": {}}, "", rows).best["epoch"] == 3, "in fine-tuning the last of the best"


def flags_of_training(dataset: Path, folder: Path, *flags: str) -> list[str]:
    places = settings(folder)
    quick = ["--model=slim", "--features=landmarks", "--optimizer=adam", "--optimizer_param=0.9", "--epochs=3"]
    quick += ["--learning_rate=0.001", "--batch_size=64", "--keep_prob=0.8"]
    quick += [f"--{name}={getattr(places, name)}" for name in ("save_model_path", "checkpoint_folder", "logs_folder")]
    return ["--train=yes", f"--folder={dataset}", *quick, *flags]  # the last of two counts


def start_training(dataset: Path, folder: Path) -> subprocess.Popen:
    command = command_line("train.py", *flags_of_training(dataset, folder), slim=True)
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_epoch(folder: Path, epoch: int, process: subprocess.Popen | None = None) -> None:
    """Until the checkpoint of `epoch` is recorded and the next epoch is under way."""
    path = folder / "checkpoints" / "state.json"
    deadline = time.monotonic() + 120
    while not (path.exists() and len(json.loads(path.read_text())["history"]) >= epoch):
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.1)


def test_killed_training_goes_on_as_if_it_had_not_been(drawn_dataset, uninterrupted, tmp_path, capsys):
    process = start_training(drawn_dataset, tmp_path)
    wait_for_epoch(tmp_path, 1, process)
    process.kill()
    process.communicate()
    assert not (tmp_path / "best_model").exists(), "nothing half-trained is left as the saved model"

    assert main(flags_of_training(drawn_dataset, tmp_path, "--resume=yes")) == 0
    output = capsys.readouterr().out
    assert "Resuming after epoch" in output and "Saved epoch" in output
    state = State(**json.loads((tmp_path / "checkpoints" / "state.json").read_text()))
    np.testing.assert_allclose(learned(state), learned(uninterrupted[0]), rtol=1e-3)


def test_ctrl_c_keeps_the_best_finished_epoch(drawn_dataset, tmp_path, capsys):
    def press() -> None:
        try:
            wait_for_epoch(tmp_path, 1)
        finally:  # otherwise the test would train on
            os.kill(os.getpid(), signal.SIGINT)

    watcher = threading.Thread(target=press)
    watcher.start()
    status = main(flags_of_training(drawn_dataset, tmp_path, "--epochs=1000"))
    watcher.join()
    output, errors = capsys.readouterr()
    assert status == 130 and "Traceback" not in errors
    assert "Stopped: keeping the best of the" in errors and "Saved epoch" in output
    assert saved_model.load(tmp_path / "best_model" / "saved_model.bin").features == "landmarks"


def test_resuming_another_training_is_refused(drawn_dataset, uninterrupted, tmp_path):
    shutil.copytree(uninterrupted[1] / "checkpoints", tmp_path / "checkpoints")
    dataset, same = open_dataset(drawn_dataset), settings(tmp_path, epochs=3)
    with pytest.raises(UserError, match="learning_rate=0.001, not 0.5"):
        train(run_of(dataset, NETWORK, replace(QUICK, learning_rate=0.5), same), resume=True)
    with pytest.raises(UserError, match="seed=0, not 5"):
        train(run_of(dataset, NETWORK, QUICK, replace(same, seed=5)), resume=True)
    used = uses_bfloat16(same)
    was, now = ("yes", "no") if used else ("no", "yes")
    with pytest.raises(UserError, match=f"bfloat16={was}, not {now}"):
        train(run_of(dataset, NETWORK, QUICK, replace(same, bfloat16=now)), resume=True)
    with pytest.raises(UserError, match="has 3 epochs already, more than 2: use --epochs=3, or leave out --resume=yes"):
        train(run_of(dataset, NETWORK, QUICK, replace(same, epochs=2)), resume=True)
    state = json.loads((tmp_path / "checkpoints" / "state.json").read_text())
    damaged = ["{", "[]", *(json.dumps({**state, **change}) for change in ({"history": [{}]}, {"settings": None}))]
    for file in (tmp_path / "checkpoints").glob("*epoch-*.data*"):
        os.truncate(file, 1000)
    with pytest.raises(UserError, match="missing or damaged"):
        train(run_of(dataset, NETWORK, QUICK, same), resume=True)
    for text in damaged:
        (tmp_path / "checkpoints" / "state.json").write_text(text)
        with pytest.raises(UserError, match="damaged"):
            train(run_of(dataset, NETWORK, QUICK, same), resume=True)
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(UserError, match="nothing to resume"):
        train(run_of(dataset, NETWORK, QUICK, same), resume=True)


def test_two_trainings_in_one_checkpoint_folder_are_refused(drawn_dataset, tmp_path):
    run = run_of(open_dataset(drawn_dataset), NETWORK, QUICK, settings(tmp_path))
    state = tmp_path / "checkpoints" / "state.json"
    state.parent.mkdir()
    with lock(state), pytest.raises(UserError, match="another training uses .*checkpoints: name another --checkpoint"):
        train(run)
    assert not state.exists()


def test_model_that_is_evaluated_is_the_one_that_is_asked_for(drawn_dataset, uninterrupted, tmp_path, capsys):
    path = uninterrupted[1] / "best_model" / "saved_model.bin"
    flags = ["--evaluate=yes", f"--model_path={path}", f"--folder={drawn_dataset}"]
    for other, known in (("--model=B", "model=slim"), ("--features=none", "features=landmarks")):
        assert main([*flags, other]) == 2
        assert f"{path} was trained with {known}: leave out {other}" in capsys.readouterr().err
    assert main([*flags, "--model=slim", "--features=landmarks"]) == 0
    assert "PrivateTest" in capsys.readouterr().out
    model = saved_model.load(path)
    facts = {name: fact for name, fact in model.facts.items() if name != "network"}  # which a model need not tell
    saved_model.save(tmp_path / "model.bin", model.flatbuffer, facts)
    assert main(["--evaluate=yes", f"--model_path={tmp_path / 'model.bin'}", f"--folder={drawn_dataset}"]) == 0


@pytest.fixture(scope="module")
def modern(drawn_dataset, tmp_path_factory) -> Iterator[tuple[Run, State, Path]]:
    """Two epochs of a network like Model C, with all that its training needs, in one go, and where they were saved."""

    def averaged(layers, faces):
        for filters, pooled in ((8, True), (16, True), (32, False), (32, True)):
            faces = layers.convolution(faces, filters, 3, pooled=pooled)
        return layers.dropout(layers.global_average_pooling(faces))

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "averaged", Architecture(averaged, joint=16))
        folder = tmp_path_factory.mktemp("modern")
        network = Network(model="averaged", features="landmarks", standardize=True)
        run = run_of(open_dataset(drawn_dataset), network, MODERN, settings(folder), CHANGES)
        yield run, train(run), folder


def last_weights(folder: Path, state: State) -> dict[str, np.ndarray]:
    """All that is in the last epoch's checkpoint."""
    from ferkit.learning.tflearn_compat import tf

    reader = tf.train.load_checkpoint(str(folder / "checkpoints" / f"{state.log}_epoch-{len(state.history)}"))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def test_interrupted_cosine_with_augmentation_and_averages_goes_on_as_if_it_had_not_been(modern, tmp_path, monkeypatch):
    run, whole, folder = modern
    again = replace(run, training=settings(tmp_path))
    train_epoch = training_script.train_epoch

    def interrupted_in_the_second(run, graph, session, learn, validation, epoch):
        if epoch == 2:
            raise KeyboardInterrupt
        return train_epoch(run, graph, session, learn, validation, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(training_script, "train_epoch", interrupted_in_the_second)
        with pytest.raises(KeyboardInterrupt):
            train(again)
    assert saved_model.load(again.training.save_model_path).facts["epochs_finished"] == 1
    state = train(again, resume=True)
    np.testing.assert_allclose(learned(state), learned(whole), rtol=1e-4)
    weights, expected = (last_weights(places, end) for places, end in ((tmp_path, state), (folder, whole)))
    assert any("ExponentialMovingAverage" in name for name in expected)
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(weights[name], value, atol=1e-4 * np.abs(value).max(), err_msg=name)

    other = replace(again, training=replace(again.training, epochs=3))
    with pytest.raises(UserError, match="epochs=2, not 3"):
        train(other, resume=True)
    with pytest.raises(UserError, match="rotation=12, not 20"):
        train(replace(again, augmentation=replace(CHANGES, rotation=20)), resume=True)


def test_averaged_model_is_saved_as_it_was_validated(modern):
    run, state, folder = modern
    model = saved_model.load(folder / "best_model" / "saved_model.bin")
    assert model.facts["augmentation"] == vars(CHANGES) and model.facts["hyperparams"] == vars(MODERN)
    split = run.dataset.load("PublicTest", "landmarks")
    probabilities = model.predict(split.images, split.features)
    accuracy = (probabilities.argmax(axis=1) == split.labels).mean()
    assert accuracy == model.facts["validation_accuracy"] == pytest.approx(state.best["validation_accuracy"], abs=0.02)


def test_saved_temperatures_bring_confidence_to_accuracy(modern):
    run, _, folder = modern
    model = saved_model.load(folder / "best_model" / "saved_model.bin")
    assert model.smoothing == MODERN.label_smoothing and model.temperature != model.temperature_augmented
    split = run.dataset.load("PublicTest", "landmarks")
    for augmented in (False, True):
        probabilities = model.predict(split.images, split.features, augmented)
        accuracy = (probabilities.argmax(axis=1) == split.labels).mean()
        assert probabilities.max(axis=1).mean() == pytest.approx(accuracy, abs=0.01)


def test_evaluation_with_test_time_augmentation(modern, tmp_path, monkeypatch, capsys):
    """Only where it is asked for, whatever recognition does."""
    run, _, folder = modern
    changed = replace(parameters.VIDEO_PREDICTOR, test_time_augmentation=True)
    monkeypatch.setattr(parameters, "VIDEO_PREDICTOR", changed)
    model = tmp_path / "saved_model.bin"
    shutil.copy(folder / "best_model" / "saved_model.bin", model)
    errors = []
    for asked, suffix in (([], ""), (["--test_time_augmentation"], "_augmented")):
        flags = [f"--folder={run.dataset.folder}", f"--save_model_path={model}", *asked]
        assert main(["--evaluate=yes", *flags]) == 0
        assert "Test accuracy: " in capsys.readouterr().out
        assert (tmp_path / f"confusion_matrix{suffix}.png").read_bytes().startswith(b"\x89PNG")
        metrics = json.loads((tmp_path / f"metrics{suffix}.json").read_text())
        assert metrics["test_time_augmentation"] == bool(asked)
        errors.append(metrics["splits"]["PrivateTest"]["calibration_error"])
    assert errors[0] != errors[1], "other probabilities"


# --- batches and settings --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learn(drawn_dataset) -> Split:
    return open_dataset(drawn_dataset).load("Training", "landmarks")


def augmented_run(dataset: Path, augmentation: Augmentation, seed: int = 0) -> Run:
    return run_of(open_dataset(dataset), NETWORK, QUICK, replace(TRAINING, seed=seed), augmentation)


def test_batches_are_the_shuffled_rows_each_changed_by_its_own_chance(drawn_dataset, learn):
    rows = shuffled_batches(700, 64, seed=3, epoch=2)
    for augmentation in (Augmentation(), CHANGES):
        made = list(batches(augmented_run(drawn_dataset, augmentation, seed=3), learn, epoch=2))
        assert len(made) == len(rows) == 700 // 64
        for step, ((batch, _), chosen) in enumerate(zip(made, rows, strict=True)):
            np.testing.assert_array_equal(batch.labels, learn.labels[chosen])
            chance = np.random.default_rng((3, 2, step))
            images, vectors = augment(learn.images[chosen], learn.features[chosen], "landmarks", augmentation, chance)
            np.testing.assert_array_equal(batch.images, images)
            np.testing.assert_array_equal(batch.features, vectors)


def test_batches_differ_by_epoch_and_seed_and_leave_the_faces_as_they_were(drawn_dataset, learn):
    before = learn.images.copy(), learn.features.copy()

    def pixels(seed: int, epoch: int) -> np.ndarray:
        made = batches(augmented_run(drawn_dataset, CHANGES, seed), learn, epoch)
        return np.stack([batch.images for batch, _ in made])

    first = pixels(0, 1)
    np.testing.assert_array_equal(first, pixels(0, 1))
    assert (first != pixels(0, 2)).any(axis=(1, 2, 3)).all() and (first != pixels(1, 1)).any()
    np.testing.assert_array_equal(learn.images, before[0])
    np.testing.assert_array_equal(learn.features, before[1])


def test_what_goes_wrong_ahead_is_told_and_an_abandoned_epoch_leaves_no_thread(drawn_dataset, learn, monkeypatch):
    run = augmented_run(drawn_dataset, CHANGES)
    threads = threading.active_count()
    abandoned = batches(run, learn, epoch=1)
    next(abandoned)
    abandoned.close()
    assert threading.active_count() == threads
    monkeypatch.setattr(training_script, "changed_batch", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(batches(run, learn, epoch=1))


def chosen(*flags: str) -> TrainingSettings:
    return training_settings(parser().parse_args(["--train=yes", *flags]), parameters, ARCHITECTURES)


def test_models_own_settings_replace_the_published_ones_and_flags_replace_both():
    own = OWN_SETTINGS["C"]
    found = {name: value for part in chosen("--model=C") for name, value in vars(part).items()}
    assert found["model"] == "C" and {name: found[name] for name in own} == own
    published = {name: value for part in chosen("--model=A") for name, value in vars(part).items()}
    assert {name for name in published if published[name] != found[name]} <= {"model", *own}, "and nothing else"

    network, hyperparams, training, augmentation = chosen(
        "--model=C", "--features=landmarks", "--learning_rate=0.5", "--epochs=2", "--flip=no", "--weight_decay=0"
    )
    assert (network.features, network.standardize) == ("landmarks", True)
    assert (hyperparams.learning_rate, hyperparams.weight_decay, hyperparams.schedule) == (0.5, 0, "cosine")
    assert (training.epochs, augmentation.flip, augmentation.shift) == (2, False, own["shift"])


def test_training_prints_the_settings_that_apply(drawn_dataset):
    dataset = open_dataset(drawn_dataset)
    shown = settings_in_use(Run(dataset, ARCHITECTURES["C"], *chosen("--model=C", "--learning_rate=0.5"))).split(", ")
    assert {"model=C", "features=none", "learning_rate=0.5", "epochs=64", "flip=yes"} <= {*shown}
    assert not [text for text in shown if text.startswith(("momentum", "batch_norm", "decay_step"))], "the defaults"


def test_model_set_in_the_parameters_takes_its_own_settings_too(monkeypatch):
    monkeypatch.setattr(parameters, "NETWORK", replace(parameters.NETWORK, model="C"))
    assert chosen()[1].schedule == "cosine"
    assert chosen("--model=B")[1] == HYPERPARAMS


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("epochs", "30", 'OWN_SETTINGS of Model A sets epochs to "30": it must be a whole number'),
        ("epoch", 30, "OWN_SETTINGS of Model A has 'epoch', which is no setting of a training"),
    ],
)
def test_settings_of_our_own_edited_wrongly_are_an_error_that_names_them(monkeypatch, name, value, complaint):
    monkeypatch.setitem(OWN_SETTINGS, "A", {**OWN_SETTINGS["A"], name: value})
    assert chosen("--model=A")[2].epochs == TRAINING.epochs, "they are not asked for"
    with pytest.raises(UserError, match=f"^{re.escape(complaint)}$"):
        chosen("--model=A", "--settings=ours")


def test_settings_of_our_own_are_asked_for_by_name(monkeypatch):
    for model in PUBLISHED_MODELS:
        found = {
            name: value for part in chosen(f"--model={model}", "--settings=ours") for name, value in vars(part).items()
        }
        own = OWN_SETTINGS[model]
        assert {name: found[name] for name in own} == own and found["settings"] == "ours"
        assert found["features"] == parameters.NETWORK.features, "one recipe for all inputs"
    assert chosen("--model=A", "--settings=ours", "--epochs=2")[2].epochs == 2
    monkeypatch.setattr(parameters, "TRAINING", replace(TRAINING, settings="ours"))
    assert chosen("--model=A")[1].schedule == "cosine"
    assert chosen("--model=A", "--settings=published")[1] == HYPERPARAMS
    with pytest.raises(UserError, match="Model C has no published settings"):
        chosen("--model=C", "--settings=published")


def test_taught_settings_are_our_own_and_a_teacher(monkeypatch):
    for model in PUBLISHED_MODELS:
        ours, taught = (chosen(f"--model={model}", f"--settings={whose}") for whose in ("ours", "taught"))
        assert taught[1] == replace(ours[1], **TAUGHT_SETTINGS) and taught[1].teacher_share > 0 == ours[1].teacher_share
        assert taught[2] == replace(ours[2], settings="taught") and (taught[0], taught[3]) == (ours[0], ours[3])
    with pytest.raises(UserError, match="Model C has no taught settings"):
        chosen("--model=C", "--settings=taught")
    monkeypatch.setattr(parameters, "TRAINING", replace(TRAINING, settings="taught"))
    assert chosen("--model=A")[1] == taught[1] and chosen("--model=C")[1].teacher_share == 0
    monkeypatch.setitem(TAUGHT_SETTINGS, "teacher_share", "most")
    with pytest.raises(UserError, match='TAUGHT_SETTINGS sets teacher_share to "most": it must be a number'):
        chosen("--model=A")


@pytest.mark.parametrize("model", PUBLISHED_MODELS)
def test_published_models_stay_as_published(model):
    assert chosen(f"--model={model}") == (
        replace(parameters.NETWORK, model=model),
        HYPERPARAMS,
        TRAINING,
        AUGMENTATION,
    )


def test_every_own_setting_is_a_setting_of_a_model():
    assert OWN_SETTINGS.keys() <= set(ARCHITECTURES)
    for model, own in OWN_SETTINGS.items():
        parts = chosen(f"--model={model}", "--settings=ours")
        defaults = {field.name: field.default for part in parts for field in fields(part)}
        choices = {field.name: choices_of(field) for part in parts for field in fields(part)}
        for name, value in own.items():
            assert type(value) is type(defaults[name]), name
            assert choices[name] is None or value in choices[name], name
        parts.check()


def test_a_new_training_takes_the_place_of_the_old_ones_checkpoints(drawn_dataset, tmp_path):
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    mine = ("my_epoch-7.index", "my_epoch-7.npz", "notes.txt")
    old = "2026-01-02_03-04-05_A_landmarks_epoch-7"
    halves = (f"{old}.index.tempstate12345678901234567890", f"{old}.data-00000-of-00001.tempstate1")  # left by a kill
    for name in (f"{old}.index", f"{old}.data-00000-of-00001", *halves, *mine):
        (checkpoints / name).touch()
    state = train(run_of(open_dataset(drawn_dataset), NETWORK, QUICK, settings(tmp_path, epochs=1, save_model=False)))
    left = {path.name for path in checkpoints.glob("[!.]*")}
    assert left >= {"state.json", *mine}, "what no training wrote stays"
    assert {name.split(".")[0] for name in left - {"state.json", *mine}} == {f"{state.log}_epoch-1"}


def test_new_training_killed_in_its_first_epoch_leaves_the_old_one_to_resume(drawn_dataset, tmp_path, monkeypatch):
    dataset, places = open_dataset(drawn_dataset), settings(tmp_path, epochs=1, save_model=False)
    old = train(run_of(dataset, NETWORK, QUICK, places))
    before = content(tmp_path / "checkpoints")
    with monkeypatch.context() as patch:
        patch.setattr(training_script, "log_name", lambda network: "a later one")
        patch.setattr(checkpoints_module, "whole_file", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):  # between the weights and the state that names them
            train(run_of(dataset, NETWORK, QUICK, replace(places, seed=1)))
    assert before.items() <= content(tmp_path / "checkpoints").items()
    assert train(run_of(dataset, NETWORK, QUICK, places), resume=True) == old


def test_diverging_training_stops_with_a_message(drawn_dataset, tmp_path):
    wild = replace(QUICK, optimizer="momentum", learning_rate=1e300)  # infinite in fp32
    with pytest.raises(UserError, match=r"the loss became (nan|inf) in epoch 1: try a lower --learning_rate"):
        train(run_of(open_dataset(drawn_dataset), NETWORK, wild, settings(tmp_path)))
    assert not (tmp_path / "best_model").exists()


def test_divergence_has_an_exit_status_of_its_own(drawn_dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    wild = ["--learning_rate=1e300", "--optimizer_param=0.9", "--batch_size=64", "--keep_prob=0.8", "--epochs=1"]
    flags = ["--train=yes", "--model=slim", "--features=landmarks", f"--folder={drawn_dataset}", *wild]
    assert main(flags) == Diverged.status == 3
    assert "the loss became" in capsys.readouterr().err


def test_commit_is_dirty_when_code_changed_and_not_when_results_grew(tmp_path):
    def git(*words: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    assert commit(tmp_path) is None, "no repository"
    for name in ("ferkit/train.py", "results.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    (tmp_path / "results.csv").write_text("2\n")
    clean = commit(tmp_path)
    assert clean and not clean.endswith("-dirty")
    (tmp_path / "ferkit" / "train.py").write_text("2\n")
    assert commit(tmp_path) == f"{clean}-dirty"


def test_diverging_training_keeps_the_best_finished_epoch(drawn_dataset, tmp_path, monkeypatch):
    epochs = []

    def diverge_in_the_third(*arguments):
        epochs.append(arguments)
        if len(epochs) == 3:
            raise Diverged("the loss became nan")
        return train_epoch(*arguments)

    train_epoch = training_script.train_epoch
    monkeypatch.setattr(training_script, "train_epoch", diverge_in_the_third)
    with pytest.raises(UserError, match="the loss became nan"):
        train(run_of(open_dataset(drawn_dataset), NETWORK, QUICK, settings(tmp_path, epochs=5)))
    assert saved_model.load(tmp_path / "best_model" / "saved_model.bin").facts["epochs_finished"] == 2


def test_ctrl_c_while_a_checkpoint_is_written_keeps_the_epoch_before(drawn_dataset, tmp_path, monkeypatch):
    write = Checkpoints.write

    def interrupted(checkpoints, graph, session, state):
        if len(state.history) == 2:
            raise KeyboardInterrupt
        write(checkpoints, graph, session, state)

    monkeypatch.setattr(Checkpoints, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(run_of(open_dataset(drawn_dataset), NETWORK, QUICK, settings(tmp_path, epochs=3)))
    facts = saved_model.load(tmp_path / "best_model" / "saved_model.bin").facts
    assert (facts["epochs_finished"], facts["best_epoch"]) == (1, 1)


def test_ctrl_c_while_old_checkpoints_are_deleted_keeps_the_epoch(drawn_dataset, tmp_path, monkeypatch):
    tidy = Checkpoints.tidy

    def interrupted(checkpoints, state):
        tidy(checkpoints, state)
        if len(state.history) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "tidy", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(run_of(open_dataset(drawn_dataset), NETWORK, QUICK, settings(tmp_path, epochs=3)))
    assert saved_model.load(tmp_path / "best_model" / "saved_model.bin").facts["epochs_finished"] == 2


def test_checkpoint_that_does_not_fit_on_the_disk_is_said_and_the_one_before_stays(drawn_dataset, tmp_path):
    run = run_of(open_dataset(drawn_dataset), NETWORK, QUICK, settings(tmp_path, epochs=1, save_model=False))
    message = r"^cannot write .*_epoch-{}: no space is left on its disk: free some, or name another place{}$"
    with full_disk(50_000), pytest.raises(UserError, match=message.format(1, "")):
        train(run)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [".state.json.lock"]
    train(run)
    longer, before = replace(run, training=settings(tmp_path, epochs=2)), content(tmp_path / "checkpoints")
    kept = "; --resume=yes then goes on after epoch 1"
    with full_disk(50_000), pytest.raises(UserError, match=message.format(2, kept)):
        train(longer, resume=True)
    assert content(tmp_path / "checkpoints") == before


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_weights_that_are_no_numbers_are_not_saved(drawn_dataset, tmp_path):
    """The last step of an epoch may ruin the weights after its loss was computed."""
    wild = replace(QUICK, optimizer="momentum", learning_rate=1e300, batch_size=700)  # infinite in fp32
    with pytest.raises(UserError, match="the weights are no numbers after epoch 1"):
        train(run_of(open_dataset(drawn_dataset), NETWORK, wild, settings(tmp_path)))
    assert not (tmp_path / "best_model").exists()


def test_dataset_without_validation_split_keeps_the_last_epoch(drawn_dataset, tmp_path, capsys):
    dataset = open_dataset(drawn_dataset)
    del dataset.manifest["splits"]["PublicTest"]
    train(run_of(dataset, NETWORK, QUICK, settings(tmp_path)))
    assert "the last epoch is kept" in capsys.readouterr().out
    facts = saved_model.load(tmp_path / "best_model" / "saved_model.bin").facts
    assert facts["best_epoch"] == 2 and facts["validation_accuracy"] is None


def test_quantized_model_says_what_it_costs(drawn_dataset, tmp_path, capsys):
    train(run_of(open_dataset(drawn_dataset), NETWORK, QUICK, settings(tmp_path, epochs=1, quantize=True)))
    assert "8-bit weights: validation accuracy" in capsys.readouterr().out
    facts = saved_model.load(tmp_path / "best_model" / "saved_model.bin").facts
    assert facts["training"]["quantize"] and facts["validation_accuracy_unquantized"] is not None


def test_shuffled_batches_hold_every_row_once_and_differ_by_epoch():
    batches = shuffled_batches(10, 5, seed=0, epoch=1)
    assert sorted(np.concatenate(batches)) == list(range(10))
    assert not np.array_equal(np.concatenate(batches), np.concatenate(shuffled_batches(10, 5, seed=0, epoch=2)))
    assert [len(rows) for rows in shuffled_batches(11, 5, 0, 1)] == [5, 5], "full batches only"
    assert [len(rows) for rows in shuffled_batches(3, 5, 0, 1)] == [3], "but never none"


@pytest.mark.parametrize(
    ("flags", "fragments"),
    [
        (["--output_size=5"], ["7 expressions", "--output_size=7"]),
        (["--learning_rate=-1"], ["learning_rate is -1.0: it must be above 0"]),
        (["--keep_prob=0"], ["keep_prob"]),
        (["--epochs=0"], ["epochs"]),
        (["--save_model=no", "--evaluate=yes"], ["TRAINING.save_model", "--save_model=yes"]),
        ([f"--save_model_path={ROOT / 'README.md'}"], ["is no saved network and would be replaced"]),
        (["--save_model_path=."], ["is a folder", "--model_path"]),
        (
            ["--checkpoint_folder=/dev/null/checkpoints"],
            ["cannot write /dev/null/checkpoints: /dev/null is a file, not a folder"],
        ),
        (["--folder=elsewhere"], ["no converted dataset in elsewhere", "convert_fer2013"]),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_built(
    drawn_dataset, flags, fragments, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["--train=yes", f"--folder={drawn_dataset}", *flags]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1 and all(fragment in errors[0] for fragment in fragments), errors
    assert not list(tmp_path.iterdir())


def test_missing_feature_is_said_in_one_line(drawn_csv, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    convert(str(drawn_csv), "fer2013_features", range(7), [], limit=20, processes=1)
    capsys.readouterr()
    assert main(["--train=yes", "--features=landmarks_hog"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert all(fragment in line for fragment in ("landmarks", "hog_features", "--landmarks=yes --hog=yes"))


def test_training_without_a_task_or_a_model_to_evaluate(drawn_dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for flags, fragment in (
        ([], "say --train=yes, --evaluate=yes or both"),
        (["--evaluate=yes", "--resume=yes"], "say --train=yes too"),
    ):
        with pytest.raises(SystemExit) as exit:
            main(flags)
        assert exit.value.code == 2 and fragment in capsys.readouterr().err
    (tmp_path / "checkpoints").touch()  # in the way of a training, not of an evaluation
    assert main(["--evaluate=yes", f"--folder={drawn_dataset}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: no trained model at best_model/saved_model.bin")
    assert "python train.py --train=yes" in line


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer_param": 1.0},
        {"batch_size": 1},
        {"learning_rate": float("nan")},
        {"warmup_steps": -1},
        {"weight_decay": -0.1},
        {"weight_decay": float("inf")},
        {"label_smoothing": 1.0},
        {"mixup": -1.0},
        {"mixup": float("nan")},
        {"ema_decay": 1.0},
    ],
    ids=str,
)
def test_impossible_hyperparameters_are_refused(change):
    with pytest.raises(UserError, match=next(iter(change))):
        check(Network(), replace(HYPERPARAMS, **change), TRAINING, AUGMENTATION)


@pytest.mark.parametrize(
    ("name", "highest", "refused"),
    [
        ("shift", 0.5, 0.51),
        ("zoom", 1, 1.1),
        ("rotation", 180, 181),
        ("contrast", 1, 1.1),
        ("brightness", 1, 1.1),
        ("erasing", 1, 1.1),
    ],
)
def test_impossible_augmentation_is_refused(name, highest, refused):
    check(Network(), HYPERPARAMS, TRAINING, Augmentation(**{name: highest}))
    for value in (refused, -0.1, float("nan")):
        with pytest.raises(UserError, match=f"{name} is {value}: it must be from 0 to {highest}"):
            check(Network(), HYPERPARAMS, TRAINING, Augmentation(**{name: value}))


def test_dataset_without_training_faces_is_refused(drawn_dataset, tmp_path):
    dataset = open_dataset(drawn_dataset)
    del dataset.manifest["splits"]["Training"]
    for given in (dataset, dataset.sampled(50, 0)):
        with pytest.raises(UserError, match="has no Training split: convert a source that has one"):
            train(run_of(given, NETWORK, QUICK, settings(tmp_path)))


def test_warm_up_longer_than_the_training_is_refused(drawn_dataset, tmp_path):
    run = run_of(open_dataset(drawn_dataset), NETWORK, replace(QUICK, warmup_steps=21), settings(tmp_path, epochs=2))
    with pytest.raises(UserError, match="warmup_steps is 21, but the training has only 20 steps"):
        train(run)
