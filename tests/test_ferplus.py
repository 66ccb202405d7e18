"""FER+: the votes joined, checked, learned and evaluated by the official rule."""

import csv
import gzip
import json
import os
import shutil
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from scipy.stats import entropy
from sklearn.metrics import accuracy_score

import convert_fer2013_to_images_and_landmarks as conversion
import parameters
import train
from ferkit import saved_model
from ferkit.constants import EMOTIONS
from ferkit.data import ferplus
from ferkit.data.dataset import open_dataset
from ferkit.data.ferplus import COLUMN_OF, COLUMNS, distributions, majority, read_votes
from ferkit.errors import UserError
from ferkit.learning.configuration import TrainingSettings
from ferkit.learning.graph import TrainingGraph
from ferkit.learning.training import batches
from ferkit.recognition import Recognizer
from ferkit.search.report import training_command
from ferkit.search.state import search_settings
from ferkit.settings import Hyperparams, Network, VideoPredictor
from ferkit.vision.boxes import Box
from ferkit.vision.detection import Found
from model import ARCHITECTURES

NO_FEATURES = ["--landmarks=no", "--hog=no", "--hog_windows=no"]
EIGHT = (*EMOTIONS, "Contempt")


def votes_for(rows: pd.DataFrame, seed: int = 0) -> np.ndarray:
    """Ten votes for each face, most of them for its label: (N, 10)."""
    random = np.random.default_rng(seed)
    votes = np.zeros((len(rows), len(COLUMNS)), int)
    for row, label in enumerate(rows["emotion"]):
        column = COLUMN_OF[EMOTIONS[label]]
        votes[row, column] = 7
        votes[row, random.choice([place for place in range(10) if place != column])] += 3
    return votes


def write_votes(path: Path, usages, votes: np.ndarray) -> Path:
    """A file laid out like Microsoft's fer2013new.csv."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Usage", "Image name", *COLUMNS])
        for number, (usage, row) in enumerate(zip(usages, votes, strict=True)):
            writer.writerow([usage, f"fer{number:07}.png", *row])
    return path


@pytest.fixture(scope="module")
def faces(drawn_csv) -> pd.DataFrame:
    return pd.read_csv(drawn_csv)


@pytest.fixture(scope="module")
def votes_csv(faces, tmp_path_factory) -> Path:
    return write_votes(tmp_path_factory.mktemp("ferplus") / "fer2013new.csv", faces["Usage"], votes_for(faces))


@pytest.fixture(scope="module")
def voted(drawn_csv, votes_csv) -> Path:
    """The drawn faces converted with their votes."""
    folder = votes_csv.with_name("features")
    flags = [f"--input={drawn_csv}", f"--folder={folder}", f"--ferplus={votes_csv}", *NO_FEATURES]
    assert conversion.main(flags) == 0
    return folder


# --- the rule --------------------------------------------------------------------------------------------------------


def official(votes: list[int], expressions: tuple[str, ...]) -> str | None:
    """The rule in words: no single votes; more than half of the rest; neither unknown nor no face."""
    counted = {name: count for name, count in zip(COLUMNS, votes, strict=True) if count > 1}
    for name, count in counted.items():
        if count > sum(counted.values()) / 2:
            names = {COLUMNS[COLUMN_OF[expression]]: expression for expression in expressions}
            return names.get(name)
    return None


@pytest.mark.parametrize("expressions", [EMOTIONS, EIGHT, ("Happy", "Sad")], ids=len)
def test_majority_is_the_official_rules(expressions):
    random = np.random.default_rng(1)
    votes = random.multinomial(10, random.dirichlet(np.full(10, 0.3), 500))[range(500)]
    found = majority(votes.astype(np.uint8), expressions)
    expected = [official(row, expressions) for row in votes.tolist()]
    assert [None if label < 0 else expressions[label] for label in found] == expected
    assert None in expected and len(set(expected)) == len(expressions) + 1


def test_distribution_is_the_share_of_the_votes_that_remain():
    votes = np.zeros((4, 10), np.uint8)
    votes[0, [COLUMN_OF["Happy"], COLUMN_OF["Neutral"], COLUMN_OF["Fear"], COLUMNS.index("unknown")]] = 4, 2, 1, 3
    votes[1, [COLUMN_OF["Sad"], COLUMNS.index("NF")]] = 4, 6
    votes[2, :10] = 1  # nothing remains
    votes[3, [COLUMN_OF["Sad"], COLUMNS.index("contempt")]] = 5, 5
    found = distributions(votes, EMOTIONS)
    assert found.dtype == np.float32
    expected = np.zeros((4, 7))
    expected[0, [EMOTIONS.index("Happy"), EMOTIONS.index("Neutral")]] = 4 / 6, 2 / 6
    expected[3, EMOTIONS.index("Sad")] = 1
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert distributions(votes, EIGHT)[3].tolist() == [0, 0, 0, 0, 0.5, 0, 0, 0.5]


# --- joining ---------------------------------------------------------------------------------------------------------


def test_votes_stand_beside_the_faces_they_belong_to(drawn_csv, voted, faces, votes_csv, tmp_path):
    votes = read_votes(votes_csv).votes
    for split, rows in faces.groupby("Usage").groups.items():
        np.testing.assert_array_equal(np.load(voted / split / "votes.npy"), votes[rows])
    manifest = json.loads((voted / "manifest.json").read_text())["ferplus"]
    assert manifest["columns"] == list(COLUMNS) and manifest["splits"]["Training"]["with_majority"] > 400

    flags = ["--expressions=3,5", "--limit=9", f"--folder={tmp_path / 'few'}", *NO_FEATURES]
    assert conversion.main([f"--input={drawn_csv}", f"--ferplus={votes_csv}", *flags]) == 0
    rows = faces[(faces["Usage"] == "PublicTest") & faces["emotion"].isin((3, 5))].index[:9]
    np.testing.assert_array_equal(np.load(tmp_path / "few" / "PublicTest" / "votes.npy"), votes[rows])


@pytest.mark.parametrize("boxes", [True, False], ids=["with boxes", "without"])
def test_folders_of_ferplus_give_the_same_faces_and_votes(faces, voted, votes_csv, tmp_path, boxes, capsys):
    folder, votes = tmp_path / "data", read_votes(votes_csv).votes
    lines: dict[str, list[str]] = {name: [] for name in ferplus.FOLDERS}
    name_of = {split: name for name, split in ferplus.FOLDERS.items()}
    for row, (pixels, usage) in enumerate(zip(faces["pixels"], faces["Usage"], strict=True)):
        path = folder / name_of[usage] / f"fer{row:07}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.array(pixels.split(), np.uint8).reshape(48, 48))
        lines[name_of[usage]].append(",".join((path.name, *['"(0, 0, 48, 48)"'] * boxes, *map(str, votes[row]))))
    for name, rows in lines.items():
        (folder / name / "label.csv").write_text("\n".join(rows) + "\n")

    flags = [f"--input={folder}", f"--folder={tmp_path / 'features'}", *NO_FEATURES]
    assert conversion.main(flags) == 0
    plain, joined = open_dataset(tmp_path / "features"), open_dataset(voted)
    for split in plain.counts:
        one, two = (dataset.labelled("ferplus").load(split, "none") for dataset in (plain, joined))
        np.testing.assert_array_equal(one.images, two.images)
        np.testing.assert_array_equal(one.targets, two.targets)
        np.testing.assert_array_equal(one.labels, two.labels)
    assert plain.labelled("ferplus").own_labels("PrivateTest") is None
    with pytest.raises(UserError, match="has no labels of FER2013, only the votes of FER\\+: use --labels=ferplus"):
        plain.labelled("fer2013")
    with pytest.raises(UserError, match="use --fer2013_share=0"):
        plain.mixed(0.3)

    assert conversion.main([*flags, f"--ferplus={votes_csv}"]) == 2
    assert "leave out --ferplus" in capsys.readouterr().err
    (folder / "FER2013Valid" / "label.csv").write_text("fer0000001.png,1,2\n")
    assert conversion.main(flags) == 2
    assert "row 1 of" in (error := capsys.readouterr().err) and "ten numbers of votes" in error


def test_compressed_votes_are_read(votes_csv, tmp_path):
    with gzip.open(tmp_path / "votes.csv.gz", "wb") as file:
        file.write(votes_csv.read_bytes())
    np.testing.assert_array_equal(read_votes(tmp_path / "votes.csv.gz").votes, read_votes(votes_csv).votes)


def test_votes_in_a_damaged_or_locked_archive_are_refused(votes_csv, tmp_path):
    packed, locked = tmp_path / "votes.tar", tmp_path / "votes.zip"
    with tarfile.open(packed, "w") as archive:
        archive.add(votes_csv, "fer2013new.csv")
    packed.write_bytes(packed.read_bytes()[:2000])
    with zipfile.ZipFile(locked, "w") as archive:
        archive.write(votes_csv, "fer2013new.csv")
    content = bytearray(locked.read_bytes())
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(mark) + place] |= 1  # says that it has a password
    locked.write_bytes(content)
    for path in (packed, locked):
        with pytest.raises(UserError, match="is cut off, damaged or locked .*: get it again from https://"):
            read_votes(path)


def test_csv_without_usage_cannot_be_joined(votes_csv, faces, tmp_path, capsys):
    source = tmp_path / "faces.csv"
    faces.drop(columns="Usage").to_csv(source, index=False)
    flags = [f"--input={source}", f"--folder={tmp_path / 'x'}", f"--ferplus={votes_csv}", *NO_FEATURES]
    assert conversion.main(flags) == 2
    assert "faces.csv has no column Usage, by which --ferplus joins the rows" in capsys.readouterr().err


def shuffled(faces: pd.DataFrame, votes: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The rows in another order within each split, so that the splits still agree."""
    order = np.concatenate(
        [np.random.default_rng(0).permutation(rows) for rows in faces.groupby("Usage", sort=False).groups.values()]
    )
    return list(faces["Usage"]), votes[order]


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        (lambda faces, votes: (faces["Usage"][:-1], votes[:-1]), "has 979 rows, "),
        (lambda faces, votes: (faces["Usage"][::-1], votes[::-1]), "in another order than"),
        (shuffled, "its likeliest expression is the label of"),
        (lambda faces, votes: (faces["Usage"][:0], votes[:0]), "has no FER+ votes"),
        (lambda faces, votes: (faces["Usage"], votes - 1), "votes below 0"),
        (lambda faces, votes: (faces["Usage"], votes.astype(str).astype(object) + "x"), "is no row of FER+"),
    ],
    ids=["fewer rows", "other splits", "other order", "empty", "negative", "no numbers"],
)
def test_votes_of_another_file_are_refused_before_anything_is_written(
    drawn_csv, faces, changed, complaint, tmp_path, capsys
):
    path = write_votes(tmp_path / "votes.csv", *changed(faces, votes_for(faces)))
    folder = tmp_path / "features"
    assert conversion.main([f"--input={drawn_csv}", f"--folder={folder}", f"--ferplus={path}", *NO_FEATURES]) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "votes.csv" in error and complaint in error and not folder.exists()


def test_missing_votes_are_said_with_their_address(drawn_csv, drawn_dataset, tmp_path, capsys):
    assert conversion.main([f"--input={drawn_csv}", "--ferplus=none.csv", f"--folder={tmp_path / 'x'}"]) == 2
    assert "get fer2013new.csv from https://" in capsys.readouterr().err
    assert train.main(["--train=yes", "--labels=ferplus", f"--folder={drawn_dataset}"]) == 2
    error = capsys.readouterr().err
    assert "has no FER+ votes, which labels=ferplus needs" in error and "--ferplus=fer2013new.csv" in error


# --- learning and evaluation -----------------------------------------------------------------------------------------


def test_splits_carry_what_people_see(voted):
    plain = open_dataset(voted)
    dataset = plain.labelled("ferplus")
    assert dataset.expressions == EMOTIONS and plain.labelled("ferplus8").expressions == EIGHT
    assert len({plain.fingerprint, dataset.fingerprint, plain.labelled("ferplus8").fingerprint}) == 3
    learn, test = dataset.load("Training", "none"), dataset.load("PrivateTest", "none")
    assert (len(learn), len(test)) == (dataset.counts["Training"], dataset.counts["PrivateTest"])
    votes = np.load(voted / "PrivateTest" / "votes.npy")
    np.testing.assert_array_equal(test.labels, [label for label in majority(votes, EMOTIONS) if label >= 0])
    np.testing.assert_allclose(learn.targets.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(learn.labels, learn.targets.argmax(axis=1))
    few = dataset.sampled(50, seed=0).load("Training", "none")
    assert len(few) == 50 and few.targets.shape == (50, 7)
    with pytest.raises(UserError, match="has 8 expressions"):
        plain.labelled("ferplus8").check("none", 7)


def test_a_share_of_fer2013s_own_labels_is_learned_but_not_evaluated(voted):
    dataset = open_dataset(voted).labelled("ferplus")
    votes, mixed = dataset.load("Training", "none"), dataset.mixed(0.3).load("Training", "none")
    own = np.eye(7)[dataset.own_labels("Training")]
    np.testing.assert_allclose(mixed.targets, 0.7 * votes.targets + 0.3 * own, atol=1e-6)
    np.testing.assert_array_equal(mixed.labels, votes.labels)
    for split in ("PublicTest", "PrivateTest"):
        np.testing.assert_array_equal(
            dataset.mixed(0.3).load(split, "none").targets, dataset.load(split, "none").targets
        )


def test_votes_are_learned_evaluated_and_kept_apart_from_labels(voted, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = [f"--folder={voted}", "--model=slim", "--settings=ours", "--features=none", "--epochs=4"]
    assert train.main(["--train=yes", "--evaluate=yes", "--labels=ferplus", "--logit_adjustment=0.3", *flags]) == 0
    printed = capsys.readouterr().out
    assert "labels: ferplus" in printed and "Where FER2013's own label is the same" in printed and "(KL): " in printed
    metrics = json.loads(Path("best_model/metrics.json").read_text())["splits"]["PrivateTest"]
    model = saved_model.load("best_model/saved_model.bin")
    assert model.facts["training"]["labels"] == "ferplus"
    test = open_dataset(voted).labelled("ferplus").load("PrivateTest", "none")
    probabilities = model.predict(test.images, test.features)
    assert metrics["count"] == len(test)
    assert metrics["accuracy"] == pytest.approx(accuracy_score(test.labels, probabilities.argmax(axis=1)))
    assert metrics["kl_divergence"] == pytest.approx(entropy(test.targets, probabilities, axis=1).mean(), rel=1e-4)
    assert metrics["where_labels_agree"]["count"] == metrics["count"], "the drawn votes are for the labels"
    assert metrics["where_labels_agree"]["accuracy"] == metrics["accuracy"]

    assert train.main(["--evaluate=yes", *flags]) == 0, "any model on either labels"
    own = json.loads(Path("best_model/metrics_fer2013.json").read_text())
    assert own["labels"] == "fer2013" and own["splits"]["PrivateTest"]["count"] == 140
    assert "deduplicated" in own["splits"]["PrivateTest"]

    assert train.main(["--train=yes", "--resume=yes", "--logit_adjustment=0.3", *flags]) == 4
    assert "has labels=ferplus, not fer2013" in capsys.readouterr().err


def test_balanced_model_weighs_its_answers_by_the_frequencies(voted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = [
        f"--folder={voted}",
        "--model=slim",
        "--settings=ours",
        "--features=none",
        "--epochs=1",
        "--labels=ferplus",
    ]
    assert train.main(["--train=yes", "--balance=0.5", *flags]) == 0
    dataset = open_dataset(voted).labelled("ferplus")
    frequencies = dataset.load("Training", "none").targets.mean(axis=0)
    model = saved_model.load("best_model/saved_model.bin")
    np.testing.assert_allclose(model.balance, frequencies**-0.5, rtol=1e-5)
    test = dataset.load("PrivateTest", "none")
    found = model.predict(test.images, test.features)
    model.balance, model.temperature, temperature = None, 1.0, model.temperature
    expected = (model.predict(test.images, test.features) / np.sqrt(frequencies)) ** (1 / temperature)
    np.testing.assert_allclose(found, expected / expected.sum(axis=1, keepdims=True), atol=1e-5)

    content = Path("best_model/saved_model.bin").read_bytes()
    facts = {**model.facts, "balance": [1.0, -1.0]}
    saved_model.save("bad.bin", content, facts)
    with pytest.raises(UserError, match=r"Expected `float` > 0.0 - at `\$.balance\[1\]`"):
        saved_model.load("bad.bin")


def test_photographs_are_answered_as_if_all_expressions_were_equally_likely(voted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = [f"--folder={voted}", "--model=slim", "--settings=ours", "--features=none", "--epochs=1"]
    assert train.main(["--train=yes", "--labels=ferplus", "--logit_adjustment=0.25", "--balance=0.5", *flags]) == 0
    dataset, model = open_dataset(voted).labelled("ferplus"), saved_model.load("best_model/saved_model.bin")
    frequencies = dataset.load("Training", "none").targets.mean(axis=0)
    np.testing.assert_allclose(model.facts["frequencies"], frequencies, rtol=1e-5)
    faces = dataset.load("PrivateTest", "none").images[:9]
    nothing = np.zeros((9, 0), np.float32)
    even = model.predict(faces, nothing, balance=1.0)
    model.balance, model.temperature, temperature = None, 1.0, model.temperature
    shares = model.predict(faces, nothing)
    expected = shares * frequencies**-0.75  # a quarter was taken out in training
    np.testing.assert_allclose(even, expected / expected.sum(axis=1, keepdims=True), atol=1e-5)
    recognizer = Recognizer("best_model/saved_model.bin", VideoPredictor(balance=0.25))
    face = recognizer.classify([Found(Box(0, 0, 48, 48), 1.0, 0.0)], list(faces[:1]))[0]
    np.testing.assert_allclose(list(face.probabilities.values()), shares[0], atol=1e-5)

    old = {name: value for name, value in model.facts.items() if name != "frequencies"}  # as ferplus was saved
    network = Path("best_model/saved_model.bin").read_bytes()
    recovered = saved_model.SavedModel(network, old).frequencies
    np.testing.assert_allclose(recovered / recovered.sum(), frequencies, rtol=1e-3)
    del old["balance"]
    unknown = saved_model.SavedModel(network, {**old, "temperature": temperature})
    np.testing.assert_array_equal(unknown.predict(faces, nothing, balance=1.0), unknown.predict(faces, nothing))
    saved_model.save("bad.bin", network, {**model.facts, "frequencies": [0.5]})
    with pytest.raises(UserError, match="its frequencies are not a share for each expression"):
        saved_model.load("bad.bin")


def test_eight_expressions_train_and_predict(voted, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = [f"--folder={voted}", "--model=slim", "--settings=ours", "--features=none", "--epochs=1"]
    assert train.main(["--train=yes", "--evaluate=yes", "--labels=ferplus8", "--output_size=8", *flags]) == 0
    assert saved_model.load("best_model/saved_model.bin").expressions == EIGHT


def test_splits_without_a_face_that_can_be_used(voted, tmp_path, capsys):
    folder = tmp_path / "features"
    shutil.copytree(voted, folder)
    nobody = np.zeros_like(np.load(folder / "PrivateTest" / "votes.npy"))
    np.save(folder / "PrivateTest" / "votes.npy", nobody)
    assert set(open_dataset(folder).labelled("ferplus").counts) == {"Training", "PublicTest"}
    np.save(folder / "Training" / "votes.npy", np.zeros((700, 10), np.uint8))
    assert train.main(["--train=yes", "--labels=ferplus", f"--folder={folder}"]) == 2
    assert "has no training face that labels=ferplus can use" in capsys.readouterr().err


def test_model_of_seven_expressions_is_not_asked_for_an_eighth(voted, raw_model, capsys):
    assert train.main(["--evaluate=yes", f"--folder={voted}", f"--model_path={raw_model}", "--labels=ferplus8"]) == 2
    assert "use --labels=ferplus" in capsys.readouterr().err


def test_many_votes_are_counted_without_overflow():
    votes = np.zeros((1, 10), np.uint8)
    votes[0, COLUMN_OF["Neutral"]] = 200
    assert majority(votes, EMOTIONS).tolist() == [EMOTIONS.index("Neutral")]


def test_search_prints_a_command_with_its_labels(voted):
    network, hyperparams, training, augmentation = (
        parameters.NETWORK,
        parameters.HYPERPARAMS,
        parameters.TRAINING,
        parameters.AUGMENTATION,
    )
    usual = TrainingSettings(network, hyperparams, training, augmentation)
    run = train_run(voted, hyperparams, replace(training, labels="ferplus"))
    settings = search_settings(run, parameters.OPTIMIZER)
    assert "--labels=ferplus" in training_command(settings, usual, "fer2013_features", Path("search/x"))
    assert settings["training"]["labels"] == "ferplus"


def test_batches_bring_each_face_its_votes(voted):
    from test_training import QUICK, settings

    run = train_run(voted, QUICK, settings(voted))
    learn = run.dataset.load("Training", "none")
    for batch, _ in batches(run, learn, epoch=1):
        np.testing.assert_array_equal(batch.labels, batch.targets.argmax(axis=1))


def train_run(folder: Path, hyperparams: Hyperparams, training):
    from ferkit.learning.run import Run

    network = Network(model="slim", features="none")
    return Run(open_dataset(folder).labelled("ferplus"), ARCHITECTURES["slim"], network, hyperparams, training)


def test_loss_is_the_cross_entropy_with_the_votes_and_the_adjusted_logits():
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (8, 48, 48), dtype=np.uint8)
    targets = random.dirichlet(np.ones(7), 8).astype(np.float32)
    frequencies = random.dirichlet(np.ones(7))
    plain = Hyperparams(keep_prob=1.0, label_smoothing=0.1)
    network = Network(model="slim", features="none", batch_norm_conv=False)
    for hyperparams in (plain, replace(plain, logit_adjustment=0.5)):
        graph = TrainingGraph(
            network, ARCHITECTURES["slim"], hyperparams, None, 0, 10, frequencies=frequencies, distributions=True
        )
        with graph.session(bfloat16=False) as session:
            feed = {graph.images: images / 1, graph.features: np.zeros((8, 0)), graph.labels: targets.argmax(axis=1)}
            loss, logits = session.run([graph.loss, graph.logits], {**feed, graph.targets: targets})
        logits = logits + hyperparams.logit_adjustment * np.log(frequencies)
        logarithms = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        assert loss == pytest.approx(-((0.9 * targets + 0.1 / 7) * logarithms).sum(axis=1).mean(), rel=1e-4)


# --- the real votes --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_real_votes_give_the_official_counts():
    path = os.environ.get("FERPLUS_CSV")
    if not path:
        pytest.skip("FERPLUS_CSV does not name the real fer2013new.csv")
    usages, votes = read_votes(path)
    for expressions, expected in ((EIGHT, (25060, 3199, 3153)), (EMOTIONS, (24941, 3186, 3137))):
        decided = pd.Series(majority(votes, expressions) >= 0).groupby(usages).sum()
        assert tuple(decided[["Training", "PublicTest", "PrivateTest"]]) == expected
