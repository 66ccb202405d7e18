"""check_labels.py: labels that were made wrong on purpose are found, and a page shows them."""

import csv
import html
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

import check_labels
from ferkit import labels, saved_model
from ferkit.errors import UserError
from ferkit.recognition import Recognizer


@pytest.fixture(scope="module")
def flipped() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Activations (400, 20) of four classes, labels of which one in ten was made wrong, and which these are."""
    random = np.random.default_rng(4)
    truth = np.repeat(np.arange(4), 100)
    activations = random.normal(size=(400, 20)) + 2 * random.normal(size=(4, 20))[truth]
    wrong = np.zeros(400, bool)
    wrong[random.choice(400, 40, replace=False)] = True
    given = np.where(wrong, (truth + random.integers(1, 4, 400)) % 4, truth)
    return activations, given, wrong


def test_most_labels_that_were_made_wrong_are_found(flipped):
    activations, given, wrong = flipped
    doubted = labels.disagreeing(labels.out_of_sample(activations, given, folds=5), given)
    assert doubted[wrong].mean() >= 0.85 and doubted[~wrong].mean() <= 0.03


def test_doubts_are_those_of_cleanlab(flipped):
    cleanlab = pytest.importorskip("cleanlab.filter")
    activations, given, _ = flipped
    probabilities = labels.out_of_sample(activations, given, folds=5)
    theirs = cleanlab.find_label_issues(given, probabilities, n_jobs=1)  # prunes by noise rate
    ours = labels.disagreeing(probabilities, given)
    assert (ours & theirs).sum() >= 0.9 * (ours | theirs).sum() > 30


def test_no_face_teaches_the_classifier_that_answers_for_it(flipped):
    """A face that nothing but its own label tells apart cannot be answered."""
    random = np.random.default_rng(0)
    noise, given = random.normal(size=(200, 100)), random.integers(0, 2, 200)
    answers = labels.out_of_sample(noise, given, folds=5).argmax(axis=1)
    assert (answers == given).mean() == pytest.approx(0.5, abs=0.12)


def test_penultimate_and_the_last_layer_give_the_logits(small_model, drawn_dataset):
    """The slim network has landmarks too: both of its inputs reach the layer before the last."""
    model = saved_model.load(small_model)
    images = np.load(drawn_dataset / "PrivateTest" / "images.npy")[:70]
    vectors = np.load(drawn_dataset / "PrivateTest" / "landmarks.npy")[:70].reshape(70, -1)
    before = labels.penultimate(model, images, vectors)
    assert before.shape == (70, 16)
    from ai_edge_litert.schema_py_generated import BuiltinOperator as kinds

    from ferkit.flatbuffer import Flatbuffer

    graph = Flatbuffer(model.flatbuffer)
    last = graph.maker(graph.maker(graph.output, kinds.SOFTMAX).inputs[0], kinds.FULLY_CONNECTED)
    weights, bias = (graph.constant(tensor) for tensor in last.inputs[1:])
    logits = before @ weights.T + bias
    expected = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model._run_all(images, vectors), expected, atol=1e-4)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> list[str]:
    """Bright and dark pictures in two folders; one in each lies in the wrong one. Returns the names of these."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(1)
    for name, level in (("bright <b>", 200), ("dark", 60)):
        for number in range(30):
            wrong = number == 7
            path = Path("faces", name, f"{number}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            shown = 260 - level if wrong else level
            cv2.imwrite(str(path), np.clip(random.normal(shown, 15, (48, 48)), 0, 255).astype(np.uint8))
    return ["faces/bright <b>/7.png", "faces/dark/7.png"]


def test_page_and_table_show_them(folder, capsys):
    assert check_labels.main(["--input=faces", "--output=labels.html", "--most=5"]) == 0
    assert "Faces with probably wrong labels: 2 of 60" in capsys.readouterr().out
    rows = list(csv.DictReader(Path("labels.csv").read_text().splitlines()))
    assert len(rows) == 60 and {row["face"] for row in rows} == {str(path) for path in Path("faces").rglob("*.png")}
    assert (
        sorted(row["face"] for row in rows if row["wrong"] == "yes")
        == folder
        == sorted(row["face"] for row in rows[:2])
    )
    assert {(row["label"], row["suggested"]) for row in rows[:2]} == {("bright <b>", "dark"), ("dark", "bright <b>")}
    page = Path("labels.html").read_text()
    assert page.count("<figure>") == 2 + 5 and "<b>/7" not in page, "names are escaped"
    assert all(html.escape(name) in page for name in folder)
    assert not re.search(r"(src|href)=\"(?!data:)", page) and "<script" not in page


def test_nothing_else_is_overwritten(folder, tmp_path, capsys):
    shutil.copy(check_labels.__file__, "mine.csv")
    Path("data.csv").write_text("emotion,pixels,Usage\n")
    for input, page, fragment in (
        ("data.csv", "data.html", "--output=data.html would overwrite data.csv, which is to be read"),
        ("faces", "mine.html", "mine.csv exists and is no table of this command"),
    ):
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        assert check_labels.main([f"--input={input}", f"--output={page}"]) == 2
        assert fragment in capsys.readouterr().err
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    for _ in range(2):
        assert check_labels.main(["--input=faces"]) == 0, "its own table is replaced"


def test_csv_is_checked_by_its_rows(drawn_csv, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    faces = labels.read_faces(drawn_csv)
    assert len(faces.labels) == 980 and faces.names[0] == "row 1" and faces.classes[3] == "Happy"
    changed = faces.labels.copy()
    wrong = np.random.default_rng(3).permutation(980)[:98]
    changed[wrong] = (changed[wrong] + 1) % 7
    review = labels.check_labels(faces._replace(labels=changed), Recognizer("ferplus"))
    assert np.isin(wrong, review.wrong).mean() > 0.8
    assert len(review.wrong) + len(review.unclear) == 980


def test_faces_of_ferplus_have_their_own_names(tmp_path):
    """Its folders are splits, not classes: `FER2013Train/fer0000000.png` with the votes in `label.csv`."""
    for number, (name, label) in enumerate((("FER2013Valid", 1), ("FER2013Train", 3), ("FER2013Train", 0)), 1):
        path = tmp_path / name / f"fer{number}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), np.full((48, 48), number, np.uint8))
        votes = [10 * (place == label) for place in range(10)]
        with (path.parent / "label.csv").open("a") as file:
            file.write(",".join(map(str, (path.name, *votes))) + "\n")
    faces = labels.read_faces(tmp_path)
    assert [Path(name).stem for name in faces.names] == [f"fer{face[0, 0]}" for face in faces.images]


def test_what_cannot_be_checked_is_one_line(folder, capsys):
    for flags, fragment in (
        (["--output=labels.txt"], "--output=labels.txt is no page"),
        (["--input=missing"], "no FER2013 at missing"),
        (["--model_path=missing"], "no trained model at missing"),
    ):
        assert check_labels.main(["--input=faces", *flags]) == 2
        assert fragment in capsys.readouterr().err
    faces = labels.read_faces("faces")
    alone = faces._replace(labels=np.where(np.arange(60) == 0, 0, 1))
    with pytest.raises(UserError, match=r"two or more faces: bright <b> is too few"):
        labels.check_labels(alone, Recognizer("ferplus"))
