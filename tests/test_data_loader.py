"""Loading the converted dataset, and refusing what is not as its manifest says."""

import json
import os
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import convert_fer2013_to_images_and_landmarks as conversion
from ferkit.constants import EMOTIONS, SPLITS
from ferkit.data.dataset import open_dataset
from ferkit.errors import UserError
from parameters import DATASET

NO_FEATURES = ("--landmarks=no", "--hog=no", "--hog_windows=no", "--processes=1")


@pytest.fixture
def convert(drawn_csv, tmp_path):
    """Converts ten faces of each split, with further flags, into a folder of this name."""

    def convert_into(name: str, *flags: str) -> Path:
        assert conversion.main([f"--input={drawn_csv}", f"--folder={tmp_path / name}", "--limit=10", *flags]) == 0
        return tmp_path / name

    return convert_into


@pytest.fixture
def folder(convert) -> Path:
    return convert("data", "--landmarks=no", "--hog_windows=no", "--processes=1")


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("kind", ["none", "landmarks", "landmarks_hog", "landmarks_hog_windows", "hog+landmarks"])
def test_what_conversion_wrote_is_loaded(drawn_dataset, split, kind):
    dataset = open_dataset(drawn_dataset)
    dataset.check(kind, output_size=7)
    loaded = dataset.load(split, kind)
    written = {path.stem: np.load(path) for path in (drawn_dataset / split).glob("*.npy")}
    names = {
        "none": [],
        "landmarks": ["landmarks"],
        "landmarks_hog": ["landmarks", "hog_features"],
        "landmarks_hog_windows": ["landmarks", "hog_windows"],
        "hog+landmarks": ["hog_features", "landmarks"],
    }[kind]
    np.testing.assert_array_equal(loaded.images, written["images"])
    for row, face in enumerate(loaded.features):
        np.testing.assert_array_equal(face, [value for name in names for value in written[name][row].ravel()])
    np.testing.assert_array_equal(np.eye(7)[loaded.labels], written["labels"])
    assert (loaded.images.dtype, loaded.features.dtype, loaded.labels.dtype) == (np.uint8, np.float32, np.int64)
    assert len(loaded) == dataset.counts[split] == len(loaded.features) == {"Training": 700}.get(split, 140)
    assert dataset.expressions == EMOTIONS


def test_sample_is_of_the_training_set_alone_and_the_same_each_time(drawn_dataset):
    whole = open_dataset(drawn_dataset)
    sample, again, other, all_rows = (replace(whole, sample=rows) for rows in ((50, 0), (50, 0), (50, 1), (9999, 0)))
    loaded = sample.load("Training", "landmarks")
    assert len(loaded) == sample.counts["Training"] == 50 and len(sample.load("PublicTest", "none")) == 140
    training = whole.load("Training", "landmarks")
    rows = [int(np.flatnonzero((training.images == image).all(axis=(1, 2)))[0]) for image in loaded.images]
    assert len(set(rows)) == 50
    np.testing.assert_array_equal(training.features[rows], loaded.features)
    np.testing.assert_array_equal(training.labels[rows], loaded.labels)
    np.testing.assert_array_equal(again.load("Training", "none").images, loaded.images)
    assert not np.array_equal(other.load("Training", "none").images, loaded.images)
    assert all_rows.counts == whole.counts and len(all_rows.load("Training", "none")) == 700


def test_one_hot_and_index_labels_load_equal(convert):
    one_hot, indices = (open_dataset(convert(name, *NO_FEATURES, f"--onehot={name}")) for name in ("yes", "no"))
    assert one_hot.fingerprint == indices.fingerprint
    for split in SPLITS:
        one, other = one_hot.load(split, "none"), indices.load(split, "none")
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)
        assert one.labels.dtype == other.labels.dtype and len(set(one.labels.tolist())) > 2


@pytest.mark.parametrize("flag", ["--expressions=1,4,6", "--limit=9"])
def test_fingerprint_tells_other_faces_apart(convert, flag):
    one, other = convert("one", *NO_FEATURES), convert("other", *NO_FEATURES, flag)
    assert open_dataset(one).fingerprint != open_dataset(other).fingerprint


@pytest.mark.parametrize(
    ("kind", "missing"), [("landmarks", ["landmarks"]), ("landmarks_hog_windows", ["landmarks", "hog_windows"])]
)
def test_missing_features_are_named_with_the_command_that_makes_them(folder, convert, kind, missing):
    with pytest.raises(UserError) as error:
        open_dataset(folder).check(kind, output_size=7)
    message = str(error.value)
    assert str(folder) in message and "\n" not in message
    for name in missing:
        assert f"no {name}" in message and f"--{name}=yes" in message
    program, script, *flags = shlex.split(message.split("'")[1])
    assert (program, script) == ("python", "convert_fer2013_to_images_and_landmarks.py")
    assert flags.pop() == f"--folder={folder}" and message.endswith("' with its --input")
    open_dataset(convert("data", *NO_FEATURES, *flags)).check(kind, output_size=7)


def test_command_for_missing_features_leaves_out_the_usual_folder(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    folder.rename(DATASET.folder)
    with pytest.raises(UserError, match="--landmarks=yes --hog=yes'$"):
        open_dataset(DATASET.folder).check("landmarks_hog", output_size=7)


def test_other_number_of_expressions_is_refused(convert):
    dataset = open_dataset(convert("data", *NO_FEATURES, "--expressions=0,3,5"))
    dataset.check("none", output_size=3)
    with pytest.raises(UserError, match=r"3 expressions \(Angry, Happy, Surprise\).* is 7.*--output_size=3"):
        dataset.check("none", output_size=7)


def test_missing_dataset_says_how_to_make_one(tmp_path):
    with pytest.raises(
        UserError, match="no converted dataset in .*nowhere.*convert_fer2013_to_images_and_landma"
    ) as error:
        open_dataset(tmp_path / "nowhere")
    assert "or name another --folder" in str(error.value)
    assert os.listdir(tmp_path) == []


def test_missing_split_is_named(tmp_path, drawn_csv):
    lines = drawn_csv.read_text().splitlines()
    (tmp_path / "training.csv").write_text("\n".join(lines[:20]))
    data = tmp_path / "data"
    assert conversion.main([f"--input={tmp_path}/training.csv", f"--folder={data}", *NO_FEATURES]) == 0
    assert open_dataset(data).counts == {"Training": 19}
    with pytest.raises(UserError, match="PublicTest"):
        open_dataset(data).load("PublicTest", "none")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"3", b"{}", b"\xff\xfe\x00" * 999, b'{"format": 1}', b"[" * 100_000 + b"]" * 100_000],
)
def test_damaged_manifest_is_refused_by_name(folder, content):
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(UserError, match=r"manifest\.json is damaged") as error:
        open_dataset(folder)
    assert len(str(error.value).replace(str(folder), "")) < 300, "the file is not shown"


@pytest.mark.parametrize("key", ["format", "source", "expressions", "one_hot", "arrays", "splits"])
def test_manifest_without_a_needed_fact_is_refused(folder, key):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest[key]
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        open_dataset(folder)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("splits", "Training", "count"), 400.0),
        (("splits", "Training", "count"), True),
        (("splits", "Training", "expressions"), ["Happy"]),
        (("splits", "Training"), None),
        (("expressions",), [1, 2, 3, 4, 5, 6, 7]),
        (("expressions",), ["Sad"] * 7),
        (("expressions",), "Sad, Happy"),
        (("arrays",), {"landmarks": 1}),
        (("feature_provenance",), {}),
        (("source", "name"), ["fer2013.csv"]),
        (("one_hot",), "yes"),
    ],
    ids=str,
)
def test_manifest_with_a_fact_of_another_kind_is_refused(drawn_dataset, tmp_path, place, value):
    manifest = json.loads((drawn_dataset / "manifest.json").read_text())
    *path, last = place
    facts = manifest
    for name in path:
        facts = facts[name]
    facts[last] = value
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"manifest\.json is damaged") as error:
        open_dataset(tmp_path)
    assert "\n" not in str(error.value)


def test_manifest_of_another_version_is_refused(folder):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.raises(UserError, match="another version"):
        open_dataset(folder)


@pytest.mark.parametrize("name", ["images", "labels", "hog_windows"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"not an array"),
        lambda path: os.truncate(path, path.stat().st_size - 1),
        lambda path: os.truncate(path, 100),
        lambda path: np.save(path, np.load(path)[:-1]),
        lambda path: np.save(path, np.load(path)[:, :1]),
        lambda path: np.save(path, np.load(path).astype(object), allow_pickle=True),
        lambda path: np.save(path, np.load(path).astype(complex)),
        lambda path: np.save(path, np.load(path).astype(str)),
        lambda path: np.save(path, np.load(path) > 0),
    ],
    ids=[
        "missing",
        "empty",
        "garbage",
        "a byte short",
        "header only",
        "a row short",
        "other shape",
        "pickled",
        "complex",
        "text",
        "bool",
    ],
)
def test_damaged_array_is_refused_by_name(drawn_dataset, tmp_path, name, damage):
    split = tmp_path / "data" / "PublicTest"
    shutil.copytree(drawn_dataset / "PublicTest", split)
    shutil.copy(drawn_dataset / "manifest.json", tmp_path / "data")
    open_dataset(tmp_path / "data").load("PublicTest", "landmarks_hog_windows")
    damage(split / f"{name}.npy")
    with pytest.raises(UserError, match=rf"{name}\.npy .*convert again") as error:
        open_dataset(tmp_path / "data").load("PublicTest", "landmarks_hog_windows")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_feature_that_is_no_number_is_refused(drawn_dataset, tmp_path, value):
    shutil.copytree(drawn_dataset / "PublicTest", tmp_path / "PublicTest")
    shutil.copy(drawn_dataset / "manifest.json", tmp_path)
    landmarks = np.load(tmp_path / "PublicTest" / "landmarks.npy")
    landmarks[3, 4, 1] = value
    np.save(tmp_path / "PublicTest" / "landmarks.npy", landmarks)
    with pytest.raises(UserError, match=r"landmarks\.npy holds values that are no numbers: convert again"):
        open_dataset(tmp_path).load("PublicTest", "landmarks")


def test_pickled_objects_are_not_run(folder):
    class Malice:
        def __reduce__(self):
            return os.mkdir, (str(folder / "run"),)

    np.save(folder / "Training" / "labels.npy", np.array([Malice()], dtype=object), allow_pickle=True)
    with pytest.raises(UserError):
        open_dataset(folder).load("Training", "none")
    assert not (folder / "run").exists()
