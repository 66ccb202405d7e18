"""The whole of it, as the README has it: drawn faces, converted, learned, evaluated and recognized."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import run_script

CONVERT = "convert_fer2013_to_images_and_landmarks.py"


def accuracies(folder: Path) -> dict[str, float]:
    metrics = json.loads((folder / "best_model" / "metrics.json").read_text())
    return {split: values["accuracy"] for split, values in metrics["splits"].items()}


@pytest.mark.parametrize(
    "flags",
    [
        ["--model=slim", "--settings=ours", "--epochs=10"],
        pytest.param(["--model=A", "--epochs=16"], marks=pytest.mark.slow),
    ],
    ids=["slim", "Model A"],
)
def test_documented_commands_reach_a_real_accuracy_on_drawn_faces(flags, drawn_csv, tmp_path):
    shutil.copy(drawn_csv, tmp_path / "fer2013.csv")
    assert run_script(CONVERT, cwd=tmp_path).returncode == 0
    run = run_script("train.py", "--train=yes", "--evaluate=yes", *flags, cwd=tmp_path, slim=True)
    assert run.returncode == 0, run.stderr
    for line in ("Validation accuracy: ", "Test accuracy: ", "Evaluated 280 faces in "):
        assert line in run.stdout
    reached = accuracies(tmp_path)
    assert min(reached.values()) > 0.8, "seven expressions, of which guessing gets 14%"

    run = run_script("train.py", "--evaluate=yes", cwd=tmp_path)
    assert run.returncode == 0 and accuracies(tmp_path) == reached, "what was evaluated is what was saved"

    assert run_script("ferkit.data.drawn_faces", "--photo=photo.png", cwd=tmp_path).returncode == 0
    run = run_script("predict.py", "--image", "photo.png", "--output", "annotated.png", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("Prediction: ") == 3 and (tmp_path / "annotated.png").exists()


def test_slice_of_the_real_faces(fer2013_csv, tmp_path):
    run = run_script(CONVERT, f"--input={fer2013_csv}", "--limit=600", "--expressions=3,5", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    manifest = json.loads((tmp_path / "fer2013_features" / "manifest.json").read_text())
    assert manifest["expressions"] == ["Happy", "Surprise"] and manifest["dropped"] == {}
    rows = pd.read_csv(fer2013_csv, nrows=40000).query("emotion in (3, 5)").groupby("Usage").head(600)
    for split, expected in rows.groupby("Usage"):
        folder = tmp_path / "fer2013_features" / split
        np.testing.assert_array_equal(np.load(folder / "labels.npy").argmax(1), (expected["emotion"] == 5).astype(int))
        images = np.array([pixels.split() for pixels in expected["pixels"][:20]], np.uint8).reshape(-1, 48, 48)
        np.testing.assert_array_equal(np.load(folder / "images.npy")[:20], images)
    quick = ["--optimizer=adam", "--optimizer_param=0.9", "--learning_rate=0.001", "--batch_size=32", "--standardize"]
    run = run_script("train.py", "--train=yes", "--evaluate=yes", "--model=A", "--output_size=2", "--epochs=4",
                     "--features=landmarks_hog", *quick, cwd=tmp_path)  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert min(accuracies(tmp_path).values()) > 0.8, "happy or surprised, of which guessing gets 68%"
