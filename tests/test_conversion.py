"""Conversion of FER2013: every flag, every layout, bad rows, bad files, and interruptions."""

import bz2
import collections
import csv
import gzip
import hashlib
import importlib.util
import io
import itertools
import json
import lzma
import os
import re
import shlex
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT, run_script
from skimage.feature import hog

import convert_fer2013_to_images_and_landmarks as conversion
from ferkit import features
from ferkit.constants import EMOTIONS, SHAPE_PREDICTOR, SPLITS
from ferkit.data.dataset import open_dataset

SCRIPT = "convert_fer2013_to_images_and_landmarks.py"
NO_FEATURES = ("--landmarks=no", "--hog=no", "--hog_windows=no", "--processes=1")
HEADER = "emotion,pixels,Usage"
DEFAULT = {"images.npy", "labels.npy", "landmarks.npy", "hog_features.npy", "hog_windows.npy"}

Row = tuple[int, np.ndarray, str]  # label, face (48, 48) uint8, split


def noise_rows() -> list[Row]:
    """Labels and splits in no order: nothing but its own row tells what an image is."""
    random = np.random.default_rng(5)
    faces = random.integers(0, 256, (75, 48, 48)).astype(np.uint8)
    labels, splits = random.permutation(75) % 7, random.permutation(75) % 5
    return [
        (label, face, SPLITS[max(0, split - 2)])
        for label, face, split in zip(labels.tolist(), faces, splits.tolist(), strict=True)
    ]


def line(row: Row) -> str:
    label, face, split = row
    return f"{label},{' '.join(map(str, face.ravel().tolist()))},{split}"


ROWS = noise_rows()
LINES = [line(row) for row in ROWS]


def text(lines: Sequence[str], header: str = HEADER) -> str:
    return "\n".join([header, *lines]) + "\n"


def parsed(path: Path, count: int | None = None) -> list[Row]:
    """The first rows of a csv, read without the toolkit."""
    with (lzma.open if path.suffix == ".xz" else open)(path, "rt", newline="") as file:
        rows = itertools.islice(csv.reader(file), 1, None if count is None else count + 1)
        return [
            (int(label), np.array(pixels.split(), np.uint8).reshape(48, 48), split) for label, pixels, split in rows
        ]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def load(folder: Path, split: str, name: str) -> np.ndarray:
    return np.load(folder / split / f"{name}.npy")


def assert_holds(folder: Path, rows: Sequence[Row], labels: Sequence[int] = range(7)) -> dict:
    """The arrays are the rows of these expressions, in their order, and the manifest counts them."""
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["expressions"] == [EMOTIONS[label] for label in labels]
    kept = {split: [row for row in rows if row[2] == split and row[0] in labels] for split in SPLITS}
    assert sorted(manifest["splits"]) == sorted(split for split in SPLITS if kept[split])
    for split, facts in manifest["splits"].items():
        np.testing.assert_array_equal(load(folder, split, "images"), [face for _, face, _ in kept[split]])
        indices = [labels.index(label) for label, _, _ in kept[split]]
        one_hot = [[float(index == place) for place in range(len(labels))] for index in indices]
        np.testing.assert_array_equal(load(folder, split, "labels"), one_hot if manifest["one_hot"] else indices)
        counts = collections.Counter(EMOTIONS[label] for label, _, _ in kept[split])
        assert facts["count"] == len(kept[split])
        assert facts["expressions"] == {EMOTIONS[label]: counts[EMOTIONS[label]] for label in labels}
    return manifest


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """The current folder, with a fer2013.csv."""
    (tmp_path / "fer2013.csv").write_text(text(LINES))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def output(workplace) -> Path:
    return workplace / "fer2013_features"


# --- flags -----------------------------------------------------------------------------------------------------------


def test_command_without_flags_converts_the_csv_of_the_current_folder(workplace, output):
    run = run_script(SCRIPT, cwd=workplace)
    assert run.returncode == 0, run.stderr
    assert sorted(os.listdir(workplace)) == [".fer2013_features.lock", "fer2013.csv", "fer2013_features"]
    assert_holds(output, ROWS)
    for split, count in collections.Counter(split for _, _, split in ROWS).items():
        assert {path.name for path in (output / split).iterdir()} == DEFAULT
        row = next(row for row in run.stdout.splitlines() if row.startswith(split))
        assert row.split()[-1] == str(count)


@pytest.mark.parametrize(
    "command",
    [
        "--landmarks=yes --hog=no --how_windows=no --jpg=no --expressions=1,4,6",
        *re.findall(rf"^ +python {SCRIPT} (.+)$", conversion.__doc__, re.MULTILINE),
    ],
)
def test_documented_flags_give_landmarks_of_three_expressions(output, command):
    assert conversion.main(shlex.split(command)) == 0
    assert_holds(output, ROWS, [1, 4, 6])
    assert {path.name for path in (output / "Training").iterdir()} == {"images.npy", "labels.npy", "landmarks.npy"}


@pytest.mark.parametrize(
    ("names", "written"),
    [
        (("-l", "--landmarks"), "landmarks.npy"),
        (("-ho", "--hog"), "hog_features.npy"),
        (("-hw", "--hog_windows", "--how_windows"), "hog_windows.npy"),
        (("-hi", "--hog_images"), "hog_images.npy"),
        (("-j", "--jpg"), "jpg"),
    ],
)
def test_each_flag_adds_or_leaves_out_what_it_names(output, names, written):
    for flags in [[f"{name}=yes"] for name in names] + [[name, "no"] for name in names] + [[name] for name in names]:
        assert conversion.main([*flags, "--limit=2", "--processes=1"]) == 0
        expected = DEFAULT - {written} if flags[-1] == "no" else DEFAULT | {written}
        for split in SPLITS:
            assert {path.name for path in (output / split).iterdir()} == expected


@pytest.mark.parametrize("flags", [["-o", "no"], ["--onehot=no"], ["-o"], ["--onehot"], []])
def test_labels_are_one_hot_or_indices(output, flags):
    assert conversion.main([*NO_FEATURES, *flags]) == 0
    labels = load(output, "Training", "labels")
    is_one_hot = flags not in (["-o", "no"], ["--onehot=no"])
    assert (labels.dtype, labels.ndim) == ((np.float32, 2) if is_one_hot else (np.int64, 1))
    assert assert_holds(output, ROWS)["one_hot"] is is_one_hot


@pytest.mark.parametrize("flag", ["--expressions=1,4,6", "--expressions=6,1,4", "-e=4,6,1", "-e 1, 4,6"])
def test_chosen_expressions_are_relabelled_in_ascending_order(output, flag):
    assert conversion.main([*NO_FEATURES, *flag.split(" ", 1)]) == 0
    assert_holds(output, ROWS, [1, 4, 6])


def test_limit_keeps_the_first_rows_of_each_split(output):
    assert conversion.main([*NO_FEATURES, "--limit=5", "--expressions=0,2,3,4,6"]) == 0
    kept = [row for row in ROWS if row[0] in (0, 2, 3, 4, 6)]
    first = [row for split in SPLITS for row in [row for row in kept if row[2] == split][:5]]
    assert len(first) == 15
    assert_holds(output, first, [0, 2, 3, 4, 6])


def test_input_and_output_may_be_anywhere(workplace, output):
    (workplace / "fer2013.csv").rename(workplace / "other.csv")
    assert conversion.main([*NO_FEATURES, "--input=other.csv", "--output=new/folder"]) == 0
    manifest = assert_holds(workplace / "new" / "folder", ROWS)
    digest = hashlib.sha256((workplace / "other.csv").read_bytes()).hexdigest()
    assert manifest["source"] == {"name": "other.csv", "sha256": digest}
    assert not output.exists()


def test_help_tells_each_default_once(capsys):
    with pytest.raises(SystemExit):
        conversion.main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "None" not in shown and ") (default" not in shown


@pytest.mark.parametrize(
    ("flag", "complaint"),
    [
        ("--expressions=1,-7", "1,-7"),
        ("--expressions=3", "'3'"),
        ("--expressions=1,1", "1,1"),
        ("--expressions=Happy,Sad", "Happy"),
        ("--expressions=", "--expressions"),
        ("--limit=0", "'0'"),
        ("--limit=-1", "'-1'"),
        ("--limit=x", "'x'"),
        ("--processes=0", "'0'"),
        ("--landmarks=maybe", "maybe"),
    ],
)
def test_bad_flag_is_a_usage_error(output, capsys, flag, complaint):
    with pytest.raises(SystemExit) as exit:
        conversion.main([flag])
    assert exit.value.code == 2
    assert complaint in capsys.readouterr().err.splitlines()[-1]
    assert not output.exists()


# --- what is written -------------------------------------------------------------------------------------------------


def test_images_labels_and_counts_are_those_of_the_csv(drawn_csv, drawn_dataset):
    manifest = assert_holds(drawn_dataset, parsed(drawn_csv))
    assert manifest["dropped"] == {}
    assert manifest["splits"]["Training"]["count"] == 700


def test_shapes_and_types_are_the_documented_ones(output):
    assert conversion.main(["--hog_images", "--limit=3"]) == 0
    arrays = {path.stem: np.load(path) for path in (output / "PublicTest").glob("*.npy")}
    assert {name: (array.shape, array.dtype) for name, array in arrays.items()} == {
        "images": ((3, 48, 48), np.uint8),
        "labels": ((3, 7), np.float32),
        "landmarks": ((3, 68, 2), np.float32),
        "hog_features": ((3, 72), np.float32),
        "hog_windows": ((3, 2592), np.float32),
        "hog_images": ((3, 48, 48), np.float32),
    }


@pytest.mark.parametrize("name", ["landmarks", "hog_features", "hog_windows"])
def test_each_row_has_the_features_of_its_own_image(drawn_dataset, name):
    for split in SPLITS:
        images, found = load(drawn_dataset, split, "images"), load(drawn_dataset, split, name)
        rows = [*range(0, len(images), 37), 63, 64, 65, 127, 128, len(images) - 1]  # where processes take turns, too
        np.testing.assert_array_equal(found[rows], features.PARTS[name].extract(images[rows], SHAPE_PREDICTOR))


def test_number_of_processes_makes_no_difference(drawn_csv, tmp_path):
    for processes in (1, 2):
        flags = ["--limit=130", "--jpg", f"--output={tmp_path / str(processes)}", f"--processes={processes}"]
        assert conversion.main([f"--input={drawn_csv}", *flags]) == 0
    one, two = snapshot(tmp_path / "1"), snapshot(tmp_path / "2")
    assert len(one) == 3 * (5 + 130) + 1
    assert one == two


def test_jpgs_show_each_row_under_its_expression(drawn_csv, tmp_path):
    flags = [f"--input={drawn_csv}", "--limit=70", f"--output={tmp_path}/data", "--jpg", "--expressions=0,3,5"]
    assert conversion.main([*NO_FEATURES, *flags]) == 0
    for split in SPLITS:
        images, labels = load(tmp_path / "data", split, "images"), load(tmp_path / "data", split, "labels")
        jpgs = list((tmp_path / "data" / split / "jpg").glob("*/*.jpg"))
        assert sorted(int(jpg.stem) for jpg in jpgs) == list(range(len(images)))
        for jpg in jpgs:
            shown = cv2.imread(str(jpg), cv2.IMREAD_UNCHANGED)
            assert shown.shape == (48, 48), "grey"
            assert np.abs(shown.astype(int) - images[int(jpg.stem)]).mean() < 4
            assert jpg.parent.name == ("Angry", "Happy", "Surprise")[labels[int(jpg.stem)].argmax()]


def test_hog_images_are_those_of_scikit_image(drawn_csv, tmp_path):
    flags = [f"--input={drawn_csv}", "--limit=9", f"--output={tmp_path}/data", "--hog_images"]
    assert conversion.main([*NO_FEATURES, *flags]) == 0
    for split in SPLITS:
        images = load(tmp_path / "data", split, "images")
        pictures = [hog(image, 8, (16, 16), (1, 1), visualize=True)[1] for image in images]
        np.testing.assert_allclose(load(tmp_path / "data", split, "hog_images"), pictures, rtol=1e-5)


def test_blank_images_are_kept_and_counted(output, capsys):
    blank = [(3, np.full((48, 48), grey, np.uint8), "PublicTest") for grey in (0, 200)]
    Path("fer2013.csv").write_text(text([*LINES, *map(line, blank)]))
    assert conversion.main(NO_FEATURES) == 0
    manifest = assert_holds(output, [*ROWS, *blank])
    assert [manifest["splits"][split]["blank"] for split in SPLITS] == [0, 2, 0]
    assert re.search(r"Blank .*\b2\b", capsys.readouterr().out)


def test_slice_of_the_real_dataset(fer2013_csv, tmp_path):
    rows = parsed(Path(fer2013_csv), 240)
    (tmp_path / "slice.csv").write_text(text([line(row) for row in rows]))
    flags = [f"--input={tmp_path}/slice.csv", f"--output={tmp_path}/data", "--limit=200"]
    assert conversion.main(flags) == 0
    first = [row for split in SPLITS for row in [row for row in rows if row[2] == split][:200]]
    assert assert_holds(tmp_path / "data", first)["dropped"] == {}
    for name in ("landmarks", "hog_features", "hog_windows"):
        assert np.isfinite(load(tmp_path / "data", rows[0][2], name)).all()


# --- layouts ---------------------------------------------------------------------------------------------------------


def zip_file(path: Path, content: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("fer2013.csv", content)


def tar_file(path: Path, content: bytes, mode: str) -> None:
    """As Kaggle packs it: in a folder, with other files."""
    with tarfile.open(path, mode) as archive:
        for name, inside in {
            "README": b"about",
            "._fer2013.csv": b"\xb0",
            "other.csv": b"a,b\n",
            "fer2013.csv": content,
        }.items():
            member = tarfile.TarInfo(f"fer2013/{name}")
            member.size = len(inside)
            archive.addfile(member, io.BytesIO(inside))


COMPRESSIONS = {
    "gz": lambda path, content: path.write_bytes(gzip.compress(content)),
    "bz2": lambda path, content: path.write_bytes(bz2.compress(content)),
    "xz": lambda path, content: path.write_bytes(lzma.compress(content)),
    "zip": zip_file,
    "tar": lambda path, content: tar_file(path, content, "w"),
    "tar.gz": lambda path, content: tar_file(path, content, "w:gz"),
    "tar.bz2": lambda path, content: tar_file(path, content, "w:bz2"),
    "tar.xz": lambda path, content: tar_file(path, content, "w:xz"),
    "tgz": lambda path, content: tar_file(path, content, "w:gz"),
}


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_compressed_csv_is_read_as_it_is(workplace, output, suffix):
    COMPRESSIONS[suffix](workplace / f"fer2013.csv.{suffix}", text(LINES).encode())
    assert conversion.main([*NO_FEATURES, f"--input=fer2013.csv.{suffix}"]) == 0
    assert_holds(output, ROWS)


def rearranged(order: Sequence[int], lines: Sequence[str]) -> list[str]:
    return [",".join(fields[place] for place in order) for fields in (row.split(",") for row in lines)]


@pytest.mark.parametrize(
    "content",
    [
        text(rearranged([0, 2, 1], LINES), header="emotion, Usage, pixels"),
        text(rearranged([2, 1, 0], LINES), header="Usage,pixels,emotion"),
        text([f"{number},{row}" for number, row in enumerate(LINES)], header=f"id,{HEADER}"),
        text([re.sub(",(.*),", r',"\1",', row) for row in LINES]),
        "\ufeff" + text(LINES),
        text(LINES).replace("\n", "\r\n"),
        text(LINES).rstrip("\n"),
    ],
    ids=["icml_face_data", "other order", "another column", "quotes", "byte order mark", "Windows", "no last newline"],
)
def test_other_layouts_of_the_csv_give_the_same(output, content):
    Path("fer2013.csv").write_text(content, encoding="utf-8", newline="")
    assert conversion.main(NO_FEATURES) == 0
    assert assert_holds(output, ROWS)["dropped"] == {}


def test_folder_of_pictures(workplace, output, capsys):
    faces = [face for _, face, _ in ROWS]
    large = cv2.resize(faces[6], (96, 96), interpolation=cv2.INTER_NEAREST)
    pictures = {  # in the order of their names, but an expression's second after everybody's first
        "test/Happy/PublicTest_9.png": (3, faces[0], "PublicTest"),
        "test/happy/PrivateTest_1.png": (3, faces[1], "PrivateTest"),
        "test/sad/b.PNG": (4, faces[2], "PrivateTest"),
        "train/angry/Training_10.png": (0, faces[3], "Training"),
        "train/neutral/PrivateTest_2.png": (6, faces[5], "PrivateTest"),
        "train/surprise/large.png": (5, large, "Training"),
        "validation/disgust/x.png": (1, faces[7], "PublicTest"),
        "train/angry/a.png": (0, faces[4], "Training"),
    }
    for name, (_, face, _) in pictures.items():
        (workplace / "faces" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(workplace / "faces" / name), face)
    (workplace / "faces" / "train" / "angry" / "b.png").write_bytes(b"not a picture")
    (workplace / "faces" / "train" / "angry" / "c.png").symlink_to("gone.png")
    (workplace / "faces" / "train" / "notes.txt").write_text("not a picture, and not named like one")
    assert conversion.main([*NO_FEATURES, "--input=faces"]) == 0
    pictures["train/surprise/large.png"] = (5, faces[6], "Training")
    manifest = assert_holds(output, list(pictures.values()), labels=[0, 1, 3, 4, 5, 6])  # no folder is of Fear
    assert list(manifest["dropped"].values()) == [2]
    assert re.search(r"Dropped, not a readable picture: 2\n", capsys.readouterr().out)
    assert conversion.main([*NO_FEATURES, "--input=faces", "--limit=2"]) == 0
    few = json.loads((output / "manifest.json").read_text())["splits"]["Training"]["expressions"]
    assert (few["Angry"], few["Surprise"]) == (1, 1), "the first rows are not all of one expression"


def test_splits_that_share_a_folder_take_turns_apart(workplace, output):
    for expression, number, split in itertools.product(("angry", "happy"), range(3), ("PrivateTest", "PublicTest")):
        path = workplace / "faces" / "test" / expression / f"{split}_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), ROWS[number][1])
    (workplace / "faces" / "test" / "angry" / "PrivateTest_3.png").write_bytes(path.read_bytes())
    assert conversion.main([*NO_FEATURES, "--input=faces", "--limit=2"]) == 0
    splits = json.loads((output / "manifest.json").read_text())["splits"]
    for split in ("PrivateTest", "PublicTest"):
        assert (splits[split]["expressions"]["Angry"], splits[split]["expressions"]["Happy"]) == (1, 1)


# --- rows that cannot be used ----------------------------------------------------------------------------------------

PIXELS = LINES[0].split(",")[1]
BAD_ROWS = {
    "too few pixels": (f"3,{PIXELS[: PIXELS.rindex(' ')]},Training", "pixels"),
    "too many pixels": (f"3,{PIXELS} 7,Training", "pixels"),
    "no pixels": ("3,,Training", "pixels"),
    "letters": (f"3,x{PIXELS[1:]},Training", "pixels"),
    "letters at the end": (f"3,{PIXELS[:-1]}x,Training", "pixels"),
    "fraction": (f"3,1.5 {PIXELS.split(' ', 1)[1]},Training", "pixels"),
    "pixel 256": (f"3,256 {PIXELS.split(' ', 1)[1]},Training", "pixels"),
    "pixel -1": (f"3,-1 {PIXELS.split(' ', 1)[1]},Training", "pixels"),
    "huge pixel": (f"3,{10**30} {PIXELS.split(' ', 1)[1]},Training", "pixels"),
    "label 9": (f"9,{PIXELS},Training", "label"),
    "label -1": (f"-1,{PIXELS},Training", "label"),
    "no label": (f",{PIXELS},Training", "label"),
    "unknown Usage": (f"3,{PIXELS},Holidays", "Usage"),
    "no Usage": (f"3,{PIXELS}", "Usage"),
    "too many fields": (f"3,{PIXELS},Training,7", "fields"),
}


@pytest.mark.parametrize("place", [0, 40, len(LINES)], ids=["first", "in between", "last"])
@pytest.mark.parametrize(("bad", "reason"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_bad_row_is_dropped_alone_and_reported(output, capsys, bad, reason, place):
    Path("fer2013.csv").write_text(text([*LINES[:place], bad, *LINES[place:]]))
    assert conversion.main(NO_FEATURES) == 0
    [(told, count)] = assert_holds(output, ROWS)["dropped"].items()
    assert count == 1 and reason in told
    assert f"Dropped, {told}: 1\n" in capsys.readouterr().out


def test_bad_rows_are_counted_by_reason(output):
    bad = [bad for bad, _ in BAD_ROWS.values()]
    mixed = itertools.chain.from_iterable(itertools.zip_longest(LINES, bad * 2))
    many = ["9,,Training"] * 3000  # a csv is read in several parts
    Path("fer2013.csv").write_text(text([*(row for row in mixed if row is not None), *many]))
    assert conversion.main(NO_FEATURES) == 0
    dropped = assert_holds(output, ROWS)["dropped"]
    assert sum(dropped.values()) == 2 * len(bad) + 3000
    for word, more in {"label": 3000, "Usage": 0, "fields": 0}.items():
        expected = 2 * sum(reason == word for _, reason in BAD_ROWS.values())
        assert sum(count for told, count in dropped.items() if word in told) == expected + more


@pytest.mark.parametrize("missing", [1, 8, 12, 500, 9000])
def test_cut_off_csv_loses_its_last_row_only(output, missing):
    assert len(LINES[-1]) < 9200
    Path("fer2013.csv").write_text(text(LINES).rstrip("\n")[: -min(missing, len(LINES[-1]) - 1)])
    assert conversion.main(NO_FEATURES) == 0
    assert list(assert_holds(output, ROWS[:-1])["dropped"].values()) == [1]


# --- sources that cannot be used -------------------------------------------------------------------------------------

BAD_SOURCES = {
    "empty file": ("fer2013.csv", b"", ["fer2013.csv is empty"]),
    "header only": ("fer2013.csv", HEADER.encode(), ["fer2013.csv", "no usable face"]),
    "no usable row": ("fer2013.csv", text(["9,1 2 3,Training"] * 3).encode(), ["no usable face", "3 × label"]),
    "missing column": ("fer2013.csv", text(["1,2"], header="pixels,Usage").encode(), ["no column emotion"]),
    "a picture": ("fer2013.csv", cv2.imencode(".png", ROWS[0][1])[1].tobytes(), ["fer2013.csv"]),
    "cut-off gz": ("cut.csv.gz", gzip.compress(text(LINES).encode())[:-5000], ["cut.csv.gz is cut off"]),
    "cut-off bz2": ("cut.csv.bz2", bz2.compress(text(LINES).encode())[:-5000], ["cut.csv.bz2 is cut off"]),
    "cut-off xz": ("cut.csv.xz", lzma.compress(text(LINES).encode())[:-5000], ["cut.csv.xz is cut off"]),
    "not an xz": ("not.csv.xz", text(LINES).encode(), ["not.csv.xz"]),
    "not a zip": ("not.csv.zip", text(LINES).encode(), ["not.csv.zip"]),
}


@pytest.mark.parametrize(("name", "content", "fragments"), BAD_SOURCES.values(), ids=BAD_SOURCES)
def test_bad_source_is_one_line(workplace, output, capsys, name, content, fragments):
    (workplace / name).write_bytes(content)
    before = snapshot(workplace)
    assert conversion.main([*NO_FEATURES, f"--input={name}"]) == 2
    last = re.search(r"^error: (.+)\n\Z", capsys.readouterr().err, re.MULTILINE)
    assert last and all(fragment in last[1] for fragment in fragments)
    assert snapshot(workplace) == before and not output.exists()


def test_folder_without_pictures_is_one_line(workplace, capsys):
    (workplace / "train" / "angry").mkdir(parents=True)
    assert conversion.main([*NO_FEATURES, "--input=train"]) == 2
    assert re.search("^error: train .*\n\\Z", capsys.readouterr().err, re.MULTILINE)


def test_missing_source_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert conversion.main([]) == 2
    output, errors = capsys.readouterr()
    assert re.fullmatch("error: no FER2013 at fer2013.csv.*--input.*\n", errors)
    assert output == "" and os.listdir(tmp_path) == []


def test_missing_predictor_is_reported_before_the_long_reading(output, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert conversion.main([]) == 2
    assert re.fullmatch("error: no landmark predictor .*\n", capsys.readouterr().err)
    assert conversion.main(NO_FEATURES) == 0, "and not missed by who wants no landmarks"


# --- what is there stays ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["fer2013.csv", "fer2013.csv/features"])
def test_output_that_cannot_be_a_folder_is_one_line(workplace, capsys, target):
    before = snapshot(workplace)
    assert conversion.main([*NO_FEATURES, f"--output={target}"]) == 2
    assert re.search(r"^error: .*fer2013\.csv.*\n\Z", capsys.readouterr().err, re.MULTILINE)
    assert snapshot(workplace) == before


@pytest.mark.parametrize("target", [".", "photos", "pictures"])
def test_folder_that_is_no_converted_dataset_is_not_replaced(workplace, monkeypatch, target):
    home = workplace / "home"
    for picture in ("photos/a.png", "pictures/train/happy/a.png", "pictures/train/sad/b.png"):
        (home / picture).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(home / picture), ROWS[0][1])
    monkeypatch.chdir(home)
    before = snapshot(home)
    assert conversion.main([*NO_FEATURES, "--input=pictures", f"--output={target}"]) == 2
    assert snapshot(home) == before


def test_file_of_the_users_among_the_arrays_keeps_the_folder(workplace, output, capsys):
    assert conversion.main([*NO_FEATURES, "--expressions=0,3"]) == 0
    (output / "Training" / "thesis.txt").write_text("years of work")
    before = snapshot(output)
    assert conversion.main(NO_FEATURES) == 2
    assert "holds more than a converted dataset" in capsys.readouterr().err
    assert snapshot(output) == before


def start_long_conversion(source: Path, workplace: Path) -> subprocess.Popen:
    flags = [f"--input={source}", "--hog_images", "--processes=2"]
    with open(workplace / "stderr", "wb") as stderr:
        return subprocess.Popen(
            [sys.executable, str(ROOT / SCRIPT), *flags],
            cwd=workplace,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )


def wait_for(run: subprocess.Popen, workplace: Path, progress: str, seconds: float) -> None:
    deadline = time.monotonic() + 60
    while not re.search(progress, (workplace / "stderr").read_text()):
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(seconds)
    assert run.poll() is None, "it was to be ended at work"


def assert_ends_with_all_its_processes(run: subprocess.Popen, seconds: float) -> None:
    """Each of the conversion's processes holds its stdout, which is at its end when none of them is left."""
    try:
        run.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate()
        pytest.fail(f"a process was left after {seconds} s")


STARTED, AT_WORK = "Extracting", r" [1-9]\d*/980 "


@pytest.mark.parametrize(
    ("sent", "progress", "seconds"),
    [
        (signal.SIGINT, "Reading", 0),
        (signal.SIGINT, STARTED, 0),
        (signal.SIGINT, AT_WORK, 0),
        (signal.SIGKILL, STARTED, 0),
        (signal.SIGKILL, STARTED, 0.5),
        (signal.SIGKILL, AT_WORK, 0.2),
    ],
    ids=str,
)
def test_ended_conversion_leaves_the_old_one_and_no_process(drawn_csv, workplace, output, sent, progress, seconds):
    assert conversion.main([*NO_FEATURES, "--expressions=0,3"]) == 0
    before, listing = snapshot(output), sorted(os.listdir(workplace))

    run = start_long_conversion(drawn_csv, workplace)
    wait_for(run, workplace, progress, seconds)
    if sent == signal.SIGINT:
        os.killpg(run.pid, signal.SIGINT)  # as a terminal sends it, to all of them
        assert_ends_with_all_its_processes(run, seconds=120)
        assert run.returncode == 130
    else:
        run.kill()
        assert_ends_with_all_its_processes(run, seconds=120)
    stderr = workplace / "stderr"
    assert "Traceback" not in stderr.read_text()
    stderr.unlink()
    assert snapshot(output) == before
    if sent == signal.SIGINT:
        assert sorted(os.listdir(workplace)) == listing

    assert conversion.main(NO_FEATURES) == 0
    assert_holds(output, ROWS)
    assert sorted(os.listdir(workplace)) == listing


def test_ctrl_c_while_the_processes_start_is_not_lost(workplace, output):
    script = """
import os, signal, sys
import convert_fer2013_to_images_and_landmarks as conversion
os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGINT))
sys.exit(conversion.main(["--landmarks=no", "--processes=2"]))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=workplace, env=environment, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 130
    assert "Traceback" not in run.stderr
    assert not output.exists()


@pytest.mark.parametrize("next_use", ["opened", "converted"])
def test_kill_between_the_two_renames_is_mended_by_the_next_use(workplace, output, next_use):
    assert conversion.main([*NO_FEATURES, "--expressions=0,3"]) == 0
    before = snapshot(output)
    output.rename(workplace / ".fer2013_features.old")
    if next_use == "opened":
        assert open_dataset("fer2013_features").expressions == ("Angry", "Happy")
        assert snapshot(output) == before
    else:
        Path("empty.csv").touch()
        assert conversion.main([*NO_FEATURES, "--input=empty.csv"]) == 2
        assert open_dataset("fer2013_features").expressions == ("Angry", "Happy")
        assert conversion.main(NO_FEATURES) == 0
        assert_holds(output, ROWS)
        assert sorted(os.listdir(workplace)) == [
            ".fer2013_features.lock",
            "empty.csv",
            "fer2013.csv",
            "fer2013_features",
        ]
