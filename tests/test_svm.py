"""The support vector machine: predicts as scikit-learn does, repeatably, and opens no file that is not its own."""

import dataclasses
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from experiments import support_vector_machine, train_svm
from experiments.support_vector_machine import Choice, Machine, Scaling, all_choices, fit, load, place_landmarks, solve
from ferkit import saved_model
from ferkit.data.dataset import Split, open_dataset
from ferkit.errors import UserError
from ferkit.learning import evaluation
from ferkit.settings import check
from parameters import SVM

SETTINGS = dataclasses.replace(
    SVM, features="landmarks_hog", components=60, trial_faces=300, penalties=(1.0, 3.0), hog_weights=(1.0, 3.0)
)


@pytest.fixture(scope="module")
def machine(drawn_dataset) -> Machine:
    return support_vector_machine.train(open_dataset(drawn_dataset), SETTINGS)


@pytest.fixture
def saved(machine, tmp_path) -> Path:
    machine.save(tmp_path / "svm.npz")
    return tmp_path / "svm.npz"


@pytest.mark.parametrize("classes", [2, 7])
@pytest.mark.parametrize("kernel", SVM.kernels)
def test_decides_as_scikit_learn_does(drawn_dataset, kernel, classes):
    dataset = open_dataset(drawn_dataset)
    learn, test = (dataset.load(split, "landmarks") for split in ("Training", "PrivateTest"))
    rows = learn.labels < classes
    learn = Split(learn.images[rows], learn.features[rows], learn.labels[rows])
    choice = Choice("face", 1.0, kernel, 3.0, 0.3)
    scaling = Scaling.of(learn.features, "landmarks", choice.landmarks, choice.hog_weight, 40)
    names = dataset.expressions[:classes]
    ours = fit(learn, scaling, choice, {"expressions": names, "temperature": 1.0})
    theirs = solve(scaling(learn.features), learn.labels, choice)
    inputs = scaling(test.features).astype(np.float64)
    expected = theirs.decision_function(inputs)
    if classes == 2:
        np.testing.assert_allclose(-ours.decisions(test.features)[:, 0], expected, atol=1e-9)
    else:
        np.testing.assert_allclose(ours.scores(test.features), expected, atol=1e-9)
    probabilities = ours.predict(test.images, test.features)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), theirs.predict(inputs))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert ours.predict(test.images[:0], test.features[:0]).shape == (0, classes)


def test_saved_machine_is_evaluated_like_a_network_and_is_far_better_than_guessing(machine, saved, drawn_dataset):
    metrics = evaluation.evaluate(load(saved), open_dataset(drawn_dataset))
    assert min(values["accuracy"] for values in metrics["splits"].values()) > 0.7, "of seven, guessing gets 14%"
    assert metrics["splits"]["PublicTest"]["accuracy"] == machine.facts["validation_accuracy"]
    assert {"deduplicated", "calibration_error", "confusion_matrix"} <= metrics["splits"]["PrivateTest"].keys()
    assert metrics["model"]["versions"].keys() == {"python", "scikit-learn", "numpy"}


def test_public_test_chooses_among_all_combinations(machine):
    trials = machine.facts["trials"]
    assert len(trials) == len(all_choices(SETTINGS)) == 2 * 2 * (2 + 2 * 2)
    assert len(all_choices(dataclasses.replace(SETTINGS, features="landmarks"))) == 2 * (2 + 2 * 2), "without weights"
    assert len(all_choices(dataclasses.replace(SETTINGS, features="lbp+gabor"))) == 2 * (2 + 2 * 2), "without places"
    best = max(trials, key=lambda trial: trial["validation_accuracy"])
    assert machine.facts["choice"].items() <= best.items()
    assert len({trial["validation_accuracy"] for trial in trials}) > 1


def test_seed_makes_a_machine_repeatable(machine, drawn_dataset):
    again = support_vector_machine.train(open_dataset(drawn_dataset), SETTINGS)
    assert again.facts["trials"] == machine.facts["trials"]
    np.testing.assert_array_equal(again.coefficients, machine.coefficients)
    np.testing.assert_array_equal(again.support, machine.support)
    other = support_vector_machine.train(open_dataset(drawn_dataset), dataclasses.replace(SETTINGS, seed=1))
    assert other.facts["trials"] != machine.facts["trials"], "other faces to choose with"


def test_landmarks_in_the_face_do_not_depend_on_the_crop():
    random = np.random.default_rng(0)
    vectors = random.uniform(0, 48, (5, 208)).astype(np.float32)
    angle, turned = 0.3, vectors.copy()
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    points = vectors[:, :136].reshape(-1, 68, 2) @ turn * 1.3 + [4, -7]
    turned[:, :136] = points.reshape(5, 136)
    np.testing.assert_allclose(
        place_landmarks(turned, "landmarks_hog", "face"), place_landmarks(vectors, "landmarks_hog", "face"), atol=1e-5
    )
    np.testing.assert_array_equal(place_landmarks(turned, "landmarks_hog", "crop"), turned)
    placed = place_landmarks(vectors, "landmarks_hog", "face")[:, :136].reshape(5, 68, 2)
    np.testing.assert_allclose(placed.mean(axis=1), 0, atol=1e-9)
    np.testing.assert_allclose((placed**2).sum(axis=2).mean(axis=1), 1)
    level = placed[:, 42:48].mean(axis=1) - placed[:, 36:42].mean(axis=1)
    assert np.abs(level[:, 1]).max() < 1e-9 and level[:, 0].min() > 0


def test_parts_have_the_weights_that_are_asked_for(drawn_dataset):
    vectors = open_dataset(drawn_dataset).load("Training", "landmarks_hog").features
    for weight in (0.5, 3.0):
        inputs = Scaling.of(vectors, "landmarks_hog", "face", weight, 300)(vectors)
        varying = (vectors.std(axis=0) > 1e-6)[136:].mean()
        assert inputs.var(axis=0).sum() == pytest.approx(1 + weight * varying, rel=1e-3)
        assert (np.diff(inputs.var(axis=0)) < 1e-6).all(), "the greatest components first"
    assert Scaling.of(vectors, "landmarks_hog", "face", 1.0, 20)(vectors).shape == (700, 20)


def rewritten(path: Path, facts: dict | None = None, **arrays: np.ndarray) -> None:
    """The saved machine with some of its facts or arrays replaced."""
    with zipfile.ZipFile(path) as archive:
        known = {**json.loads(archive.read("facts.json")), **(facts or {})}
    with np.load(path) as file:
        values = {name: file[name] for name in support_vector_machine.ARRAYS} | arrays
    np.savez(path, **values)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("facts.json", json.dumps(known))


def test_file_that_is_not_whole_is_refused(saved):
    content = saved.read_bytes()
    middle = len(content) // 2
    for damaged in (b"", content[:-100], content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]):
        saved.write_bytes(damaged)
        with pytest.raises(UserError, match="is not a whole saved machine"):
            load(saved)


class Trap:
    """What a pickle would run when it is opened."""

    def __reduce__(self):
        return pytest.fail, ("the pickle was opened",)


def test_pickle_in_the_file_is_never_opened(saved):
    rewritten(saved, intercepts=np.array([Trap()], dtype=object))
    with pytest.raises(UserError, match="allow_pickle=False"):
        load(saved)


def test_facts_and_arrays_that_do_not_fit_are_refused(machine, saved):
    choice = machine.facts["choice"]
    for change in (
        {"intercepts": machine.intercepts[1:]},
        {"support": machine.support[:, 1:]},
        {"mean": np.full_like(machine.scaling.mean, np.nan)},
        {"facts": {"features": "landmarks"}},
        {"facts": {"expressions": ["Happy", "Sad"]}},
        {"facts": {"choice": {**choice, "kernel": "poly"}}},
        {"facts": {"choice": {**choice, "gamma": "wide"}}},
        {"facts": {"temperature": 0}},
    ):
        machine.save(saved)
        rewritten(saved, **change)
        with pytest.raises(UserError, match="is not a whole saved machine"):
            load(saved)
    rewritten(saved, facts={"format": 0})
    with pytest.raises(UserError, match="another version"):
        load(saved)


def test_networks_and_machines_are_not_taken_for_one_another(saved, raw_model):
    with pytest.raises(UserError, match="is a support vector machine"):
        saved_model.load(saved)
    with pytest.raises(UserError, match="is a network: "):
        load(raw_model)


def test_machine_of_other_features_than_asked_for_is_refused(saved, drawn_dataset, capsys):
    flags = ["--train=no", f"--folder={drawn_dataset}", f"--model_path={saved}"]
    assert train_svm.main([*flags, "--features=landmarks"]) == 2
    assert "was trained with features=landmarks_hog: leave out --features=landmarks" in capsys.readouterr().err
    assert train_svm.main([*flags, "--features=landmarks_hog"]) == 0
    flags[-1] = f"--save_model_path={saved}"  # as the flag was called before
    assert train_svm.main(flags) == 0


def test_command_says_what_is_missing(drawn_dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for flag, fragments in (
        ("--train=no", ["no trained machine at best_svm/svm.npz", "experiments.train_svm"]),
        ("--trial_faces=3", ["--trial_faces"]),
    ):
        assert train_svm.main([flag, f"--folder={drawn_dataset}"]) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert all(fragment in line for fragment in fragments)


def test_settings_that_no_machine_can_use_are_refused(tmp_path):
    for change, reason in (
        ({"kernels": ()}, "kernels is .* one or more of linear, rbf"),
        ({"kernels": ("poly",)}, "kernels is"),
        ({"landmarks": ("eyes",)}, "landmarks is .* crop, face"),
        ({"penalties": (0.0,)}, "penalties is .* above 0"),
        ({"gammas": ()}, "gammas is"),
        ({"hog_weights": (-1.0, 1.0)}, "hog_weights is"),
    ):
        with pytest.raises(UserError, match=reason):
            check(dataclasses.replace(SVM, **change))
    check(SVM)


def test_nothing_but_a_saved_machine_is_replaced(machine, saved, tmp_path):
    other = tmp_path / "photos.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("photo.txt", "a face")
    for path, reason in (
        (other, "is no saved support vector machine and would be replaced"),
        (ROOT / "pretrained" / "saved_model.bin", "is no saved support vector machine and would be replaced"),
        (tmp_path, "is a folder: the saved machine is a file"),
        (other / "svm.npz", "is a file, not a folder"),
    ):
        with pytest.raises(UserError, match=reason):
            support_vector_machine.check_place(path)
    support_vector_machine.check_place(saved)
    support_vector_machine.check_place(tmp_path / "new" / "svm.npz")
