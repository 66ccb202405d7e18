"""prepare_faces.py: the face of each photograph, cut out as recognition does it, and said aloud where there is none."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT, command_line

import convert_fer2013_to_images_and_landmarks as conversion
import prepare_faces
from ferkit.recognition import Recognizer
from ferkit.vision.pictures import read_image

PORTRAIT = ROOT / "docs" / "portrait.jpg"


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """Two classes: a portrait, two people side by side, a wall, a file that is cut off, a face alone, a text."""
    monkeypatch.chdir(tmp_path)
    portrait = cv2.imread(str(PORTRAIT))
    small = cv2.resize(portrait, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    beside = np.full((portrait.shape[0], portrait.shape[1] + small.shape[1], 3), 120, np.uint8)
    beside[: small.shape[0], : small.shape[1]] = small
    beside[:, small.shape[1] :] = portrait
    for name, image in (
        ("smirk/one.jpg", portrait),
        ("smirk/one.png", portrait[:, ::-1]),
        ("smirk/two.png", beside),
        ("wink/wall.png", np.full((300, 300, 3), 128, np.uint8)),
        ("wink/face.png", np.random.default_rng(0).integers(0, 256, (48, 48)).astype(np.uint8)),
    ):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image)
    (tmp_path / "photos/wink/cut.jpg").write_bytes(PORTRAIT.read_bytes()[:5000])
    (tmp_path / "photos/wink/notes.txt").write_text("no picture")
    return tmp_path / "photos"


def prepare(*flags: str) -> int:
    return prepare_faces.main(["photos", "--output=faces", "--processes=1", *flags])


def written() -> list[str]:
    return sorted(path.relative_to("faces").as_posix() for path in Path("faces").rglob("*.png"))


def test_faces_are_those_that_recognition_sees_and_conversion_reads_them(photos, capsys):
    assert prepare() == 2, "a photograph cannot be read"
    printed, errors = capsys.readouterr()
    assert written() == ["smirk/one.jpg.png", "smirk/one.png.png", "smirk/two.png.png", "wink/face.png.png"]
    assert printed.splitlines() == [
        "Faces in faces: 4 of 6 photographs",
        "  several faces, of which the largest was taken: 1",
        "  no face was found: 1",
        "  not readable: 1",
        "  no picture by its suffix: 1",
    ]
    assert "note: smirk/two.png: 2 faces, the largest was taken" in errors
    assert "note: wink/wall.png: no face was found" in errors and "error: cannot read" in errors
    recognizer = Recognizer("ferplus")
    for name in ("smirk/one.jpg", "wink/face.png"):
        ((_,), (crop,)) = recognizer.cut(read_image(photos / name))
        np.testing.assert_array_equal(read_image(f"faces/{name}.png")[..., 0], crop)
    found, crops = recognizer.cut(read_image(photos / "smirk/two.png"))
    assert found[1].box.width > found[0].box.width
    np.testing.assert_array_equal(read_image("faces/smirk/two.png.png")[..., 0], crops[1])

    flags = ["--landmarks=no", "--hog=no", "--hog_windows=no", "--validation_share=0", "--test_share=0"]
    assert conversion.main(["--input=faces", "--folder=features", *flags]) == 0
    manifest = json.loads(Path("features/manifest.json").read_text())
    assert manifest["expressions"] == ["smirk", "wink"] and manifest["dropped"] == {}
    images = np.load("features/Training/images.npy")
    assert any((image == crops[1]).all() for image in images), "not scaled again"


def test_second_run_does_only_what_is_left(photos, capsys):
    prepare()
    before = {name: Path("faces", name).stat().st_mtime_ns for name in written()}
    Path("faces/smirk/one.jpg.png").unlink()
    with Path("faces/prepared.jsonl").open("a") as record:
        record.write('{"picture": "smi')  # as after a crash
    Path("photos/wink/cut.jpg").write_bytes(PORTRAIT.read_bytes())
    capsys.readouterr()
    assert prepare() == 0
    printed, errors = capsys.readouterr()
    assert printed.startswith("Faces in faces: 5 of 6 photographs") and "wall" not in errors
    after = {name: Path("faces", name).stat().st_mtime_ns for name in written()}
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"smirk/one.jpg.png", "wink/cut.jpg.png"}


def test_changed_and_moved_photographs_are_noticed(photos, capsys):
    prepare()
    before = Path("faces/smirk/one.jpg.png").read_bytes()
    os.replace(photos / "smirk/one.png", photos / "wink/one.png")
    capsys.readouterr()
    cv2.imwrite(str(photos / "smirk/one.jpg"), cv2.imread(str(PORTRAIT))[:, ::-1])
    prepare()
    assert Path("faces/smirk/one.jpg.png").read_bytes() != before, "the photograph was changed"
    gone = "faces/smirk/one.png.png"
    assert f"faces of photographs that are gone, to be deleted if unwanted: 1, {gone} first" in capsys.readouterr().err
    assert "wink/one.png.png" in written()
    Path(gone).unlink()
    prepare()
    assert "gone" not in capsys.readouterr().err


def test_larger_faces_and_splits_keep_their_layout(photos):
    Path("album/set/train").mkdir(parents=True)  # within a folder of its own
    Path("album/set/test").mkdir()
    (photos / "smirk").rename("album/set/train/smirk")
    (photos / "wink").rename("album/set/test/wink")
    prepare_faces.main(["album", "--output=faces", "--size=96", "--processes=1"])
    assert read_image("faces/train/smirk/one.jpg.png").shape == (96, 96, 3)
    assert Path("faces/test/wink/face.png.png").exists()


@pytest.mark.parametrize(
    ("flags", "fragment"),
    [
        (["photos", "--output=photos/faces"], "photos/faces lies in the photographs' folder photos"),
        (["photos", "--output=full"], "full holds other files"),
        (["photos", "--output=faces", "--size=20"], "--size=20 is not from 48, which"),
        (["photos", "--output=faces", "--size=99999999999999999999"], "is not from 48, which networks see, to 1024"),
        (["photos", "--output=faces", "--margin=0.5"], "faces was prepared with other settings"),
        (["nothing", "--output=faces"], "nothing has no picture laid out as"),
    ],
)
def test_what_cannot_be_prepared_is_one_line(photos, capsys, flags, fragment):
    Path("full").mkdir()
    Path("full/letter.txt").write_text("dear")
    Path("faces").mkdir()
    prepared = {"size": 48, "detector": "auto", "detector_model": "", "detection_confidence": 0.6}
    prepared |= {"small_faces": True, "smallest_face": 0, "margin": 0.0}
    done = {"picture": "wink/face.png", "face": None, "faces": 0, "note": ""}
    record = f"{json.dumps(prepared)}\n{json.dumps(done)}\n"
    Path("faces/prepared.jsonl").write_text(record)
    assert prepare_faces.main(flags) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert fragment in error
    assert Path("faces/prepared.jsonl").read_text() == record


def test_run_that_failed_at_once_binds_nobody_to_its_settings(photos, capsys):
    assert prepare("--detector=yunet", "--detector_model=missing.onnx") == 2
    assert Path("faces/prepared.jsonl").read_text().count("\n") == 1
    capsys.readouterr()
    prepare()
    assert capsys.readouterr().out.startswith("Faces in faces: 4 of 6 photographs")


def test_photograph_that_is_replaced_is_looked_at_again(photos, capsys):
    """Also by an older one, by one with a face where there was none, and by one without where there was one."""
    prepare()
    wall, portrait = (photos / "wink/wall.png").read_bytes(), (photos / "smirk/one.png").read_bytes()
    for name, content in (("wink/wall.png", portrait), ("smirk/one.png", wall)):
        (photos / name).write_bytes(content)
        os.utime(photos / name, (1e9, 1e9))
    capsys.readouterr()
    prepare()
    errors = capsys.readouterr().err
    assert "note: smirk/one.png: no face was found" in errors and "wall" not in errors
    assert {"wink/wall.png.png"} <= {*written()} and "smirk/one.png.png" not in written()
    before = Path("faces/prepared.jsonl").read_text()
    (photos / "wink/cut.jpg").unlink()
    assert prepare() == 0 and Path("faces/prepared.jsonl").read_text() == before


def test_record_of_an_earlier_version_is_continued(photos, capsys):
    prepare()
    (photos / "wink/cut.jpg").unlink()
    head, *lines = map(json.loads, Path("faces/prepared.jsonl").read_text().splitlines())
    old = [{name: line[name] for name in ("picture", "face", "faces", "note")} for line in lines]
    Path("faces/prepared.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (head, *old)))
    before = {name: Path("faces", name).stat().st_mtime_ns for name in written()}
    assert prepare() == 0
    assert {name: Path("faces", name).stat().st_mtime_ns for name in written()} == before
    added = [json.loads(line) for line in Path("faces/prepared.jsonl").read_text().splitlines()[len(lines) + 1 :]]
    assert [line["picture"] for line in added] == ["wink/wall.png"], "it may have a face by now"


def test_killed_run_leaves_whole_faces_and_goes_on(photos, capsys):
    for number in range(15):
        (photos / "smirk" / f"{number}.jpg").write_bytes(PORTRAIT.read_bytes())
    command = command_line("prepare_faces.py", "photos", "--output=faces", "--processes=1")
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(Path("faces").glob("smirk/?.jpg.png")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = written()
    assert done and all(read_image(f"faces/{name}").shape == (48, 48, 3) for name in done)
    prepare()
    assert capsys.readouterr().out.startswith("Faces in faces: 19 of 21 photographs")
