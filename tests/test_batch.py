"""Many pictures: several processes, and a log that is whole at any time and that a later run continues."""

import csv
import dataclasses
import json
import os
import pickle
import shutil
import signal
import subprocess
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT, command_line, full_disk

import predict
from ferkit.batch import Answer, PictureLog, answers, made_with
from ferkit.data.drawn_faces import draw_photo
from ferkit.errors import UserError
from ferkit.files import lock
from ferkit.recognition import Face, Recognizer
from ferkit.settings import VideoPredictor
from ferkit.vision.boxes import Box
from parameters import VIDEO_PREDICTOR

COUNT = 12  # pictures in the folder that can be read


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Pictures of one or two drawn people, one without a face, and one that cannot be read."""
    folder = tmp_path_factory.mktemp("many") / "pictures"
    folder.mkdir()
    for number in range(COUNT - 1):
        people = (3, 5)[: 1 + number % 2]
        cv2.imwrite(str(folder / f"{number:02}.png"), draw_photo(people, np.random.default_rng(number), 240, 320)[0])
    cv2.imwrite(str(folder / "sky.png"), np.full((200, 300, 3), 180, np.uint8))
    (folder / "broken.png").write_bytes((folder / "00.png").read_bytes()[:2000])
    return folder


@pytest.fixture(scope="module")
def recognizer(raw_model) -> Recognizer:
    return Recognizer(raw_model)


def main(folder: Path, model: Path, log: Path, *flags: str) -> int:
    return predict.main([f"--image={folder}", f"--model_path={model}", f"--log={log}", *flags])


def pictures_of(log: Path) -> list[str]:
    """The names in a log, once for each of its pictures."""
    if log.suffix == ".jsonl":
        return [Path(json.loads(line)["image"]).name for line in log.read_text().splitlines()]
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert row["faces"] == str(sum(other["image"] == row["image"] for other in rows if other["face"]))
    return [Path(row["image"]).name for row in rows if row["face"] in ("", "1")]


def without_times(log: Path) -> list[dict]:
    return [{**json.loads(line), "seconds": 0} for line in log.read_text().splitlines()]


# --- several processes -----------------------------------------------------------------------------------------------


def test_number_of_processes_makes_no_difference(folder, raw_model, tmp_path, capsys):
    for processes in "12":
        for suffix in (".csv", ".jsonl"):
            log = tmp_path / f"{processes}{suffix}"
            assert main(folder, raw_model, log, f"--processes={processes}") == 2, "one picture cannot be read"
    output = capsys.readouterr()
    assert output.err.count("error: ") == 4 and all("broken.png" in line for line in output.err.splitlines())
    assert (tmp_path / "1.csv").read_bytes() == (tmp_path / "2.csv").read_bytes()
    assert without_times(tmp_path / "1.jsonl") == without_times(tmp_path / "2.jsonl")
    for suffix in (".csv", ".jsonl"):
        assert pictures_of(tmp_path / f"2{suffix}") == [*(f"{number:02}.png" for number in range(COUNT - 1)), "sky.png"]


def test_log_and_standard_output_say_the_same(folder, raw_model, tmp_path, capsys):
    assert main(folder, raw_model, tmp_path / "faces.jsonl") == main(folder, raw_model, tmp_path / "faces.csv") == 2
    capsys.readouterr()
    assert predict.main([f"--image={folder}", f"--model_path={raw_model}", "--json"]) == 2
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    with (tmp_path / "faces.csv").open(newline="") as file:
        rows = iter(list(csv.DictReader(file)))
    for entry, line in zip(printed, without_times(tmp_path / "faces.jsonl"), strict=True):
        assert {**entry, "seconds": 0, "made_with": line["made_with"]} == line
        for number, face in enumerate(entry["faces"], 1):
            row = next(rows)
            assert (row["image"], row["face"], row["made_with"]) == (entry["image"], str(number), line["made_with"])
            assert [int(row[name]) for name in ("x", "y", "width", "height")] == face["box"]
            assert row["expression"] == face["expression"]
            for name, probability in {
                **face["probabilities"],
                **{key: face[key] for key in ("confidence", "score")},
            }.items():
                assert float(row[name]) == pytest.approx(probability, abs=6e-5)
        if not entry["faces"]:
            assert next(rows)["expression"] == ""
    assert next(rows, None) is None


def test_copies_are_written_by_the_processes(folder, raw_model, tmp_path, capsys):
    flags = [f"--image={folder}", f"--model_path={raw_model}"]
    for processes in "12":
        assert predict.main([*flags, f"--output={tmp_path / processes}", f"--processes={processes}"]) == 2
    copies = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert len(copies) == COUNT
    for name in copies:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


@pytest.mark.parametrize("processes", [1, 2])
def test_seconds_are_those_of_recognition_alone(recognizer, folder, monkeypatch, processes):
    loaded = set()

    def find(self: Recognizer, image: np.ndarray, known: tuple = ()) -> list:
        if os.getpid() not in loaded:  # as for a detector that is loaded on its first use in each process
            time.sleep(0.5)
            loaded.add(os.getpid())
        return []

    monkeypatch.setattr(Recognizer, "find", find)
    found = list(answers(recognizer, [str(folder / f"{number:02}.png") for number in range(8)], processes))
    assert max(answer.seconds for answer in found) < 0.5


def test_recognizer_can_be_sent_to_another_process(recognizer, folder):
    image = cv2.imread(str(folder / "01.png"))
    assert pickle.loads(pickle.dumps(recognizer)).recognize(image) == recognizer.recognize(image) != []


def test_killed_process_is_said(recognizer, folder, monkeypatch):
    def die(*found: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(UserError, match="a process was ended from outside"):
        list(answers(recognizer, [str(folder / "00.png")] * 8, processes=2, finish=die))


# --- interruptions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=str)
def test_interrupted_run_is_continued(folder, raw_model, tmp_path, number):
    album = tmp_path / "album"
    for copy in range(6):
        shutil.copytree(folder, album / f"{copy:02}", ignore=shutil.ignore_patterns("broken.png"))
    log = tmp_path / "faces.csv"
    copies = tmp_path / "copies"
    flags = [f"--image={album}", f"--model_path={raw_model}", f"--log={log}", "--processes=2", f"--output={copies}"]
    run = subprocess.Popen(
        command_line("predict.py", *flags), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not log.exists() or log.read_bytes().count(b"\n") < 2:
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    if number == signal.SIGINT:
        os.killpg(run.pid, number)  # as a terminal sends it, to all processes
    else:
        run.send_signal(number)
    _, errors = run.communicate(timeout=60)  # at its end when no process is left that holds stdout
    status = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    assert "Traceback" not in errors and run.returncode == status, errors
    if number != signal.SIGKILL:
        assert not list(copies.rglob(".*")), "every copy is whole"
    before = log.read_bytes()
    assert 0 < len(pictures_of(log)) < 6 * COUNT
    assert predict.main(flags) == 0
    assert log.read_bytes().startswith(before)
    assert sorted(pictures_of(log)) == sorted(path.name for path in album.rglob("*.png"))
    assert len([*copies.rglob("*/[!.]*.png")]) == 6 * COUNT
    finished = log.read_bytes()
    assert predict.main(flags) == 0 and log.read_bytes() == finished


def some_answers(count: int) -> list[Answer]:
    """Answers with no, one or two faces."""
    probabilities = dict.fromkeys(VIDEO_PREDICTOR.emotions, 1 / 7)
    faces = [Face.of(Box(-3, 5, 60, 60), probabilities), Face.of(Box(80, 5, 60, 60), probabilities)]
    return [Answer(f"album/ü, {number}.jpg", faces[: number % 3], 0.1, None) for number in range(count)]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_log_cut_anywhere_is_mended(recognizer, tmp_path, suffix):
    """Wherever a crash or a full disk cuts it, the next run removes what is not whole and writes the rest."""
    given = some_answers(6)
    path = tmp_path / f"faces{suffix}"
    with PictureLog(path, recognizer) as log:
        for answer in given:
            log.write(answer)
    whole = path.read_bytes()
    assert whole.count(b"\n") == (8 + 1 if suffix == ".csv" else 6)
    paths = [answer.path for answer in given]
    for length in range(0, len(whole), 5):
        path.write_bytes(whole[:length])
        with PictureLog(path, recognizer) as log:
            left = log.left(paths, {}, {})
            assert left == paths[len(log) :] and len(log) < 6
            for answer in given:
                log.write(answer)  # those that are there are not written again
            assert (len(log), log.faces) == (6, 6)
        assert path.read_bytes() == whole


def test_full_disk_is_said_and_costs_at_most_the_last_picture(recognizer, tmp_path):
    path = tmp_path / "faces.csv"
    with (
        PictureLog(path, recognizer) as log,
        full_disk(900),
        pytest.raises(UserError, match="faces.csv: no space is left"),
    ):
        for answer in some_answers(20):
            log.write(answer)
    assert path.stat().st_size == 900
    with PictureLog(path, recognizer) as log:
        assert len(log) == len(pictures_of(path)) > 0


# --- what is in the log already --------------------------------------------------------------------------------------


def test_what_could_not_be_read_is_tried_again(folder, raw_model, tmp_path, capsys):
    album = tmp_path / "album"
    shutil.copytree(folder, album)
    log = tmp_path / "faces.jsonl"
    assert main(album, raw_model, log) == 2
    assert "broken.png" not in pictures_of(log)
    shutil.copy(album / "00.png", album / "broken.png")
    capsys.readouterr()
    assert main(album, raw_model, log) == 0
    assert pictures_of(log)[-1] == "broken.png" and len(pictures_of(log)) == COUNT + 1
    assert capsys.readouterr().out.startswith("Pictures recognized: 1 (")


def test_copy_that_is_missing_is_made_without_a_second_row(folder, raw_model, tmp_path):
    log, copies = tmp_path / "faces.csv", tmp_path / "copies"
    assert main(folder, raw_model, log, f"--output={copies}") == 2
    before = log.read_bytes()
    (copies / "03.png").unlink()
    assert main(folder, raw_model, log, f"--output={copies}") == 2
    assert (copies / "03.png").exists() and log.read_bytes() == before


def test_explanations_that_are_missing_are_made_without_a_second_row(folder, raw_model, tmp_path):
    """Of a picture without a face there is none, so nothing is missing."""
    log, maps = tmp_path / "faces.csv", tmp_path / "maps"
    images = [str(folder / name) for name in ("00.png", "01.png", "sky.png")]
    flags = ["--image", *images, f"--model_path={raw_model}", f"--log={log}"]
    assert predict.main(flags) == 0
    before = log.read_bytes()
    for missing in ([], ["01.png_2.png"]):
        for name in missing:
            (maps / name).unlink()
        assert predict.main([*flags, f"--explain={maps}"]) == 0
        assert (maps / "00.png_1.png").exists() and (maps / "01.png_2.png").exists() and log.read_bytes() == before
    times = {path.name: path.stat().st_mtime_ns for path in maps.iterdir()}
    assert predict.main([*flags, f"--explain={maps}"]) == 0
    assert {path.name: path.stat().st_mtime_ns for path in maps.iterdir()} == times


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_pictures_are_known_from_any_folder(recognizer, tmp_path, monkeypatch, suffix):
    """Two pictures of one name in two folders are two; one picture named in two ways is one."""
    answers = {}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        with PictureLog(tmp_path / f"faces{suffix}", recognizer) as log:
            assert log.left(["a.jpg"], {}, {}) == ["a.jpg"]
            answers[name] = some_answers(2)[1]._replace(path="a.jpg")
            log.write(answers[name])
            log.write(answers[name])
            assert len(log) == len(answers)
    monkeypatch.chdir(tmp_path)
    with PictureLog(tmp_path / f"faces{suffix}", recognizer) as log:
        assert log.left(["one/a.jpg", "two/../one/a.jpg", str(tmp_path / "two/a.jpg"), "a.jpg"], {}, {}) == ["a.jpg"]


def test_standard_input_has_no_place_in_a_log(folder, raw_model, tmp_path, capsys):
    assert predict.main(["--image", str(folder), "-", f"--log={tmp_path}/faces.csv"]) == 2
    assert "standard input has no name for --log" in capsys.readouterr().err and not any(tmp_path.iterdir())


def test_another_model_or_other_settings_make_another_log(recognizer, small_model, tmp_path):
    path = tmp_path / "faces.csv"
    with PictureLog(path, recognizer) as log:
        log.write(some_answers(1)[0])
    before = path.read_bytes()
    wider = Recognizer(recognizer.model_path, VideoPredictor(margin=0.1))
    for other in (Recognizer(small_model), wider):
        with pytest.raises(UserError, match="made with another model or other settings"), PictureLog(path, other):
            pass
    assert path.read_bytes() == before
    shown = Recognizer(recognizer.model_path, VideoPredictor(show_confidence=False, smoothing=3.0))
    with PictureLog(path, shown) as log:
        assert len(log) == 1, "what is shown changes nothing of what is found"


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("content", ["notes", "name,age\nEve,33\n", '{"image": 3}\n', '["image"]\n'])
def test_other_peoples_files_are_not_touched(recognizer, tmp_path, suffix, content):
    path = tmp_path / f"faces{suffix}"
    path.write_text(content)
    with (
        pytest.raises(UserError, match=r"no log of this command|line 1 of .* is damaged"),
        PictureLog(path, recognizer),
    ):
        pass
    assert path.read_text() == content


def test_damaged_line_is_named(recognizer, tmp_path):
    path = tmp_path / "faces.csv"
    with PictureLog(path, recognizer) as log:
        for answer in some_answers(3):
            log.write(answer)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], "mine\n", *lines[2:]]))
    with pytest.raises(UserError, match="line 3 of"), PictureLog(path, recognizer):
        pass


def test_two_runs_do_not_write_one_log(recognizer, tmp_path):
    with lock(tmp_path / "faces.csv"), pytest.raises(UserError, match="another process is writing"):
        PictureLog(tmp_path / "faces.csv", recognizer).__enter__()


@pytest.mark.parametrize(
    ("flags", "fragment"),
    [
        (["--log=faces.txt"], "none of the suffixes .csv .jsonl"),
        (["--log=."], "none of the suffixes"),
        (["--log=folder.csv"], "cannot write folder.csv"),
    ],
)
def test_place_that_is_no_log_is_refused(folder, raw_model, tmp_path, monkeypatch, capsys, flags, fragment):
    monkeypatch.chdir(tmp_path)
    Path("folder.csv").mkdir()
    assert predict.main([f"--image={folder}", f"--model_path={raw_model}", *flags]) == 2
    assert fragment in capsys.readouterr().err


def test_log_takes_the_place_of_what_is_printed(folder, capsys):
    with pytest.raises(SystemExit) as exit:
        predict.main([f"--image={folder}", "--json", "--log=faces.csv"])
    assert exit.value.code == 2 and "not allowed with" in capsys.readouterr().err


def test_every_setting_of_recognition_is_known_to_the_log(recognizer):
    """A setting that decides what is found, and any new one, tells logs apart; no other one does."""
    from ferkit.batch import _ELSEWHERE

    fields = {field.name: field for field in dataclasses.fields(VideoPredictor)}
    assert fields.keys() > _ELSEWHERE
    changed = Recognizer(recognizer.model_path)
    for name, field in fields.items():
        value = field.default
        other = not value if isinstance(value, bool) else value * 2 if isinstance(value, tuple | str) else value + 1
        changed.settings = dataclasses.replace(recognizer.settings, **{name: other or "other"})
        assert (made_with(changed) != made_with(recognizer)) == (name not in _ELSEWHERE), name
