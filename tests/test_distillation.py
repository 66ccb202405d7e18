"""Learning from a teacher: what it is asked, what becomes of its answers, and who may be one."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, command_line

from ferkit import interpreter, saved_model
from ferkit.constants import EMOTIONS
from ferkit.data.dataset import open_dataset
from ferkit.errors import UserError
from ferkit.learning.distillation import Teacher, find_teachers
from ferkit.learning.run import CannotResume, Run
from ferkit.learning.training import batches, train
from ferkit.search import mongo
from ferkit.search.space import searched_hyperparams, suggest
from ferkit.search.state import search_settings
from ferkit.search.trial import run_trial
from ferkit.settings import Augmentation, Hyperparams, Network, Training
from model import ARCHITECTURES
from parameters import OPTIMIZER, TRAINING
from train import main

NETWORK = Network(model="slim", features="landmarks")
QUICK = Hyperparams(optimizer="adam", optimizer_param=0.9, learning_rate=1e-3, batch_size=64, keep_prob=0.8)
CHANGES = Augmentation(flip=True, shift=0.1, rotation=12)


def taught_by(model: Path, share: float = 0.5) -> Hyperparams:
    return replace(QUICK, teacher=str(model), teacher_share=share)


def run_on(folder: Path, hyperparams: Hyperparams, training: Training = TRAINING, **changes: object) -> Run:
    return Run(open_dataset(folder), ARCHITECTURES["slim"], NETWORK, hyperparams, training, **changes)


def places(folder: Path, **changes: object) -> Training:
    paths = {
        "save_model_path": str(folder / "saved_model.bin"),
        "checkpoint_folder": str(folder / "checkpoints"),
        "logs_folder": str(folder / "logs"),
    }
    return replace(TRAINING, **{"epochs": 1, **paths, **changes})


def test_teacher_says_what_its_model_says_of_the_expressions_asked_for(raw_model, drawn_dataset):
    faces = open_dataset(drawn_dataset).load("PublicTest", "landmarks")
    said = saved_model.load(raw_model).predict(faces.images, faces.features[:, :0])
    whole = Teacher(str(raw_model), EMOTIONS, "landmarks")
    np.testing.assert_allclose(whole.probabilities(faces.images, faces.features), said, atol=1e-4)
    some = Teacher(str(raw_model), ("Sad", "Happy"), "landmarks").probabilities(faces.images, faces.features)
    asked = said[:, [4, 3]]
    seen = asked.sum(axis=1) > 0.01
    assert seen.sum() > 50
    np.testing.assert_allclose(some[seen], asked[seen] / asked[seen].sum(axis=1, keepdims=True), atol=2e-4)
    np.testing.assert_allclose(some.sum(axis=1), 1, atol=1e-6)


def test_teacher_with_the_same_features_sees_them(small_model, drawn_dataset):
    faces = open_dataset(drawn_dataset).load("PublicTest", "landmarks")
    said = saved_model.load(small_model).predict(faces.images, faces.features)
    teacher = Teacher(str(small_model), EMOTIONS, "landmarks")
    np.testing.assert_allclose(teacher.probabilities(faces.images, faces.features), said, atol=1e-4)


def test_batches_ask_the_teacher_of_the_changed_faces(small_model, drawn_dataset):
    run = run_on(drawn_dataset, taught_by(small_model), augmentation=CHANGES)
    learn = run.dataset.load("Training", "landmarks")
    batch, taught = next(batches(run, learn, epoch=1))
    said = saved_model.load(small_model).predict(batch.images, batch.features)
    np.testing.assert_allclose(taught, said, atol=1e-4)
    assert (batch.images != next(batches(replace(run, augmentation=Augmentation()), learn, 1))[0].images).any()
    assert next(batches(replace(run, hyperparams=QUICK), learn, epoch=1))[1] is None


def test_teacher_sees_the_clear_face_of_what_is_learned(small_model, drawn_dataset):
    degrading = replace(CHANGES, contrast=0.3, blur=1.0, darkness=1.0, erasing=1.0)
    learned, asked = (
        run_on(drawn_dataset, taught_by(small_model), augmentation=changes) for changes in (degrading, CHANGES)
    )
    asked = replace(asked, augmentation=replace(CHANGES, contrast=0.3))
    learn = learned.dataset.load("Training", "landmarks")
    batch, taught = next(batches(learned, learn, epoch=1))
    clear, said = next(batches(asked, learn, epoch=1))
    np.testing.assert_array_equal(taught, said)
    assert np.abs(batch.images.astype(int) - clear.images).mean() > 10


def test_several_teachers_are_averaged_as_if_they_had_learned_the_same_labels(raw_model, drawn_dataset, tmp_path):
    faces = open_dataset(drawn_dataset).load("PublicTest", "none")
    trained, shares = saved_model.load(raw_model), ([0.4] + [0.1] * 6, [0.05, 0.35] + [0.12] * 5)
    paths = [tmp_path / "first.bin", tmp_path / "second.bin"]
    for path, own in zip(paths, shares, strict=True):
        saved_model.save(path, trained.flatbuffer, {**trained.facts, "frequencies": own, "temperature": 1.0})
    teachers = Teacher(f"{paths[0]}+{paths[1]}", EMOTIONS, "none")
    asked = teachers.probabilities(faces.images, faces.features, np.full(7, 1 / 7))
    said = saved_model.load(paths[0]).predict(faces.images, faces.features)
    moved = [said / own / (said / own).sum(axis=1, keepdims=True) for own in shares]
    np.testing.assert_allclose(asked, np.mean(moved, axis=0), atol=1e-4)
    digest = trained.facts["network_sha256"]
    assert [facts["teacher_sha256"] for facts in teachers.facts["teachers"]] == [digest, digest]


def test_teacher_of_the_same_labels_says_what_it_says_elsewhere(raw_model, drawn_dataset, tmp_path):
    faces = open_dataset(drawn_dataset).load("PublicTest", "none")
    trained, shares = saved_model.load(raw_model), np.array([0.4] + [0.1] * 6, np.float32)
    facts = {**trained.facts, "frequencies": shares.tolist(), "temperature": 1.5}
    saved_model.save(tmp_path / "model.bin", trained.flatbuffer, facts)
    said = saved_model.load(tmp_path / "model.bin").predict(faces.images, faces.features)
    taught = Teacher(str(tmp_path / "model.bin"), EMOTIONS, "none").probabilities(faces.images, faces.features, shares)
    np.testing.assert_allclose(taught, said, atol=1e-4)


def test_memory_is_laid_out_once_for_batches_of_any_size(small_model, drawn_dataset, monkeypatch):
    learn = open_dataset(drawn_dataset).load("Training", "landmarks")
    images, vectors = learn.images[:100], learn.features[:100]
    teacher = Teacher(str(small_model), EMOTIONS, "landmarks")
    said = teacher.probabilities(images, vectors)
    np.testing.assert_allclose(said, saved_model.load(small_model).predict(images, vectors), atol=1e-4)
    monkeypatch.setattr(interpreter, "quiet", lambda: pytest.fail("laid out anew"))
    np.testing.assert_array_equal(teacher.probabilities(images, vectors), said)


def test_saved_model_tells_its_teacher_and_another_cannot_take_over(small_model, raw_model, drawn_dataset, tmp_path):
    hyperparams = replace(taught_by(small_model), label_smoothing=0.1)
    run = run_on(drawn_dataset, hyperparams, places(tmp_path))
    train(run)
    facts = saved_model.load(tmp_path / "saved_model.bin").facts
    assert facts["teacher"]["teacher_sha256"] == saved_model.load(small_model).facts["network_sha256"]
    assert facts["label_smoothing"] == pytest.approx(0.05), "half of the labels were the teacher's"
    path = tmp_path / "teacher.bin"
    path.write_bytes(raw_model.read_bytes())
    elsewhere = replace(run, hyperparams=replace(hyperparams, teacher=str(path)), training=places(tmp_path, epochs=2))
    with pytest.raises(CannotResume, match="has teacher={.*, not {"):
        train(elsewhere, resume=True)
    path.write_bytes(small_model.read_bytes())
    assert len(train(replace(elsewhere), resume=True).history) == 2, "the same teacher in another place"
    with pytest.raises(CannotResume, match=r"has teacher_share=0.5, not 0.0"):
        train(replace(run, hyperparams=replace(QUICK, label_smoothing=0.1)), resume=True)


def test_training_begun_before_there_were_teachers_is_resumed(drawn_dataset, tmp_path):
    run = run_on(drawn_dataset, QUICK, places(tmp_path, save_model=False))
    train(run)
    path = tmp_path / "checkpoints" / "state.json"
    state = json.loads(path.read_text())
    del state["settings"]["teacher_share"]
    path.write_text(json.dumps(state))
    assert len(train(replace(run, training=places(tmp_path, save_model=False, epochs=2)), resume=True).history) == 2


def test_teacher_is_not_replaced_by_what_it_taught(small_model, drawn_dataset, tmp_path, capsys):
    model = tmp_path / "saved_model.bin"
    shutil.copy(small_model, model)
    flags = [f"--teacher={model}", "--teacher_share=0.5", f"--model_path={model}", f"--folder={drawn_dataset}"]
    assert main(["--train=yes", "--model=slim", "--features=landmarks", *flags]) == 2
    assert "would be replaced: name another --model_path" in capsys.readouterr().err
    assert model.read_bytes() == small_model.read_bytes()
    assert main(["--train=yes", "--teacher_share=1.5"]) == 2
    assert "teacher_share is 1.5: it must be from 0 to 1" in capsys.readouterr().err


def test_search_keeps_to_its_teacher(small_model, raw_model, drawn_dataset, tmp_path):
    path = tmp_path / "teacher.bin"
    shutil.copy(small_model, path)
    run = run_on(drawn_dataset, taught_by(path))
    settings = search_settings(run, replace(OPTIMIZER, samples=64))
    assert settings["teacher"] == run.teacher.facts
    assert "teacher" not in search_settings(replace(run, hyperparams=QUICK), OPTIMIZER)
    mongo.check_worker(settings, str(drawn_dataset), ARCHITECTURES, "x")
    shutil.copy(raw_model, path)
    with pytest.raises(UserError, match="is another teacher than that of x: copy it from there"):
        mongo.check_worker(settings, str(drawn_dataset), ARCHITECTURES, "x")
    chosen = searched_hyperparams(settings, suggest(settings, [], 1))
    job = {"settings": settings, "parameters": chosen, "folder": str(drawn_dataset)}
    outcome = run_trial(job, command_line("optimize_hyperparams.py", "--trial", slim=True), lambda accuracies: False)
    assert outcome.status == "failed" and "is another teacher than that of the search" in outcome.reason


def test_who_cannot_be_a_teacher(small_model, drawn_dataset, tmp_path, monkeypatch, capsys):
    with pytest.raises(UserError, match="does not know Bored, Tired: name another --teacher"):
        Teacher(str(small_model), ("Happy", "Bored", "Tired"), "landmarks")
    with pytest.raises(UserError, match="wants features=landmarks, which the network in training has not"):
        Teacher(str(small_model), EMOTIONS, "landmarks_hog")
    dataset = open_dataset(drawn_dataset)
    dataset.manifest["feature_provenance"]["landmarks"] = {"shape_predictor_sha256": "of another"}
    with pytest.raises(UserError, match="computed otherwise than the teacher's"):
        _ = Run(dataset, ARCHITECTURES["slim"], NETWORK, taught_by(small_model), TRAINING).teacher
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no teacher at nowhere.bin: name another --teacher"):
        Teacher("nowhere.bin", EMOTIONS, "none")
    Path("damaged.bin").write_bytes(b"no model")
    with pytest.raises(UserError, match="name another with --teacher, or copy it again"):
        Teacher("damaged.bin", EMOTIONS, "none")
    with pytest.raises(UserError, match=r"ferplus\+ does not name a model before and after each plus"):
        Teacher("ferplus+", EMOTIONS, "none")
    Path("share.json").write_text('{"teacher": "", "teacher_share": 0.5}')
    for engine in ("tensorflow", "pytorch"):
        assert main(["--train=yes", f"--folder={drawn_dataset}", "--hyperparams=share.json", f"--engine={engine}"]) == 2
        assert capsys.readouterr().err.startswith("error: teacher_share is above 0, but no teacher is named: use")
    with pytest.raises(UserError, match="no teacher is named"):
        train(run_on(drawn_dataset, replace(QUICK, teacher="", teacher_share=0.5), places(tmp_path)))


def test_shipped_model_is_found_from_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_teachers("pretrained/saved_model.bin") == {str(ROOT / "pretrained" / "saved_model.bin"): 1}
    assert find_teachers("ferplus") == {str(ROOT / "pretrained" / "ferplus" / "saved_model.bin"): 1}
    (tmp_path / "pretrained").mkdir()
    (tmp_path / "pretrained" / "saved_model.bin").write_text("one's own")
    assert find_teachers("pretrained/saved_model.bin") == {"pretrained/saved_model.bin": 1}
