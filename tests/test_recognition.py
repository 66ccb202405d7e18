"""The library from a program of one's own: any usual picture, many threads, forked processes, no terminal."""

import io
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT

import ferkit
from ferkit import Face, Recognizer, UserError, VideoPredictor, processes
from ferkit.data.drawn_faces import draw_photo
from ferkit.processes import quiet
from ferkit.vision.pictures import as_bgr, read_image

HAPPY, SURPRISE = 3, 5


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return read_image(ROOT / "docs" / "portrait.jpg")


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer()


def run_python(code: str, *options: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *options, "-c", code]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


# --- pictures --------------------------------------------------------------------------------------------------------


def test_a_portrait_is_recognized_with_the_shipped_model(recognizer, portrait):
    (face,) = recognizer.recognize(portrait)
    assert isinstance(face, Face) and face.expression == "Happy" and face.confidence > 0.8
    assert face.probabilities[face.expression] == face.confidence and sum(face.probabilities.values()) == pytest.approx(
        1
    )
    assert 150 < face.box.x < 250 and 90 < face.box.width < 200 and face.score > 0.9


@pytest.mark.parametrize(
    ("changed", "tolerance"),
    [
        (lambda image: np.ascontiguousarray(image[:, ::-1])[:, ::-1], 0),  # with negative strides
        (lambda image: np.dstack([image, np.full(image.shape[:2], 255, np.uint8)]), 0),
        (lambda image: image.astype(np.uint16) * 257, 0),
        (lambda image: image.astype(np.float32) / 255, 0),
        (lambda image: image / 255, 0),
    ],
    ids=["strides", "BGRA", "uint16", "float32", "float64"],
)
def test_every_usual_form_of_a_picture_gives_the_same_answer(recognizer, portrait, changed, tolerance):
    assert recognizer.recognize(changed(portrait)) == recognizer.recognize(portrait)


def test_grey_pictures_have_one_channel_or_none(recognizer, portrait):
    grey = portrait.mean(axis=2).astype(np.uint8)
    (face,) = recognizer.recognize(grey)
    assert recognizer.recognize(grey[..., None]) == [face] and face.expression == "Happy"
    assert recognizer.recognize(grey[:48, :48])[0].box == (0, 0, 48, 48), "a face by its size"


def test_transparent_parts_become_white():
    image = np.zeros((2, 2, 4), np.uint8)
    image[0, 0, 3] = 255
    np.testing.assert_array_equal(as_bgr(image)[..., 0], [[0, 255], [255, 255]])


@pytest.mark.parametrize(
    ("image", "complaint"),
    [
        (None, "must be a NumPy array, not NoneType"),
        ("photo.jpg", "must be a NumPy array, not str"),
        (np.zeros((4, 4, 2), np.uint8), "not (4, 4, 2)"),
        (np.zeros(4, np.uint8), "not (4,)"),
        (np.zeros((0, 4, 3), np.uint8), "not (0, 4, 3)"),
        (np.zeros((1, 4, 4, 3), np.uint8), "not (1, 4, 4, 3)"),
        (np.zeros((4, 4, 3), np.int32), "not of int32"),
        (np.zeros((4, 4, 3), bool), "not of bool"),
        (np.zeros((4, 4, 3), complex), "not of complex128"),
        (np.full((4, 4, 3), 255.0), "values from 0 to 1"),
        (np.full((4, 4, 3), np.nan), "values from 0 to 1"),
        (np.full((4, 4, 3), -0.1), "values from 0 to 1"),
    ],
)
def test_anything_else_is_a_clear_error(recognizer, image, complaint):
    with pytest.raises(ValueError) as error:
        recognizer.recognize(image)
    assert complaint in str(error.value) and "\n" not in str(error.value)


def test_settings_outside_their_range_are_refused():
    with pytest.raises(UserError, match="margin is 3: it must be from 0 to 2"):
        Recognizer(settings=VideoPredictor(margin=3))
    with pytest.raises(UserError, match="detector is eyes: it must be one of auto, blazeface"):
        Recognizer(settings=VideoPredictor(detector="eyes"))
    for values, complaint in (({"margin": "x"}, "a number"), ({"small_faces": "no"}, "true or false")):
        with pytest.raises(UserError, match=f"it must be {complaint}"):
            Recognizer(settings=VideoPredictor(**values))
    with pytest.raises(UserError, match="no trained model at nowhere.bin"):
        Recognizer("nowhere.bin")


def test_the_largest_faces_are_chosen(recognizer):
    people = draw_photo((HAPPY, SURPRISE), np.random.default_rng(4))[0]
    small = cv2.resize(people, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    both = cv2.copyMakeBorder(small, 0, len(people) - len(small), 0, 0, cv2.BORDER_REPLICATE)
    picture = np.hstack([people, both])
    widths = [face.box.width for face in recognizer.recognize(picture)]
    assert len(widths) == 4
    chosen = {"most_faces": 3}, {"smallest_face": min(widths[:2])}, {"smallest_face": 5, "most_faces": 9}
    for settings, expected in zip(chosen, (3, 2, 4), strict=True):
        faces = Recognizer(recognizer.model_path, VideoPredictor(**settings)).recognize(picture)
        assert len(faces) == expected and sorted(faces, key=lambda face: face.box) == faces
        assert [face.box.width for face in faces[:2]] == widths[:2], "the large ones are on the left"


def test_a_turned_portrait_shows_what_the_upright_one_shows(recognizer):
    portrait = cv2.imread(str(ROOT / "docs" / "portrait.jpg"))
    (upright,) = recognizer.recognize(portrait)
    for degrees in (-60, 45):
        middle = (portrait.shape[1] / 2, portrait.shape[0] / 2)
        turn = cv2.getRotationMatrix2D(middle, -degrees, 0.7)
        (face,) = recognizer.recognize(cv2.warpAffine(portrait, turn, portrait.shape[1::-1]))
        assert face.expression == upright.expression and face.tilt == pytest.approx(degrees, abs=10)


def test_names_of_the_package_are_found_and_others_are_not():
    assert set(ferkit.__all__) == {"Box", "Face", "Recognizer", "UserError", "VideoPredictor"}
    assert all(getattr(ferkit, name).__name__ == name for name in ferkit.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Recogniser'"):
        ferkit.Recogniser  # noqa: B018


# --- threads and processes -------------------------------------------------------------------------------------------


def in_threads(work: Callable[[int], object], threads: int, calls: int) -> list[object]:
    """The results of `calls` calls by so many threads, which begin at the same time."""
    together = threading.Barrier(threads)

    def one(number: int) -> object:
        if number < threads:
            together.wait(60)
        return work(number)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, range(calls)))


@pytest.mark.parametrize("detector", ["auto", "haar"])
def test_one_recognizer_serves_many_threads(recognizer, small_model, detector):
    """Batches of different sizes too, for which memory is laid out anew."""
    for model in (None, small_model):  # raw pixels; landmarks
        shared = Recognizer(model, VideoPredictor(detector=detector, small_faces=False))
        people = [draw_photo(chosen, np.random.default_rng(4))[0] for chosen in ((HAPPY,), (HAPPY, SURPRISE))]
        expected = [shared.recognize(image) for image in people]
        assert [len(faces) for faces in expected] == [1, 2]
        found = in_threads(lambda number: shared.recognize(people[number % 2]), threads=8, calls=40)  # noqa: B023
        assert found == [expected[number % 2] for number in range(40)]


def test_a_recognizer_may_be_made_in_every_thread(portrait):
    found = in_threads(lambda _: Recognizer().recognize(portrait)[0].expression, threads=4, calls=8)
    assert found == ["Happy"] * 8


def test_overlapping_quiet_gives_stderr_back(capfd):
    def work(_: int) -> None:
        with quiet():
            os.write(2, b"chatter")

    in_threads(work, threads=8, calls=400)
    first, second = quiet(), quiet()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)  # the one that came first leaves first
    os.write(2, b"still quiet")
    second.__exit__(None, None, None)
    os.write(2, b"a message")
    assert capfd.readouterr().err == "a message"
    assert processes._silencer._users == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_child_that_is_forked_meanwhile_has_its_stderr():
    code = """
import os, threading
from ferkit.processes import quiet
stop = threading.Event()
def work():
    while not stop.is_set():
        with quiet():
            pass
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads: thread.start()
silent = 0
for _ in range(200):
    child = os.fork()
    if child == 0:
        with quiet():
            pass  # the lock is free in the child, and in its own children
        grandchild = os.fork()
        if grandchild == 0:
            with quiet():
                os._exit(0)
        os.waitpid(grandchild, 0)
        os._exit(os.readlink("/proc/self/fd/2") == "/dev/null")
    silent += os.waitpid(child, 0)[1] != 0
stop.set()
for thread in threads: thread.join()
print(silent)
"""
    run = run_python(code)
    assert run.stdout == "0\n", run.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a shell that closes stderr")
def test_quiet_leaves_a_file_alone_that_has_the_number_of_a_closed_stderr(tmp_path):
    code = "import os; from ferkit.processes import quiet\n"
    code += "number = os.open('file', os.O_CREAT | os.O_WRONLY)\n"
    code += "with quiet(): os.write(number, b'text')\nprint(number)"
    shell = f'exec {shlex.quote(sys.executable)} -c "$1" 2>&-'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(["sh", "-c", shell, "sh", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.stdout == "2\n" and (tmp_path / "file").read_text() == "text"


def test_files_get_the_permissions_of_the_umask_and_threads_do_not_see_it_change(tmp_path):
    code = f"""
import os, threading
from ferkit.files import whole_file
os.umask(0o027)
seen, stop = set(), threading.Event()
def watch():
    while not stop.is_set():
        name = {str(tmp_path)!r} + "/watch"
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0o666))
        seen.add(oct(os.stat(name).st_mode & 0o777))
        os.unlink(name)
thread = threading.Thread(target=watch)
thread.start()
for number in range(300):
    with whole_file({str(tmp_path)!r} + "/file.txt") as temporary:
        temporary.write_text("text")
stop.set()
thread.join()
print(sorted(seen), oct(os.stat({str(tmp_path)!r} + "/file.txt").st_mode & 0o777))
"""
    run = run_python(code)
    assert run.stdout == "['0o640'] 0o640\n", run.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_it_works_after_a_fork(portrait):
    code = f"""
import os, sys, threading
from ferkit import Recognizer
from ferkit.vision.pictures import read_image
image = read_image({str(ROOT / "docs" / "portrait.jpg")!r})
recognizer = Recognizer()
expected = recognizer.recognize(image)
stop = threading.Event()
def work():
    while not stop.is_set():
        recognizer.recognize(image)
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads: thread.start()
statuses = []
for _ in range(20):  # while the threads hold the locks, or do not
    child = os.fork()
    if child == 0:
        os._exit(0 if recognizer.recognize(image) == expected else 1)
    statuses.append(os.waitpid(child, 0)[1])
stop.set()
for thread in threads: thread.join()
print(statuses)
"""
    run = run_python(code)
    assert run.stdout == f"{[0] * 20}\n", run.stderr


RECOGNIZE = """
from ferkit import Recognizer
from ferkit.vision.pictures import read_image
(face,) = Recognizer().recognize(read_image({portrait!r}))
print(face.expression)
"""


@pytest.mark.parametrize("options", [[], ["-O"], ["-OO"]], ids=["plain", "-O", "-OO"])
def test_it_works_from_any_folder_and_without_assertions(options, tmp_path):
    run = run_python(RECOGNIZE.format(portrait=str(ROOT / "docs" / "portrait.jpg")), *options, cwd=tmp_path)
    assert (run.returncode, run.stdout, run.stderr) == (0, "Happy\n", "")


def test_it_works_where_stderr_is_no_file(portrait, monkeypatch):
    """A notebook replaces it by an object without a descriptor."""

    class Notebook(io.StringIO):
        def fileno(self) -> int:
            raise io.UnsupportedOperation("fileno")

    monkeypatch.setattr(sys, "stderr", Notebook())
    assert Recognizer().recognize(portrait)[0].expression == "Happy"
    with processes.quiet_libraries():
        print("words", file=sys.stderr)
    assert sys.stderr.getvalue() == "words\n"
    monkeypatch.setattr(sys, "stderr", None)
    assert Recognizer().recognize(portrait)[0].expression == "Happy"


# --- installation ----------------------------------------------------------------------------------------------------

WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {packages!r}:
            raise ModuleNotFoundError(f"No module named '{{name}}'", name=name)
sys.meta_path.insert(0, Missing())
sys.argv = [{script!r}, *{flags!r}]
sys.path.insert(0, {root!r})
import runpy
runpy.run_path({root!r} + "/" + {script!r}, run_name="__main__")
"""


@pytest.mark.parametrize(
    ("package", "script", "flags", "cure"),
    [
        *[
            (package, "predict.py", ["--image", "x.jpg"], "pip install --no-deps -r requirements-predict.txt")
            for package in ("numpy", "cv2", "PIL", "ai_edge_litert", "imutils")
        ],
        ("scipy", "predict-from-video.py", ["--source=x.mp4"], "pip install --no-deps -r requirements-predict.txt"),
        ("tqdm", "predict-from-video.py", ["--source=x.mp4"], "pip install --no-deps -r requirements-predict.txt"),
        ("flask", "serve.py", ["--port=0"], "pip install --no-deps -r requirements-predict.txt"),
        ("waitress", "serve.py", ["--port=0"], "pip install --no-deps -r requirements-predict.txt"),
        ("onnx", "export_model.py", ["--format=onnx", "--output=x.onnx", "--model_path=ferplus"], "pip install onnx"),
        ("pandas", "train.py", ["--train=yes"], "pip install -r requirements.txt"),
        ("pymongo", "optimize_hyperparams.py", ["--mongo=mongodb://h/d"], "pip install -r requirements.txt"),
    ],
)
def test_package_that_is_not_installed_is_one_line_with_the_command(package, script, flags, cure, tmp_path):
    code = WITHOUT.format(packages={package}, script=script, flags=flags, root=str(ROOT))
    run = run_python(code, cwd=tmp_path)
    assert (run.returncode, run.stderr) == (2, f"error: {package} is not installed: '{cure}'\n")


def test_package_that_the_library_misses_is_an_import_error_with_the_command():
    code = WITHOUT.replace("sys.argv = [{script!r}, *{flags!r}]", "").split("sys.path.insert")[0]
    run = run_python(code.format(packages={"cv2"}) + "from ferkit import Recognizer")
    last = "ImportError: cv2 is not installed: 'pip install --no-deps -r requirements-predict.txt'"
    assert run.stderr.splitlines()[-1] == last


def test_training_without_tensorflow_is_one_line_with_the_command(drawn_dataset, tmp_path):
    flags = ["--train=yes", "--model=A", f"--folder={drawn_dataset}"]
    code = WITHOUT.format(packages={"tensorflow"}, script="train.py", flags=flags, root=str(ROOT))
    run = run_python(code, cwd=tmp_path)
    assert run.returncode == 2 and "Traceback" not in run.stderr
    assert run.stderr.splitlines()[-1] == "error: tensorflow is not installed: 'pip install -r requirements.txt'"


def test_small_installation_recognizes_and_evaluates(tmp_path):
    """Nothing that only requirements-train.txt has is missed by pictures."""
    names = {"tensorflow", "tflearn", "pandas", "skimage", "hyperopt", "pymongo", "sklearn", "matplotlib", "keras"}
    portrait = str(ROOT / "docs" / "portrait.jpg")
    flags = ["--image", portrait, "--output=annotated.jpg", "--test_time_augmentation"]
    code = WITHOUT.format(packages=names, script="predict.py", flags=flags, root=str(ROOT))
    run = run_python(code, cwd=tmp_path)
    assert run.returncode == 0 and "Prediction: Happy" in run.stdout, run.stderr
    assert (tmp_path / "annotated.jpg").is_file()


@pytest.mark.slow
def test_pip_installs_the_package_and_its_commands(tmp_path):
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path / "site")]
    copy = tmp_path / "copy"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(copy)], check=True)
    run = subprocess.run([*install, str(copy)], capture_output=True, text=True, timeout=300)
    if "No matching distribution found for setuptools" in run.stderr:
        pytest.skip("pip reaches no package index")
    assert run.returncode == 0, run.stderr
    command = [sys.executable, str(tmp_path / "site" / "bin" / "ferkit-predict")]
    run = subprocess.run(
        [*command, "--image", str(ROOT / "docs" / "portrait.jpg")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0 and "Prediction: Happy" in run.stdout, run.stderr
