"""Bad inputs by the hundred: each command ends with one line that names the thing, and nothing is replaced.

    make fuzz                               # hundreds of each kind, and how many were refused
    FUZZ=100 python -m pytest -n 0 tests/test_fuzz.py

Without FUZZ a few of each kind are tried, always the same.
"""

import collections
import contextlib
import copy
import functools
import gzip
import hashlib
import io
import json
import os
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tqdm
from conftest import ROOT, full_disk, load_script, write_video
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from ferkit import saved_model
from ferkit.constants import SPLITS
from ferkit.data.conversion import convert
from ferkit.data.drawn_faces import write_csv
from ferkit.data.ferplus import COLUMNS
from ferkit.errors import UserError
from ferkit.files import read_bytes

EXAMPLES = int(os.environ.get("FUZZ", 0))
TABLES = load_script("docs/tables.py")
COMMANDS = [command for commands in TABLES.PAGES.values() for command in commands]
KEY = "k3y"  # in addresses; never printed
COUNTS: collections.Counter[tuple[str, str]] = collections.Counter()


def fuzzed(few: int) -> Callable[[Any], Any]:
    """Settings of a test: FUZZ examples; `few` without it, always the same ones."""
    return settings(
        max_examples=EXAMPLES or few,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        phases=(Phase.explicit, Phase.generate) if not EXAMPLES else tuple(Phase),
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module", autouse=True)
def counts(request) -> Iterator[None]:
    """Shows how many inputs of each kind were tried, and how many of them refused."""
    yield
    if EXAMPLES:
        writer = request.config.get_terminal_writer()
        writer.line()
        for kind in sorted({kind for kind, _ in COUNTS}):
            refused, accepted = COUNTS[kind, "refused"], COUNTS[kind, "accepted"]
            writer.line(f"{kind}: {refused + accepted} inputs, {refused} refused in one line, {accepted} accepted")
        writer.line(f"all: {sum(COUNTS.values())} inputs")


@pytest.fixture(scope="module", autouse=True)
def no_progress() -> Iterator[None]:
    """Progress bars are drawn on stderr, but they are no messages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tqdm.tqdm, "__init__", functools.partialmethod(tqdm.tqdm.__init__, disable=True))
        yield


# --- running a command -----------------------------------------------------------------------------------------------


@functools.cache
def main_of(command: str) -> Callable[[list[str]], int]:
    if command.startswith("-m "):
        import importlib

        return importlib.import_module(command.removeprefix("-m ")).main
    return load_script(command).main


@contextlib.contextmanager
def captured() -> Iterator[list[str]]:
    """Puts into the list what the code inside, native libraries too, writes to stdout and to stderr."""
    written: list[str] = []
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(2)]
        before = [os.dup(number) for number in (1, 2)]
        streams = [io.TextIOWrapper(io.FileIO(number, "w", closefd=False), write_through=True) for number in (1, 2)]
        for number, file in zip((1, 2), files, strict=True):
            os.dup2(file.fileno(), number)
        try:
            with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
                yield written
        finally:
            for number, old in zip((1, 2), before, strict=True):
                os.dup2(old, number)
                os.close(old)
        for file in files:
            file.seek(0)
            written.append(file.read().decode(errors="replace"))


def tree(folder: Path) -> dict[str, Any]:
    """The files in a folder. Empty lock files and empty folders may appear."""
    found: dict[str, Any] = {}
    for path in folder.rglob("*"):
        if not path.is_dir() and not (path.name.startswith(".") and path.name.endswith(".lock")):
            found[str(path)] = path.lstat().st_mode
            with contextlib.suppress(OSError, UserError):
                found[str(path)] = hashlib.sha256(read_bytes(path)).hexdigest()  # short, where a failure is shown
    return found


def check(kind: str, command: str, flags: list[str], folder: Path, *names: str, may_work: bool = False) -> None:
    """Runs a command in `folder`, which has to refuse what it is given in one line with one of `names`.

    may_work: the input may be good by chance.
    """
    before, here = tree(folder), os.getcwd()
    os.chdir(folder)
    try:
        with captured() as written, warnings.catch_warnings():
            warnings.simplefilter("error", ResourceWarning)
            try:
                status = main_of(command)(flags)
            except SystemExit as exit:  # of the parser
                status = exit.code
    finally:
        os.chdir(here)
    output, errors = written
    lines = [line for line in errors.splitlines() if not line.startswith("note: ")]
    told = (command, flags, status, output[-500:], errors[-3000:])
    assert KEY not in output + errors and "Traceback" not in errors, told
    assert (output + errors).isprintable() or not set(output + errors) & set(
        map(chr, (*range(9), *range(11, 32), 127))
    ), told
    if status == 0 and may_work:
        COUNTS[kind, "accepted"] += 1
        return
    assert status not in (0, None), told
    if status == 1 and may_work:  # a result: no face, no trial
        COUNTS[kind, "accepted"] += 1
        return
    assert len(lines) == 1 and lines[0].startswith("error: ") and len(lines[0]) < 6000, told
    assert not names or any(name in lines[0] for name in names), told
    assert tree(folder) == before, told
    COUNTS[kind, "refused"] += 1


# --- what everything is made from ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A folder with one of everything that the commands read, none of it damaged."""
    folder = tmp_path_factory.mktemp("whole")
    write_csv(folder / "fer2013.csv", 21, 7, 7, seed=1)
    with captured():
        convert(str(folder / "fer2013.csv"), str(folder / "fer2013_features"), range(7), [], processes=1)
    shutil.copy(ROOT / "pretrained" / "saved_model.bin", folder / "model.bin")
    face = np.load(folder / "fer2013_features" / "Training" / "images.npy")[0]
    for suffix in ("png", "jpg", "bmp", "gif", "tif", "webp"):
        Image.fromarray(face).save(folder / f"face.{suffix}")
    rows = ["Usage,Image name," + ",".join(COLUMNS)]
    splits = {"Training": 21, "PublicTest": 7, "PrivateTest": 7}
    rows += [f"{split},a.png,8,2,0,0,0,0,0,0,0,0" for split, count in splits.items() for _ in range(count)]
    (folder / "votes.csv").write_text("\n".join(rows) + "\n")
    (folder / "hyperparams.json").write_text(json.dumps({"learning_rate": 0.01, "optimizer": "adam", "batch_size": 9}))
    return folder


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    return shutil.copytree(whole, tmp_path / "work")


# --- flags -----------------------------------------------------------------------------------------------------------

# What makes each command end early whatever other flags it is given.
ENDS = {
    "convert_fer2013_to_images_and_landmarks.py": ["--input=missing"],
    "train.py": ["--evaluate=yes", "--folder=missing"],
    "-m ferkit.data.drawn_faces": ["--training=x"],
    "predict.py": ["--image=missing"],
    "predict-from-video.py": ["--source=missing", "--log=faces.csv", "--window=no"],
    "optimize_hyperparams.py": ["--folder=missing"],
    "-m experiments.reproduce_results": ["--report", "--results=missing"],
    "-m experiments.train_svm": ["--folder=missing"],
    "serve.py": ["--port=x"],
    "export_model.py": ["--model_path=missing", "--format=onnx", "--output=x.onnx"],
    "prepare_faces.py": ["missing", "--output=faces"],
    "check_labels.py": ["--input=missing"],
}
NO_FLAGS = {"help", "window", "mongo", "worker", "list", "quick", "resume"}  # --mongo: see test_search_mongo.py
WORDS = (
    "", "yes", "no", "none", "-1", "0", "1e400", "nan", "-inf", "9" * 5000, "0x10", "1_0", "٣", "²", ".", "..", "/",
    "~", "a" * 300, "%s%n", "{0}", "\x1b[2J", "two\nlines", "\u202e", "ä😀", "-", "--", "=", ",", "1,1", "*",
    f"mongodb://user:{KEY}@h/a", f"rtsp://h/a?password={KEY}", f"http://u:a/{KEY}@h", f"u:{KEY}@h",
)  # fmt: skip
TEXTS = st.sampled_from(WORDS) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@functools.cache
def flags_of(command: str) -> list[str]:
    actions = [action for action in TABLES.parser_of(command)._actions if action.dest not in NO_FLAGS]
    return [option for action in actions for option in action.option_strings if option.startswith("--")]


@fuzzed(60)
@given(data=st.data(), command=st.sampled_from(COMMANDS))
def test_flags(data, command):
    ends = ENDS[command]
    flag = data.draw(st.sampled_from(flags_of(command)) | st.just("--unknown"))
    value = data.draw(TEXTS)
    with tempfile.TemporaryDirectory() as folder:
        given_flags = ends if any(end.startswith(f"{flag}=") for end in ends) else [*ends, f"{flag}={value}"]
        check("flags", command, given_flags, Path(folder))


# --- texts and bytes -------------------------------------------------------------------------------------------------

NUMBERS = st.sampled_from([0, -1, 1, 2, 0.5, 1e308, 1e-300, 10**30, float("nan"), float("inf"), True, None])
JSON = st.recursive(
    NUMBERS | st.sampled_from(["", "x", "\x1b[2J", "Happy", "a\nb"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "count", ""]), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def damaged_json(draw, value: Any) -> str:
    """The value as JSON with one part of it replaced or left out, or no JSON at all."""
    value = copy.deepcopy(value)
    place, depth = value, draw(st.integers(0, 5))
    for _ in range(depth):
        inner = [
            part
            for part in (place.values() if isinstance(place, dict) else place)
            if isinstance(part, dict | list) and part
        ]
        if not inner:
            break
        place = draw(st.sampled_from(inner))
    key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
    if draw(st.booleans()):
        place[key] = draw(JSON)
    else:
        del place[key]
    text = json.dumps(value)
    return draw(st.sampled_from([text] * 5 + [text[: len(text) // 2], "", f"[{text}]", "[" * 100_000]))


@st.composite
def damaged_bytes(draw, content: bytes) -> bytes:
    """The content with some bytes changed, cut off, or something else altogether."""
    kind = draw(st.sampled_from(["bytes", "bytes", "bytes", "cut", "random", "empty", "doubled"]))
    if kind == "bytes":
        damaged = bytearray(content)
        for _ in range(draw(st.integers(1, 12))):  # often in the header
            place = draw(st.integers(0, min(200, len(content) - 1)) | st.integers(0, len(content) - 1))
            damaged[place] = draw(st.integers(0, 255))
        return bytes(damaged)
    if kind == "cut":
        return content[: draw(st.integers(0, len(content)))]
    return {"random": draw(st.binary(max_size=300)), "empty": b"", "doubled": content + content}[kind]


def with_model(facts: str, network: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as appendix:
        appendix.writestr(saved_model.FACTS, facts)
    return network + archive.getvalue()


EVALUATE = ["--evaluate=yes", "--model_path=model.bin"]
PREDICT = ["--image=face.png", "--model_path=model.bin", "--output=annotated.png"]


def put(whole: Path, name: str, content: bytes | str) -> contextlib.AbstractContextManager[Path]:
    """A copy of the folder with one file replaced."""

    @contextlib.contextmanager
    def copied() -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as place:
            folder = shutil.copytree(whole, Path(place) / "work")
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(
                content if isinstance(content, bytes) else content.encode(errors="surrogatepass")
            )
            yield folder

    return copied()


@fuzzed(25)
@given(data=st.data())
def test_manifests(whole, data):
    name = "fer2013_features/manifest.json"
    text = data.draw(damaged_json(json.loads((whole / name).read_text())))
    with put(whole, name, text) as folder:
        check("manifests", "train.py", EVALUATE, folder, "fer2013_features", may_work=True)


@pytest.fixture(scope="module")
def search(whole) -> dict[str, Any]:
    """The state of a search of two trials in `whole`."""
    from ferkit.search import local
    from ferkit.search.trial import Outcome

    with put(whole, "notes", "") as folder, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(local, "run_trial", lambda job, command, hopeless: Outcome("ok", [0.5, 0.6], 1.5))
        with captured():
            flags = ["--model=A", "--features=none", "--epochs=2", "--batch_size=4", "--max_evals=2"]
            assert main_of("optimize_hyperparams.py")(flags) == 0
        return json.loads((folder / "search" / "default" / "state.json").read_text())


@fuzzed(25)
@given(data=st.data())
def test_states_of_searches(whole, search, data):
    name = "search/default/state.json"
    with put(whole, name, data.draw(damaged_json(search))) as folder:
        check("states of searches", "optimize_hyperparams.py", ["--report"], folder, name, may_work=True)


@fuzzed(25)
@given(data=st.data())
def test_details_of_rows(whole, data):
    name = "B_landmarks_03456_published_seed0"
    detail = json.loads((ROOT / "results" / "rows" / f"{name}.json").read_text())
    head, *lines = (ROOT / "results" / "results.csv").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("B,landmarks,0 3 4 5 6,yes,published,fer2013,0,")]
    with put(whole, f"kept/rows/{name}.json", data.draw(damaged_json(detail))) as folder:
        (folder / "kept" / "results.csv").write_text(f"{head}\n{line}\n")
        flags, names = ["--report", "--results=kept"], (name, "results.csv")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("experiments.report.draw_pictures", lambda records, results: [])
            check("details of rows", "-m experiments.reproduce_results", flags, folder, *names, may_work=True)


@fuzzed(25)
@given(data=st.data())
def test_facts_of_models(whole, data):
    content = (whole / "model.bin").read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        facts, network = json.loads(archive.read(saved_model.FACTS)), content[: archive.infolist()[0].header_offset]
    with put(whole, "model.bin", with_model(data.draw(damaged_json(facts)), network)) as folder:
        check("facts of models", "predict.py", PREDICT, folder, "model.bin", may_work=True)


@fuzzed(15)
@given(data=st.data())
def test_bytes_of_models(whole, data):
    with put(whole, "model.bin", data.draw(damaged_bytes((whole / "model.bin").read_bytes()))) as folder:
        check("bytes of models", "predict.py", PREDICT, folder, "model.bin", may_work=True)


@fuzzed(25)
@given(data=st.data())
def test_hyperparameters(whole, data):
    text = data.draw(damaged_json(json.loads((whole / "hyperparams.json").read_text())))
    flags = ["--train=yes", "--hyperparams=hyperparams.json", "--folder=missing"]
    with put(whole, "hyperparams.json", text) as folder:
        check("hyperparameters", "train.py", flags, folder, "hyperparams.json", "no converted dataset in missing")


@fuzzed(40)
@given(data=st.data(), suffix=st.sampled_from(["png", "jpg", "bmp", "gif", "tif", "webp"]))
def test_pictures(whole, data, suffix):
    name = f"face.{suffix}"
    flags = [f"--image={name}", "--model_path=model.bin", "--output=annotated.png"]
    with put(whole, name, data.draw(damaged_bytes((whole / name).read_bytes()))) as folder:
        check("pictures", "predict.py", flags, folder, name, may_work=True)


@fuzzed(20)
@given(data=st.data(), array=st.sampled_from(["images", "labels"]), split=st.sampled_from(SPLITS))
def test_arrays(whole, data, array, split):
    name = f"fer2013_features/{split}/{array}.npy"
    if data.draw(st.booleans()):
        content = data.draw(damaged_bytes((whole / name).read_bytes()))
    else:
        shape = np.load(whole / name).shape
        kinds = ["U3", "complex64", "bool", "datetime64[s]", "float16", "int8", "O", "i4,f4", "float32"]
        values = np.zeros(shape, data.draw(st.sampled_from(kinds)))
        if values.dtype.kind == "f":
            values[...] = data.draw(st.sampled_from([np.nan, np.inf, 0.5, -1]))
        file = io.BytesIO()
        np.save(file, values, allow_pickle=True)
        content = file.getvalue()
    with put(whole, name, content) as folder:
        check("arrays", "train.py", EVALUATE, folder, "fer2013_features", may_work=True)


@st.composite
def damaged_csv(draw, text: str) -> bytes:
    """The csv with some fields of some rows replaced, or some of its bytes."""
    if draw(st.booleans()):
        return draw(damaged_bytes(text.encode()))
    lines = text.splitlines()
    for _ in range(draw(st.integers(1, 4))):
        row = draw(st.integers(0, min(3, len(lines) - 1)))
        fields = lines[row].split(",")
        fields[draw(st.integers(0, len(fields) - 1))] = draw(TEXTS)
        lines[row] = ",".join(fields)
    return "\n".join(lines).encode()


@fuzzed(20)
@given(data=st.data(), name=st.sampled_from(["fer2013.csv", "fer2013.csv.gz", "votes.csv"]))
def test_tables(whole, data, name):
    content = data.draw(damaged_csv((whole / name.removesuffix(".gz")).read_text()))
    if name.endswith(".gz"):
        content = data.draw(damaged_bytes(gzip.compress(content)))
    votes = ["--ferplus=votes.csv"] if name == "votes.csv" else []
    source = name if name != "votes.csv" else "fer2013.csv"
    none = [f"--{part}=no" for part in ("landmarks", "hog", "hog_windows")]
    with put(whole, name, content) as folder:
        flags = [f"--input={source}", "--folder=new", "--processes=1", *none, *votes]
        check("tables", "convert_fer2013_to_images_and_landmarks.py", flags, folder, name, may_work=True)


# --- a full disk -----------------------------------------------------------------------------------------------------

FULL = {  # a command and its flags, with the output that does not fit
    "convert_fer2013_to_images_and_landmarks.py --folder=new --landmarks=no --hog=no --hog_windows=no": "new",
    "-m ferkit.data.drawn_faces --output=new.csv --training=7": "new.csv",
    "predict.py --image=noise.png --model_path=model.bin --output=annotated.png": "annotated.png",
    "predict.py --image=face.png --detector=none --model_path=model.bin --explain=new": "new",
    "predict-from-video.py --source=clip.avi --model_path=model.bin --window=no --output=new.mp4": "new.mp4",
    "predict-from-video.py --source=clip.avi --model_path=model.bin --window=no --report=page.html": "page.html",
    "train.py --evaluate=yes --model_path=model.bin": "metrics.json",
}


@pytest.mark.parametrize("line", FULL)
def test_full_disk(folder, line):
    words, noise = line.split(), np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    place = words.index(next(word for word in words if word.startswith("--")))
    Image.fromarray(noise).save(folder / "noise.png")
    if "clip.avi" in line:
        write_video(folder / "clip.avi", [noise] * 5, rate=5)
    with full_disk(3000 if "train.py" in line else 1000):  # train.py prints more
        check("full disk", " ".join(words[:place]), words[place:], folder, FULL[line])


def test_disk_that_is_full_before_the_arrays_are_filled(folder):
    """Their files have their size at once, but no content: whoever fills them would be ended by a signal."""
    with full_disk(100_000):
        flags = ["--folder=new", "--processes=1", "--landmarks=no", "--hog=no"]
        check("full disk", "convert_fer2013_to_images_and_landmarks.py", flags, folder, "new: no space is left")


# --- places ----------------------------------------------------------------------------------------------------------

PLACES = ("pipe", "circle", "circle/inside", "locked", "locked_folder/inside", "file/inside", "x" * 300)
# A flag of each kind of place, and the other flags with which the command reaches it.
READ = {
    "predict.py --image": ["--model_path=model.bin"],
    "predict.py --model_path": ["--image=face.png"],
    "predict-from-video.py --source": ["--log=faces.csv", "--window=no"],
    "convert_fer2013_to_images_and_landmarks.py --input": ["--folder=new"],
    "convert_fer2013_to_images_and_landmarks.py --ferplus": ["--folder=new"],
    "convert_fer2013_to_images_and_landmarks.py --shape_predictor_path": ["--folder=new"],
    "train.py --folder": ["--evaluate=yes", "--model_path=model.bin"],
    "train.py --model_path": ["--evaluate=yes"],
    "train.py --hyperparams": ["--train=yes"],
    "train.py --teacher": ["--train=yes", "--teacher_share=0.5", "--features=none", "--epochs=1", "--batch_size=4"],
    "optimize_hyperparams.py --folder": ["--features=none"],
    "-m experiments.train_svm --folder": [],
    "-m experiments.train_svm --model_path": ["--train=no"],
    "-m experiments.reproduce_results --results": ["--report"],
}
WRITTEN = {
    "predict.py --output": ["--image=face.png", "--model_path=model.bin"],
    "convert_fer2013_to_images_and_landmarks.py --folder": ["--processes=1", "--landmarks=no", "--hog_windows=no"],
    "train.py --model_path": ["--train=yes", "--features=none", "--epochs=1"],
    "train.py --checkpoint_folder": ["--train=yes", "--features=none", "--epochs=1"],
    "train.py --logs_folder": ["--train=yes", "--features=none", "--epochs=1"],
    "-m ferkit.data.drawn_faces --output": ["--training=7", "--public_test=7", "--private_test=7"],
    "-m ferkit.data.drawn_faces --photo": [],
    "optimize_hyperparams.py --search_folder": ["--features=none", "--max_evals=1", "--batch_size=4"],
}


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_places(folder, place, permissions_count):
    os.mkfifo(folder / "pipe")
    (folder / "circle").symlink_to("circle")
    (folder / "file").write_text("a file")
    (folder / "locked").write_text("secret")
    (folder / "locked").chmod(0)
    (folder / "locked_folder").mkdir(mode=0)
    for kind, flags_by_name in (("places to read", READ), ("places to write", WRITTEN)):
        for name, others in flags_by_name.items():
            command, flag = name.rsplit(" ", 1)
            value = place if "/" in place or command != "predict.py" or flag != "--output" else f"{place}.png"
            if value != place and len(place) < 250 and not os.path.lexists(folder / value):
                (folder / value).symlink_to(place)
            if place == "locked" and kind == "places to write" and flag in ("--output", "--photo", "--search_folder"):
                continue  # its folder may be written, so it can be replaced
            check(kind, command, [*others, f"{flag}={value}"], folder, place.partition("/")[0])
