"""Metrics against scikit-learn's, and what a reader is told."""

import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

import evaluation
import saved_model
from command_line import UserError
from data_loader import open_dataset


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
    metrics = {"expressions": ["Sad", "Happy"], "splits": {"PublicTest": {**values, "seconds": 0.5}}}
    report = evaluation.report(metrics)
    assert "Validation accuracy: 87.5% (PublicTest)" in report
    assert "Test accuracy: none, the dataset has no PrivateTest split" in report
    assert "Evaluated 8 faces in 0.5 s" in report


def test_pictures_and_json_are_whole(tmp_path):
    matrix = np.array([[3, 1], [0, 4]])
    values = {**evaluation.scores(matrix), "confusion_matrix": matrix.tolist(), "seconds": 0.5}
    metrics = {"expressions": ["Sad", "Happy"], "splits": {"PrivateTest": values}}
    evaluation.write_metrics(metrics, tmp_path / "metrics.json")
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    evaluation.draw_confusion_matrix(metrics, tmp_path / "matrix.png")
    assert (tmp_path / "matrix.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 2


def test_dataset_of_other_expressions_is_refused(small_model, drawn_dataset):
    dataset = open_dataset(drawn_dataset)
    dataset.manifest["expressions"][0] = "Bored"
    with pytest.raises(UserError, match=r"Bored.*but the model was trained on Angry"):
        evaluation.evaluate(saved_model.load(small_model), dataset)


def test_dataset_with_features_computed_otherwise_is_refused(small_model, drawn_dataset):
    dataset = open_dataset(drawn_dataset)
    dataset.manifest["recipes"]["landmarks"]["shape_predictor_sha256"] = "another"
    with pytest.raises(UserError, match="features computed otherwise"):
        evaluation.evaluate(saved_model.load(small_model), dataset)


def test_dataset_without_evaluation_splits_is_refused(small_model, drawn_dataset):
    dataset = open_dataset(drawn_dataset)
    for split in ("PublicTest", "PrivateTest"):
        del dataset.manifest["splits"][split]
    with pytest.raises(UserError, match="neither a PublicTest nor a PrivateTest split"):
        evaluation.evaluate(saved_model.load(small_model), dataset)
