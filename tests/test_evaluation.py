"""Metrics against scikit-learn's, and what a reader is told."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

import train
from ferkit import saved_model
from ferkit.data import conversion
from ferkit.data.dataset import Split, open_dataset
from ferkit.errors import UserError
from ferkit.learning import evaluation
from ferkit.learning.calibration import best_temperature, calibration_error
from ferkit.learning.plots import draw_confusion_matrix
from ferkit.transforms import average_over_views


@pytest.mark.parametrize("classes", [2, 5, 7])
def test_scores_equal_scikit_learns(classes):
    random = np.random.default_rng(classes)
    labels, predictions = random.integers(0, classes, (2, 300))
    labels[labels == 1] = 0  # a class without support,
    predictions[predictions == classes - 1] = 0  # and one that is never predicted
    matrix = evaluation.confusion_matrix(labels, predictions, classes)
    every = list(range(classes))
    np.testing.assert_array_equal(matrix, confusion_matrix(labels, predictions, labels=every))
    scores = evaluation.scores(matrix)
    oracle = precision_recall_fscore_support(labels, predictions, labels=every, zero_division=0)
    for name, expected in zip(("precision", "recall", "f1", "support"), oracle, strict=True):
        np.testing.assert_allclose(scores[name], expected, err_msg=name)
    assert scores["accuracy"] == pytest.approx(accuracy_score(labels, predictions))
    macro = f1_score(labels, predictions, labels=every, average="macro", zero_division=0)
    assert scores["macro_f1"] == pytest.approx(macro)


def test_report_says_which_split_is_missing():
    values = evaluation.scores(np.array([[3, 1], [0, 4]]))
    metrics = {
        "expressions": ["Sad", "Happy"],
        "model": {"expressions": ["Sad", "Happy"]},
        "splits": {"PublicTest": {**values, "calibration_error": 0.1234, "seconds": 0.5}},
    }
    report = evaluation.metrics_text(metrics)
    assert "Validation accuracy: 87.5% (PublicTest)" in report
    assert "Test accuracy: none, the dataset has no PrivateTest split" in report
    assert "Evaluated 8 faces in 0.5 s" in report
    assert "Expected calibration error: 0.123" in report and "also occur" not in report


def test_figures_of_included_models_go_into_the_current_folder(drawn_dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("fer2013", "fer2013+fer2013_large"):
        assert train.main(["--evaluate=yes", f"--folder={drawn_dataset}", f"--model_path={name}"]) == 0
        assert "Metrics and confusion matrix: metrics.json, confusion_matrix.png" in capsys.readouterr().out
        (tmp_path / "metrics.json").unlink()


def stub(rows: np.ndarray) -> SimpleNamespace:
    """A model of raw pixels that gives face i the probabilities `rows[i]`, where i is its first pixel."""
    return SimpleNamespace(
        expressions=("Sad", "Happy"), features="none", predict=lambda faces, vectors, augmented: rows[faces[:, 0, 0]]
    )


def split_of(labels: list[int]) -> Split:
    """Faces whose every pixel is their number."""
    images = np.repeat(np.arange(len(labels), dtype=np.uint8), 48 * 48).reshape(-1, 48, 48)
    return Split(images, np.zeros((len(labels), 0), np.float32), np.array(labels))


def test_faces_that_were_trained_on_are_left_out_of_the_second_accuracy():
    faces = split_of([0, 0, 1, 1, 1])
    model = stub(np.float32([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6], [0.8, 0.2]]))  # wrong in 1 and 4
    learned = np.concatenate([faces.images[[1, 3]], faces.images[[1]] + 90])
    metrics = evaluation.split_metrics(model, faces, learned, augmented=False)
    assert (metrics["count"], metrics["accuracy"]) == (5, 0.6)
    assert metrics["deduplicated"] == {"count": 3, "accuracy": pytest.approx(2 / 3)}
    report = evaluation.metrics_text(
        {
            "expressions": ["Sad", "Happy"],
            "model": {"expressions": ["Sad", "Happy"]},
            "splits": {"PrivateTest": metrics},
        }
    )
    assert "Without the 2 faces that also occur in Training: 66.7%" in report
    every = evaluation.split_metrics(model, faces, faces.images, augmented=False)
    assert every["deduplicated"] == {"count": 0, "accuracy": 0}
    assert "deduplicated" not in evaluation.split_metrics(model, faces, None, augmented=False)


def test_test_time_augmentation_is_averaged_before_anything_is_counted():
    """A model that is right about faces as they are, and surely wrong about all other views."""
    images = np.zeros((2, 48, 48), np.uint8)
    images[:, :, :24] = 200
    faces = Split(images, np.zeros((2, 0), np.float32), np.array([1, 1]))

    class Model:
        expressions, features = ("Sad", "Happy"), "none"

        def predict(self, faces: np.ndarray, vectors: np.ndarray, augmented: bool = False) -> np.ndarray:
            if augmented:
                return average_over_views(self.predict, faces, vectors, "none")
            is_original = (faces == images).all(axis=(1, 2))
            return np.where(is_original[:, None], np.float32([[0.4, 0.6]]), np.float32([[1, 0]]))

    assert evaluation.split_metrics(Model(), faces, None, augmented=False)["accuracy"] == 1
    assert evaluation.split_metrics(Model(), faces, None, augmented=True)["accuracy"] == 0


def test_calibration_error_is_what_is_counted_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.92, 0.08], [0.62, 0.38], [0.28, 0.72]])
    right, wrong = np.array([0, 0, 0, 1]), np.array([1, 0, 1, 1])
    # The first two share the bin from 13/15 to 14/15; the others have one each.
    assert calibration_error(probabilities, right) == pytest.approx((0.18 + 0.38 + 0.28) / 4)
    assert calibration_error(probabilities, wrong) == pytest.approx((0.82 + 0.62 + 0.28) / 4)
    certain = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert calibration_error(certain, np.array([0, 1])) == 0
    assert calibration_error(certain, np.array([1, 0])) == 1


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def logits_and_labels() -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from the probabilities that belong to the logits."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 1.5, (20000, 7))
    return logits, (softmax(logits).cumsum(axis=1) > random.random((20000, 1))).argmax(axis=1)


def test_calibration_error_is_of_too_much_and_too_little_confidence(logits_and_labels):
    logits, labels = logits_and_labels
    assert calibration_error(softmax(logits), labels) < 0.015
    assert calibration_error(softmax(3 * logits), labels) > 0.1
    assert calibration_error(softmax(logits / 3), labels) > 0.1


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 4.0])
def test_best_temperature_is_the_one_that_undoes_the_confidence(logits_and_labels, temperature):
    logits, labels = logits_and_labels
    probabilities = softmax(temperature * logits)
    found = best_temperature(probabilities, labels)
    assert found == pytest.approx(temperature, rel=0.04)
    calibrated = saved_model.at_temperature(probabilities, found)
    assert calibration_error(calibrated, labels) < 0.02


def test_best_temperature_of_a_model_that_is_never_wrong_is_a_number():
    certain = np.float32([[1, 0], [0, 1]])
    for labels in ([0, 1], [1, 0]):
        assert 0.1 <= best_temperature(certain, np.array(labels)) <= 10.001


def test_pictures_and_json_are_whole(tmp_path):
    matrix = np.array([[3, 1], [0, 4]])
    values = {**evaluation.scores(matrix), "confusion_matrix": matrix.tolist(), "seconds": 0.5}
    metrics = {"expressions": ["Sad", "Happy"], "splits": {"PrivateTest": values}}
    evaluation.write_metrics(metrics, tmp_path / "metrics.json")
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    draw_confusion_matrix(metrics, tmp_path / "matrix.png")
    assert (tmp_path / "matrix.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 2


def test_model_is_asked_for_those_of_its_expressions_that_the_dataset_has():
    rows = np.float32([[0.1, 0.7, 0.2], [0.3, 0.6, 0.1], [0, 1, 0]])
    model = SimpleNamespace(
        expressions=("Sad", "Fear", "Happy"), predict=lambda faces, vectors, augmented: rows[faces[:, 0, 0]]
    )
    metrics = evaluation.split_metrics(model, split_of([0, 1, 1]), None, False, ("Happy", "Sad"))
    assert metrics["confusion_matrix"] == [[1, 0], [1, 1]], "the last is a tie"
    assert np.isfinite(metrics["calibration_error"])


def test_faces_are_new_only_to_a_model_whose_training_faces_are_there(small_model, drawn_dataset, drawn_csv, tmp_path):
    model = saved_model.load(small_model)
    for folder, own in ((drawn_dataset, True), (tmp_path / "fewer", False)):
        if not own:
            conversion.convert(str(drawn_csv), str(folder), range(7), ["landmarks"], limit=50, processes=1)
        metrics = evaluation.evaluate(model, open_dataset(folder))
        assert ("deduplicated" in metrics["splits"]["PrivateTest"]) == own


def test_dataset_with_some_of_the_models_expressions_is_evaluated(small_model, drawn_csv, tmp_path):
    model = saved_model.load(small_model)
    conversion.convert(str(drawn_csv), str(tmp_path / "few"), (3, 4, 5), ["landmarks"], processes=1)
    few = open_dataset(tmp_path / "few")
    metrics = evaluation.evaluate(model, few)
    assert metrics["expressions"] == ["Happy", "Sad", "Surprise"]
    faces = few.load("PrivateTest", "landmarks")
    best = model.predict(faces.images, faces.features)[:, 3:6].argmax(axis=1)
    assert metrics["splits"]["PrivateTest"]["accuracy"] == accuracy_score(faces.labels, best)
    assert "deduplicated" not in metrics["splits"]["PrivateTest"], "the model was trained on more than these"
    assert "the model knows Angry, Disgust, Fear, Neutral as well" in evaluation.metrics_text(metrics)
    evaluation.evaluate_and_write(model, few, tmp_path / "few")
    assert {"metrics_asked_for_3.json", "confusion_matrix_asked_for_3.png"} <= {
        p.name for p in (tmp_path / "few").iterdir()
    }
    assert not (tmp_path / "few" / "metrics.json").exists(), "where the model's own are"


def test_dataset_of_other_expressions_is_refused(small_model, drawn_dataset):
    dataset = open_dataset(drawn_dataset)
    dataset.manifest["expressions"][0] = "Bored"
    with pytest.raises(UserError, match=r"Bored.*but the model was trained on Angry"):
        evaluation.evaluate(saved_model.load(small_model), dataset)


def test_dataset_with_features_computed_otherwise_is_refused(small_model, drawn_dataset):
    dataset = open_dataset(drawn_dataset)
    dataset.manifest["feature_provenance"]["landmarks"]["shape_predictor_sha256"] = "another"
    with pytest.raises(UserError, match="features computed otherwise"):
        evaluation.evaluate(saved_model.load(small_model), dataset)


def test_dataset_without_evaluation_splits_is_refused(small_model, drawn_dataset):
    dataset = open_dataset(drawn_dataset)
    for split in ("PublicTest", "PrivateTest"):
        del dataset.manifest["splits"][split]
    with pytest.raises(UserError, match="neither a PublicTest nor a PrivateTest split"):
        evaluation.evaluate(saved_model.load(small_model), dataset)
