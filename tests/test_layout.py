"""The layout of the code: imports go down the floors, importing does nothing, and stays as light as it can be."""

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

SCRIPTS = (
    "convert_fer2013_to_images_and_landmarks",
    "train",
    "predict",
    "predict-from-video",
    "optimize_hyperparams",
    "serve",
    "export_model",
    "prepare_faces",
    "check_labels",
)
FOR_USERS = ("parameters", "model", "data_loader")  # what users edit or load

# From the ground up. A module or sub-package imports from its own floor or from lower ones, never from higher ones.
FLOORS = (
    ("ferkit.constants", "ferkit.errors"),
    ("ferkit.processes", "ferkit.files", "ferkit.provenance", "ferkit.markdown", "ferkit.features", "ferkit.transforms",
     "ferkit.interpreter", "ferkit.flatbuffer", "ferkit.vision"),
    ("ferkit.settings", "ferkit.flags", "ferkit.schemas", "ferkit.startup"),
    ("ferkit.saved_model", "ferkit.ensemble", "ferkit.data"),
    ("ferkit.recognition", "ferkit.learning"),
    ("ferkit.video", "ferkit.search", "ferkit.model_flags", "ferkit.batch", "ferkit.explanation",
     "ferkit.export", "ferkit.preparation", "ferkit.labels"),
    ("ferkit.web",),
    ("ferkit", "ferkit.console", *FOR_USERS),
    ("experiments", *SCRIPTS),
)  # fmt: skip
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}


def modules() -> dict[str, Path]:
    """Every module of the toolkit by its name."""
    paths = [*ROOT.glob("*.py"), *ROOT.glob("ferkit/**/*.py"), *ROOT.glob("experiments/*.py")]
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}
    return {name.removesuffix(".__init__"): path for name, path in names.items()}


MODULES = modules()


def imports(name: str) -> set[str]:
    """The modules of the toolkit that a module imports, inside of functions too; not those for type checkers alone."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else node.module)
    return found & MODULES.keys()


def place(name: str) -> str:
    """The name on the floors of a module or of the sub-package that it belongs to."""
    parts = name.split(".")
    return next(".".join(parts[:end]) for end in range(len(parts), 0, -1) if ".".join(parts[:end]) in FLOOR)


GRAPH = {name: imports(name) for name in MODULES}


def test_every_import_goes_down_or_stays_on_its_floor():
    up = {
        (name, other) for name, others in GRAPH.items() for other in others if FLOOR[place(other)] > FLOOR[place(name)]
    }
    assert not up


def test_no_imports_run_in_a_circle():
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for other in GRAPH[name] - {name}:
                visit(other, (*path, name))
            done.add(name)

    for name in GRAPH:
        visit(name, ())


def test_networks_run_in_one_place_with_one_rule_for_threads():
    importing = {name for name, path in MODULES.items() if "import Interpreter" in path.read_text(encoding="utf-8")}
    assert importing == {"ferkit.interpreter"}


def test_no_script_is_imported():
    assert not {(name, other) for name, others in GRAPH.items() for other in others if other in SCRIPTS}


def test_library_knows_nothing_of_what_stands_above_it():
    above = {*FOR_USERS, *SCRIPTS, "experiments"}
    assert not {
        (name, other)
        for name, others in GRAPH.items()
        for other in others
        if name.startswith("ferkit") and other.partition(".")[0] in above
    }


def test_top_level_keeps_the_commands_and_what_users_edit():
    assert {path.stem for path in ROOT.glob("*.py")} == {*SCRIPTS, *FOR_USERS}


TENSORFLOW, VISION, ENGINE = {"tensorflow", "tflearn"}, {"dlib", "cv2"}, {"hyperopt", "pymongo", "matplotlib"}
HEAVY = (
    TENSORFLOW
    | VISION
    | ENGINE
    | {"numpy", "pandas", "scipy", "sklearn", "skimage", "ai_edge_litert", "flask", "waitress"}
)
# What importing a module must not bring in. Scripts bring in nothing, so that a missing package is one line.
SPARED = {
    **dict.fromkeys((*SCRIPTS, "experiments.train_svm", "experiments.reproduce_results"), HEAVY),
    **dict.fromkeys(("ferkit", "ferkit.processes", "ferkit.startup", "ferkit.flags", "ferkit.settings"), HEAVY),
    **dict.fromkeys(("ferkit.files", "ferkit.model_flags", "parameters", "model", "ferkit.console"), HEAVY),
    "ferkit.vision.detection": TENSORFLOW | VISION | {"ai_edge_litert"},
    "ferkit.features": TENSORFLOW | VISION,
    "ferkit.saved_model": TENSORFLOW | VISION,
    "ferkit.recognition": TENSORFLOW | ENGINE | {"dlib", "skimage", "pandas"},
    "ferkit.web.app": TENSORFLOW | ENGINE | {"dlib", "scipy", "skimage", "pandas"},
    "ferkit.video.live": TENSORFLOW | ENGINE | {"dlib", "skimage", "pandas"},
    "ferkit.data.dataset": TENSORFLOW | VISION,
    "ferkit.learning.evaluation": TENSORFLOW | VISION | ENGINE,
    "ferkit.learning.training": TENSORFLOW | VISION | ENGINE,
    "ferkit.search.local": TENSORFLOW | VISION | ENGINE,
    "ferkit.search.mongo": TENSORFLOW | VISION | {"hyperopt"},
    "experiments.report": TENSORFLOW | VISION | ENGINE,
    "experiments.support_vector_machine": TENSORFLOW | VISION | {"sklearn"},
}


def imported(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, "garbage", "--train=yes", "--no-such-flag"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_importing_does_nothing(tmp_path):
    names = sorted(MODULES)
    if importlib.util.find_spec("torch") is None:  # which is optional
        names.remove("ferkit.learning.pytorch")
    run = imported(f"import importlib; [importlib.import_module(name) for name in {names!r}]", tmp_path)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("spared", dict.fromkeys(map(frozenset, SPARED.values())), ids=lambda spared: str(len(spared)))
def test_importing_brings_in_no_heavy_library_that_it_can_do_without(spared, tmp_path):
    code = (
        "import importlib, sys\n"
        f"for module in {[module for module in SPARED if SPARED[module] == spared]!r}:\n"
        "    importlib.import_module(module)\n"
        f"    loaded = {set(spared)!r} & set(sys.modules); assert not loaded, (module, loaded)"
    )
    run = imported(code, tmp_path)
    assert (run.returncode, run.stderr) == (0, "")


def test_every_spared_module_exists():
    assert set(SPARED) <= set(MODULES), "a renamed module would go unchecked"
