"""The documentation says what the programs and the results say, and all that it shows works."""

import importlib
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import cv2
import pytest
import skimage
from conftest import ROOT, load_script, write_video

import optimize_hyperparams
from ferkit import Recognizer
from ferkit.learning.evaluation import metrics_text
from ferkit.vision.pictures import read_image
from model import ARCHITECTURES

CARDS = [ROOT / "pretrained" / place / "README.md" for place in (".", "mixed", "ferplus", "fer2013_large")]
FILES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *CARDS]
PAGES = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in FILES}
TABLES = load_script("docs/tables.py")
DOCUMENTED = [(page, script) for page, scripts in TABLES.PAGES.items() for script in scripts]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SPLITS = ("PublicTest", "PrivateTest")


@pytest.fixture
def architectures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of model.py alone: without the slim one, which only the tests have."""
    monkeypatch.delitem(ARCHITECTURES, "slim", raising=False)


def fenced(page: str, language: str = "") -> list[str]:
    """The fenced blocks of a page that are of this language."""
    return [text for kind, text in FENCE.findall(PAGES[page]) if kind == language]


# --- the tables of flags ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("page", "script"), DOCUMENTED)
def test_table_of_flags_is_that_of_the_parser(page, script, architectures):
    begin, end = (f"<!-- {TABLES.part_of(script)}: {edge} -->" for edge in ("begin", "end"))
    assert PAGES[f"docs/{page}"].count(begin) == PAGES[f"docs/{page}"].count(end) == 1
    shown = PAGES[f"docs/{page}"].split(begin)[1].split(end)[0].splitlines()
    made = TABLES.flags_table(TABLES.parser_of(script)).splitlines()
    differing = [f"page:   {line}" for line in shown if line not in made]
    differing += [f"parser: {line}" for line in made if line not in shown]
    assert not differing, "run 'python docs/tables.py':\n" + "\n".join(differing)
    assert TABLES.filled_page(page, PAGES[f"docs/{page}"]) == PAGES[f"docs/{page}"], "run 'python docs/tables.py'"


@pytest.mark.parametrize(("page", "script"), DOCUMENTED)
def test_every_flag_is_documented(page, script):
    for action in TABLES.parser_of(script)._actions:
        for option in action.option_strings:
            assert f"`{option}`" in PAGES[f"docs/{page}"] or action.dest == "help", option


def test_every_command_has_a_table():
    scripts = {path.name for path in ROOT.glob("*.py")} - {"parameters.py", "model.py", "data_loader.py"}
    assert scripts <= {script for _, script in DOCUMENTED}


def test_tables_are_filled_and_checked(tmp_path, monkeypatch, capsys, architectures):
    monkeypatch.setattr(TABLES, "ROOT", tmp_path)
    monkeypatch.setattr(TABLES, "PAGES", {"predict.md": ("-m experiments.train_svm",)})
    monkeypatch.setattr(TABLES, "MEASURED", {})
    (tmp_path / "docs").mkdir()
    path = tmp_path / "docs" / "predict.md"
    part = "flags of experiments.train_svm"
    path.write_text(f"before\n<!-- {part}: begin -->\nOUTDATED\n<!-- {part}: end -->\nafter\n")
    old = path.read_text()
    assert TABLES.main(["--check"]) == 1 and path.read_text() == old
    assert "docs/predict.md differs" in capsys.readouterr().err
    assert TABLES.main([]) == 0 and TABLES.main(["--check"]) == 0
    text = path.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "OUTDATED" not in text
    assert "| `--model_path`, `--save_model_path` | best_svm/svm.npz | the saved machine |  |" in text
    path.write_text("no markers")
    assert TABLES.main([]) == 2 and "docs/predict.md needs the lines" in capsys.readouterr().err


# --- links, size, opening --------------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
        count = found.get(anchor, 0)
        found[anchor] = count + 1
        if count:
            found[f"{anchor}-{count}"] = 1
    return set(found)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", PAGES[page]))
    for link in links:
        if re.match(r"https?://", link):
            continue
        place, _, anchor = link.partition("#")
        target = (ROOT / page).parent / unquote(place) if place else ROOT / page
        assert target.exists(), link
        assert target.resolve().is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


def test_readme_is_short_and_leads_to_every_page():
    assert (ROOT / "README.md").stat().st_size <= 8192
    for page in PAGES:
        assert page == "README.md" or f"]({page})" in PAGES["README.md"], page


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/")])
def test_page_opens_with_a_command(page):
    opening = PAGES[page].split("\n## ")[0]
    assert re.match(r"# [^\n]+\n\n[A-Z`]", opening), "a title, then what the page is for"
    blocks = FENCE.findall(opening)
    assert blocks and re.match(r"(python|make|pip) ", blocks[0][1]), "a command"


# --- what is measured ------------------------------------------------------------------------------------------------


def percentages(text: str) -> list[str]:
    return re.findall(r"\d+\.\d%", text)


def test_accuracies_are_those_of_the_results_files():
    files = sorted((ROOT / "results").glob("*.json"))
    assert files
    lines = [line for text in PAGES.values() for line in text.splitlines()]
    for file in files:
        metrics = json.loads(file.read_text())
        accuracies = [f"{metrics['splits'][split]['accuracy']:.1%}" for split in SPLITS]
        (row,) = [line for line in lines if f"results/{file.name}" in line]
        assert percentages(row) == accuracies, file.name


@pytest.mark.parametrize(
    "folder, page",
    [
        ("pretrained/ferplus", "pretrained/ferplus/README.md"),
        ("pretrained/mixed", "pretrained/mixed/README.md"),
        ("pretrained", "docs/experiment.md"),
        ("pretrained", "pretrained/README.md"),
    ],
)
def test_accuracies_of_the_included_models_are_those_of_their_metrics(folder, page):
    for name, label in (("metrics", "as it is"), ("metrics_augmented", "with test-time augmentation")):
        splits = json.loads((ROOT / folder / f"{name}.json").read_text())["splits"]
        expected = [f"{splits[split]['accuracy']:.1%}" for split in SPLITS]
        expected.append(f"{splits['PrivateTest']['deduplicated']['accuracy']:.1%}")
        rows = [line for line in PAGES[page].splitlines() if line.startswith(f"| {label} |") and "results/" not in line]
        assert rows
        for row in rows:
            assert percentages(row) == expected[: len(percentages(row))] and len(percentages(row)) >= 2
            measures = [splits["PrivateTest"].get(measure) for measure in ("calibration_error", "kl_divergence")]
            assert re.findall(r"0\.\d{3}", row) in ([], [f"{value:.3f}" for value in measures if value is not None])


def test_evaluation_that_is_shown_is_that_of_the_shipped_model():
    metrics = json.loads((ROOT / "pretrained" / "metrics.json").read_text())
    (shown,) = [block for block in fenced("docs/train.md") if block.startswith("Validation accuracy: 69")]
    for line in metrics_text(metrics).splitlines():
        assert line in shown.splitlines() or line.startswith("Evaluated ")
    for split in SPLITS:
        counts = [str(count) for count in metrics["splits"][split]["support"]]
        (row,) = [line for line in PAGES["docs/train.md"].splitlines() if line.startswith(f"| {split}: ")]
        assert re.findall(r"\d+", row) == [*counts, str(metrics["splits"][split]["count"])]


def test_answer_in_the_readme_is_in_the_tables():
    answer = PAGES["README.md"].split("## Do landmarks and HOG help?")[1].split("\n## ")[0]
    tables = PAGES["docs/experiment.md"].split("<!-- results: begin -->")[1].split("<!-- results: end -->")[0]
    assert percentages(answer)
    for accuracy in percentages(answer):
        assert f"**{accuracy}**" in tables or f"| {accuracy} |" in tables, accuracy
    intervals = re.findall(r"(\d\.\d)(?: points)?\s+\((-?\+?\d\.\d to [-+]\d+\.\d)\)", answer)
    assert len(intervals) >= 4
    for points, interval in intervals:
        assert f"| +{points} | {interval} |" in tables, interval


# --- what is shown works ---------------------------------------------------------------------------------------------


def commands(page: str) -> Iterator[str]:
    """The commands of a page: in fenced blocks and, where they begin with `python`, inside the text."""
    text = PAGES[page]
    for block in fenced(page):
        yield from re.sub(r"\\\n\s*", "", block).splitlines()
    for inline in re.findall(r"`([^`]+)`", FENCE.sub("", text)):
        command = " ".join(inline.split())
        if command.startswith(("python ", "make ")) and "…" not in command and "FILE" not in command:
            yield command


@pytest.mark.parametrize("page", PAGES)
def test_documented_commands_have_flags_that_exist(page):
    for command in commands(page):
        command = re.sub(r"^([A-Z0-9_]+=\S+ )+", "", command)  # without the environment
        if not command.startswith(("make ", "pip ", "python ")):
            continue
        first, *words = shlex.split(command, comments=True)
        if first == "make":
            targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert all(word in targets or "=" in word for word in words), command
        elif first == "python":
            assert_flags_exist(words, command)
        for word in words:  # files of the repository that a command names
            place = word.rpartition("=")[2]
            if re.match(r"(docs|pretrained|results|benchmarks|tests)/|requirements", place):
                assert (ROOT / place).exists(), command


def assert_flags_exist(words: list[str], command: str) -> None:
    """That the parser of a `python` command takes its flags."""
    script = " ".join(words[:2]) if words[0] == "-m" else words[0]
    flags = words[2:] if words[0] == "-m" else words[1:]
    if script in ("-m pytest", "-m venv"):
        return
    module = importlib.import_module(script.removeprefix("-m ")) if script.startswith("-m ") else None
    if script.startswith("benchmarks/") or (module is not None and not hasattr(module, "parser")):
        source = (ROOT / (script if module is None else module.__file__)).read_text(encoding="utf-8")
        known = {"model_path"} if "add_model_flags(" in source else set()  # for want of a parser to ask
        for flag in (word for word in flags if word.startswith("-")):
            name = flag.partition("=")[0].lstrip("-")
            assert name in known or re.search(f'"(--)?{name}"', source), command
        return
    parser = TABLES.parser_of(script)
    try:
        parser.parse_args(flags)
    except SystemExit:
        pytest.fail(f"not a command that works: {command}")


@pytest.mark.parametrize(
    "text", ["\n".join(commands("docs/search.md")), optimize_hyperparams.__doc__], ids=["page", "docstring"]
)
def test_searches_shown_work_one_after_another(text):
    """Those across machines have one name, which is not that of the one before them."""
    shown = re.findall(r"^ *python optimize_hyperparams\.py .*", text, flags=re.MULTILINE)
    searches = [command for command in shown if "--report" not in command]
    names = [(re.search(r"--name=\S+", command) or ["--name=default"])[0] for command in searches]
    across = {name for name, command in zip(names, searches, strict=True) if "--mongo=" in command}
    here = {name for name, command in zip(names, searches, strict=True) if "--mongo=" not in command}
    assert len(searches) == 3 and len(across) == len(here) == 1 and across != here


EXAMPLES = [(page, number) for page in ("README.md", "docs/python.md") for number in range(len(fenced(page, "python")))]


@pytest.fixture(scope="module")
def example_files(tmp_path_factory: pytest.TempPathFactory, drawn_dataset: Path) -> Path:
    """A folder with what the examples in Python read."""
    folder = tmp_path_factory.mktemp("examples")
    portrait = cv2.imread(str(Path(skimage.__file__).parent / "data" / "astronaut.png"))
    cv2.imwrite(str(folder / "photo.jpg"), portrait)
    write_video(folder / "party.mp4", [portrait] * 5, 25)
    (folder / "fer2013_features").symlink_to(drawn_dataset)
    return folder


@pytest.mark.parametrize(("page", "number"), EXAMPLES)
def test_examples_in_python_run(page, number, example_files, monkeypatch, capsys):
    code = fenced(page, "python")[number]
    monkeypatch.chdir(example_files)
    exec(compile(code, page, "exec"), {"__name__": "__main__"})
    output = capsys.readouterr().out
    assert output or "write_image" in code
    if "face.expression" in code and output:
        assert "Happy" in output


def test_prediction_that_is_shown_is_that_of_the_portrait():
    (face,) = Recognizer("mixed").recognize(read_image(ROOT / "docs" / "portrait.jpg"))
    for page in ("README.md", "docs/predict.md"):
        ((expression, confidence),) = re.findall(r"Prediction: (\w+) \(confidence: (\d+\.\d)%\)", PAGES[page])
        assert expression == face.expression and float(confidence) == pytest.approx(100 * face.confidence, abs=0.5)


def test_documented_console_commands_exist():
    declared = set(re.findall(r"^(ferkit-[a-z]+) *=", (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
    assert set(re.findall(r"`(ferkit-[a-z]+)`", PAGES["docs/python.md"])) == declared


def test_readme_has_the_accuracies_of_every_included_model():
    labels = {"ferplus": "labels of FER+", "mixed": "labels of FER+"}
    own = "FER2013's own labels"
    folders = {"fer2013": ROOT / "pretrained"}
    for name in ("ferplus", "mixed", "fer2013", "fer2013_large"):
        start = f"| `{name}`, {labels.get(name, own)} |"
        (row,) = [line for line in PAGES["README.md"].splitlines() if line.startswith(start)]
        files = [folders.get(name, ROOT / "pretrained" / name) / f"metrics{how}.json" for how in ("", "_augmented")]
        splits = [json.loads(file.read_text())["splits"]["PrivateTest"] for file in files]
        assert percentages(row) == [f"{split['accuracy']:.1%}" for split in splits]


def test_figures_of_photographs_are_those_of_the_results_files():
    table = TABLES.last_table((ROOT / "results" / "photographs.txt").read_text())
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| mean of the sets")]
    after = {row[1]: percentages(" | ".join(row)) for row in rows}  # found, accuracy, macro recall, calibration error
    text = (ROOT / "results" / "photographs_before.txt").read_text()
    before = re.findall(r"mean of the sets \| (\w+) \| .* (\S+%) \| \S+% \|", text)
    card, readme = " ".join(PAGES["pretrained/ferplus/README.md"].split()), PAGES["README.md"]
    for model, macro_recall in before:
        assert f"{macro_recall} with `{model}`" in card
    (row,) = [line for line in readme.splitlines() if line.startswith("| On photographs |")]
    assert percentages(row) == [after["mixed"][2], dict(before)["fer2013"]]
    mixed = " ".join(PAGES["pretrained/mixed/README.md"].split())
    said = [after[name][2] for name in ("mixed", "ferplus", "fer2013")]
    assert "a mean macro recall of {}, `ferplus` {} and `fer2013` {}.".format(*said) in mixed
    assert table in PAGES["pretrained/ferplus/README.md"], "run 'python docs/tables.py'"
