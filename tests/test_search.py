"""The hyperparameter search on one machine: its suggestions, its trials, and what survives a kill."""

import itertools
import json
import math
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT, command_line, run_script

from ferkit.data.dataset import open_dataset
from ferkit.errors import UserError
from ferkit.flags import override
from ferkit.learning.run import Run
from ferkit.search import local
from ferkit.search.folder import HERE, own
from ferkit.search.local import search
from ferkit.search.report import workers_table
from ferkit.search.space import searched_hyperparams, suggest
from ferkit.search.state import check_search, difference, read_state, search_settings
from ferkit.search.trial import Outcome, run_trial
from ferkit.search.trials import Trial, best, is_hopeless
from ferkit.settings import Network
from model import ARCHITECTURES
from optimize_hyperparams import TRIAL_COMMAND, main, parser
from parameters import AUGMENTATION, HYPERPARAMS, OPTIMIZER, OWN_SETTINGS, TRAINING
from train import main as train_main

KILLS = ((0, 2.0), (2, 0.2), (8, 0.2), (12, 1.0))  # after so many trials, and up to so many seconds more
TINY = ["--model=slim", "--features=none", "--epochs=1", "--samples=64", "--batch_size=32"]
SLIM_TRIAL = command_line("optimize_hyperparams.py", "--trial", slim=True)
DATA = "drawn faces"  # a folder whose name a shell would take for two
CHEAP = """
import math, os, sys, time
sys.path[:0] = [{root!r}, {root!r} + "/tests"]
import slim
slim.register()
import optimize_hyperparams
from ferkit.search import local, mongo
from ferkit.search.trial import Outcome

def cheap(job, command, hopeless):
    '''As good as the learning rate is near to 0.01.'''
    open("begun", "a").close()
    time.sleep(float(os.environ.get("SECONDS", "0.02")))
    accuracy = math.exp(-(math.log10(job["parameters"]["learning_rate"] / 0.01) ** 2))
    with open("evaluated", "a") as file:
        print(repr(job["parameters"]["learning_rate"]), os.getpid(), file=file)
    return Outcome("ok", [accuracy], 0.02)

local.run_trial = mongo.run_trial = cheap
sys.exit(optimize_hyperparams.main())
"""


def run_of(dataset: Path, model: str = "slim", **changes: object) -> Run:
    network = Network(model=model, features="none")
    run = Run(
        open_dataset(dataset), ARCHITECTURES[model], network, HYPERPARAMS, replace(TRAINING, epochs=1), AUGMENTATION
    )
    return replace(run, **changes)


def test_engine_of_the_trials_is_chosen_by_a_flag(drawn_dataset, tmp_path, monkeypatch, capsys):
    training = override(TRAINING, parser().parse_args(["--engine=pytorch"]))
    assert search_settings(run_of(drawn_dataset, training=training), OPTIMIZER)["training"]["engine"] == "pytorch"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main([*TINY, "--engine=pytorch", f"--folder={drawn_dataset}"]) == 2
    assert capsys.readouterr().err.startswith("error: engine=pytorch needs PyTorch: pip install torch")
    assert not (tmp_path / "search").exists()


@pytest.fixture
def settings(drawn_dataset) -> dict:
    return search_settings(run_of(drawn_dataset), OPTIMIZER)


def cheap(job: dict, command, hopeless) -> Outcome:
    """A trial without training, as good as its learning rate is near to 0.01."""
    return Outcome("ok", [math.exp(-(math.log10(job["parameters"]["learning_rate"] / 0.01) ** 2))], 0.5)


def wait_until(condition: Callable[[], object], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def made(number: int, *accuracies: float, status: str = "ok") -> Trial:
    return Trial(number, {}, {}, status, list(accuracies), 1.0)


# --- suggestions -----------------------------------------------------------------------------------------------------


def test_suggestions_lie_in_the_space_and_learning_rates_are_even_in_their_logarithm(settings):
    found = [searched_hyperparams(settings, suggest(settings, [], number)) for number in range(1, 61)]
    for name in ("learning_rate", "learning_rate_decay", "optimizer_param", "keep_prob"):
        low, high = getattr(OPTIMIZER, name)
        assert all(low <= values[name] <= high for values in found)
    assert all("optimizer" not in values for values in found), "of one optimizer there is nothing to choose"
    low, high = OPTIMIZER.learning_rate
    below = sum(values["learning_rate"] < (low * high) ** 0.5 for values in found)
    assert 18 <= below <= 42, "half of them, give or take"


def test_each_optimizer_has_a_parameter_of_its_own(drawn_dataset):
    optimizers = ("momentum", "adam", "adagrad")
    settings = search_settings(run_of(drawn_dataset), replace(OPTIMIZER, optimizer=optimizers))
    seen = {}
    for number in range(1, 31):
        values = suggest(settings, [], number)
        found = searched_hyperparams(settings, values)
        seen[found["optimizer"]] = {label for label in values if label.endswith("_param")}
        assert ("optimizer_param" in found) == (found["optimizer"] != "adagrad")
    assert seen == {"momentum": {"momentum_param"}, "adam": {"adam_param"}, "adagrad": set()}


def test_what_has_no_effect_is_not_sought(drawn_dataset):
    run = run_of(drawn_dataset, hyperparams=replace(HYPERPARAMS, schedule="cosine"))
    settings = search_settings(run, OPTIMIZER)
    assert "learning_rate_decay" not in searched_hyperparams(settings, suggest(settings, [], 1))


def test_one_seed_gives_one_search_also_when_it_is_resumed(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "run_trial", cheap)
    whole = search(settings, 12, "", tmp_path / "whole", ())
    for count in (1, 9, 12):  # within the random trials, and after them
        resumed = search(settings, count, "", tmp_path / "resumed", ())
    assert [trial.parameters for trial in resumed] == [trial.parameters for trial in whole]
    other = search({**settings, "training": {**settings["training"], "seed": 1}}, 1, "", tmp_path / "other", ())
    assert other[0].parameters != whole[0].parameters


def test_it_learns_from_its_trials_also_from_failed_ones(settings, tmp_path, monkeypatch):
    def picky(job, command, hopeless):  # half of the space fails
        learns = job["parameters"]["learning_rate"] > 1e-3
        return cheap(job, command, hopeless) if learns else Outcome("failed", [], 0.1, "diverged: no")

    monkeypatch.setattr(local, "run_trial", picky)

    def mean(name: str, **changes: object) -> float:
        trials = search({**settings, **changes}, 50, "", tmp_path / name, ())[8:]
        return sum(trial.accuracy or 0 for trial in trials) / len(trials)

    assert mean("learned") > 1.4 * mean("random", random_trials=50)


@pytest.mark.parametrize(
    ("changes", "fragment"),
    [
        ({"learning_rate": (0.1, 1e-5)}, "OPTIMIZER.learning_rate is (0.1, 1e-05): it must be (lowest, highest)"),
        ({"keep_prob": (0.0, 0.9)}, "OPTIMIZER.keep_prob is 0.0"),
        ({"optimizer": "adam"}, "it must be a tuple, like ('first', 'second')"),
        ({"optimizer": ("adam", "sgd")}, "it must be a tuple of momentum"),
        ({"optimizer": ("adam", "adam")}, "each once"),
        ({"keep_prob": ("0.7", "0.9")}, "keep_prob is ('0.7', '0.9'): it must be a tuple, like (0.5, 1.0)"),
        ({"max_evals": 0}, "max_evals is 0"),
        ({"heartbeat": 1e6}, "heartbeat is 1000000.0: it must be from 1 to 86400"),
        ({"samples": -1}, "samples is -1"),
    ],
)
def test_impossible_space_is_refused(drawn_dataset, changes, fragment):
    with pytest.raises(UserError) as error:
        check_search(run_of(drawn_dataset), replace(OPTIMIZER, **changes))
    assert fragment in str(error.value)


def test_longer_warmup_than_a_trial_is_refused_at_once(drawn_dataset):
    run = run_of(drawn_dataset, hyperparams=replace(HYPERPARAMS, warmup_steps=3))
    check_search(run, OPTIMIZER)
    with pytest.raises(UserError, match="warmup_steps is 3, but the training has only 2 steps"):
        check_search(run, replace(OPTIMIZER, samples=256))


def test_difference_between_one_optimizer_and_several_is_said_of_the_space(drawn_dataset):
    one = search_settings(run_of(drawn_dataset), OPTIMIZER)
    two = search_settings(run_of(drawn_dataset), replace(OPTIMIZER, optimizer=("momentum", "adam")))
    assert difference(one, two) == "OPTIMIZER.optimizer=['momentum'], not ['momentum', 'adam']"
    falling = run_of(drawn_dataset, hyperparams=replace(HYPERPARAMS, schedule="cosine"))
    assert difference(one, search_settings(falling, OPTIMIZER)) == "schedule=exponential, not cosine"


def test_median_rule():
    others = [[0.1 * number, 0.2 * number] for number in range(1, 5)]
    assert not is_hopeless("median", [0.0], others), "too few to compare with"
    others.append([0.5, 0.9])
    assert is_hopeless("median", [0.29], others) and not is_hopeless("median", [0.31], others)
    assert not is_hopeless("median", [0.7, 0.1], others), "the best epoch so far counts"
    assert not is_hopeless("median", [0.1, 0.1, 0.1], others), "none came as far"
    assert not is_hopeless("no", [0.0], others)


def test_successive_halving_as_worked_out_by_hand(settings, tmp_path, monkeypatch):
    """A search of nine epochs, which compares after 1 and 3; in brackets, how many of those that came as far go on."""
    histories = (
        (0.30, [0.40, 0.50, 0.60, 0.60, 0.60, 0.60, 0.60, 0.60], 9),  # the first has nobody to compare with
        (0.20, [], 1),  # second of two (1)
        (0.25, [], 1),  # second of three (1)
        (0.35, [0.30, 0.36], 3),  # best of four (1); after three epochs second of two (1): 36% is below 50%
        (0.31, [], 1),  # second of five (1)
        (0.33, [0.55, 0.40, 0.70, 0.70, 0.70, 0.70, 0.70, 0.70], 9),  # second of six (2); best of three, by its epoch 2
        (0.10, [], 1),  # last of seven (2)
        (0.32, [], 1),  # third of eight (2)
        (0.32, [0.32, 0.52], 3),  # third of nine (3), as equals do not count; then second of four (1)
    )
    reached = iter(histories)

    def told(job, command, hopeless):
        first, others, _ = next(reached)
        accuracies = []
        for accuracy in (first, *others):
            accuracies.append(accuracy)
            if len(accuracies) < 9 and hopeless(accuracies):
                return Outcome("stopped", accuracies, 1.0)
        assert len(accuracies) == 9, "it had to be stopped"
        return Outcome("ok", accuracies, 1.0)

    monkeypatch.setattr(local, "run_trial", told)
    trials = search({**settings, "stop_early": "halving"}, len(histories), "", tmp_path / "x", ())
    assert [len(trial.accuracies) for trial in trials] == [epochs for _, _, epochs in histories]
    assert [trial.status for trial in trials].count("ok") == 2


@pytest.mark.parametrize(
    ("flag", "rule"),
    [
        ("--stop_early", "median"),
        ("--stop_early=yes", "median"),
        ("--stop_early=No", "no"),
        ("--stop_early=halving", "halving"),
    ],
)
def test_flag_for_stopping_early_takes_its_old_form_too(flag, rule):
    assert parser().parse_args([flag, "--seed=1"]).stop_early == rule


def test_search_that_was_begun_with_the_old_form_goes_on(settings, tmp_path):
    state = {"format": 1, "settings": {**settings, "stop_early": True}, "trials": []}
    (tmp_path / "state.json").write_text(json.dumps(state))
    assert read_state(tmp_path / "state.json")[0]["stop_early"] == "median"


def test_table_of_who_trained_what():
    def by(worker: str, number: int, *accuracies: float, status: str = "ok") -> Trial:
        return replace(made(number, *accuracies, status=status), worker=worker, seconds=90.0)

    trials = [by("b:7", 1, 0.2), by("a:1", 2, 0.5), by("b:7", 3, 0.4), by("b:7", 4, 0.3), by("a:1", 5, status="failed")]
    lines = [line.split() for line in workers_table(trials).splitlines()]
    assert lines[0] == ["worker", "trials", "failed", "minutes", "best", "which"]
    assert lines[1:] == [["a:1", "2", "1", "3.0", "50.0%", "2,", "5"], ["b:7", "3", "0", "4.5", "40.0%", "1,", "3-4"]]
    assert workers_table([made(1, 0.2)]) == "", "on one machine there is nobody to tell apart"


def test_best_is_the_first_of_the_highest_and_never_a_failed_one():
    assert best([made(1, 0.2), made(2, 0.1, 0.5), made(3, 0.5), made(4, 0.9, status="failed")]).number == 2
    assert best([made(1, status="failed")]) is None


# --- a trial's process -----------------------------------------------------------------------------------------------


def job_of(settings: dict, dataset: Path | str, **changes: object) -> dict:
    chosen = {**searched_hyperparams(settings, suggest(settings, [], 1)), **changes}
    return {"settings": settings, "parameters": chosen, "folder": str(dataset)}


def test_trial_that_fails_says_why(drawn_dataset):
    settings = search_settings(run_of(drawn_dataset), replace(OPTIMIZER, samples=256))
    wild = job_of(settings, drawn_dataset, learning_rate=1e300)  # infinite in fp32: no step leaves a number
    outcome = run_trial(wild, SLIM_TRIAL, lambda accuracies: False)
    assert outcome.status == "failed" and outcome.reason.startswith("diverged: ")
    outcome = run_trial(job_of(settings, "elsewhere"), TRIAL_COMMAND, lambda accuracies: False)
    assert outcome.status == "failed" and "no converted dataset in elsewhere" in outcome.reason
    outcome = run_trial(job_of(settings, drawn_dataset, batch_size=1), TRIAL_COMMAND, lambda accuracies: False)
    assert outcome.status == "failed" and outcome.reason.startswith("TypeError: ")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL (out of memory?)"),
        ("import os; os.abort()", "killed by SIGABRT"),
        ("import sys; sys.exit(3)", "ended with exit status 3"),
        ("pass", "ended with exit status 0"),
    ],
)
def test_trial_whose_process_dies_has_failed(script, reason, settings):
    outcome = run_trial(job_of(settings, ""), [sys.executable, "-c", script], lambda accuracies: False)
    assert outcome.status == "failed" and reason in outcome.reason


def test_trial_on_other_faces_than_the_searchs_has_failed(settings, drawn_dataset, tmp_path):
    shutil.copytree(drawn_dataset, tmp_path / "faces")
    path = tmp_path / "faces" / "manifest.json"
    path.write_text(path.read_text().replace(open_dataset(drawn_dataset).manifest["splits"]["Training"]["sha256"], "0"))
    outcome = run_trial(job_of(settings, str(tmp_path / "faces")), SLIM_TRIAL, lambda accuracies: False)
    assert outcome.status == "failed" and "is another dataset than that of the search" in outcome.reason


@pytest.mark.parametrize("told", [False, True])
def test_trial_whose_search_is_gone_ends_quietly(settings, told, tmp_path):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(TRIAL_COMMAND, **pipes)
    process.stdout.close()
    place = tmp_path / "place"
    place.mkdir()
    job = {**job_of(settings, "elsewhere"), "place": str(place)}
    if told:
        process.stdin.write(f"{json.dumps(job)}\n".encode())
        process.stdin.flush()
        assert process.wait(300) == 1
        wait_until(lambda: not place.exists())
    process.stdin.close()
    assert process.wait(300) == 1 and process.stderr.read() == b""
    process.stderr.close()


def test_hopeless_trial_is_stopped_and_keeps_its_accuracies(settings, tmp_path):
    end = tmp_path / "end"
    script = (
        "import pathlib, time\n"
        "for accuracy in (0.1, 0.2, 0.3):\n    print(f'{{\"accuracy\": {accuracy}}}', flush=True)\n"
        f"time.sleep(60)\npathlib.Path({str(end)!r}).touch()"
    )
    long = {**settings, "training": {**settings["training"], "epochs": 9}}
    outcome = run_trial(job_of(long, ""), [sys.executable, "-c", script], lambda accuracies: accuracies == [0.1, 0.2])
    assert (outcome.status, outcome.accuracies) == ("stopped", [0.1, 0.2])
    assert not end.exists(), "nobody waited for its end"


def test_trial_trains_a_published_model(drawn_dataset):
    run = run_of(drawn_dataset, "A", hyperparams=replace(HYPERPARAMS, batch_size=32))
    settings = search_settings(run, replace(OPTIMIZER, samples=32))
    asked = []
    outcome = run_trial(job_of(settings, drawn_dataset), TRIAL_COMMAND, asked.append)
    assert (outcome.status, len(outcome.accuracies), outcome.reason) == ("ok", 1, "")
    assert asked == [], "after the last epoch there is nothing to stop"


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def searched(drawn_dataset, tmp_path_factory) -> tuple[subprocess.CompletedProcess, Path]:
    """A search of two real trials on a dataset without its test set, and where it ran."""
    place = tmp_path_factory.mktemp("searched")
    shutil.copytree(drawn_dataset, place / DATA)
    shutil.rmtree(place / DATA / "PrivateTest")
    flags = ["--max_evals=2", "--name=tiny", f"--folder={DATA}", "--weight_decay=0.001"]
    return run_script("optimize_hyperparams.py", *TINY, *flags, cwd=place, slim=True), place


def test_search_of_real_trainings(searched):
    run, place = searched
    assert run.returncode == 0 and "Traceback" not in run.stderr, run.stderr
    lines = run.stdout.splitlines()
    for number in (1, 2):
        started, ended = [line for line in lines if line.startswith(f"Trial {number}/2: ")]
        assert "learning_rate=" in started and "validation accuracy" in ended and "(best " in ended
    folder = place / "search" / "tiny"
    _, trials = read_state(folder / "state.json")
    table = pd.read_csv(folder / "trials.csv")
    assert table["accuracy"].tolist() == [trial.accuracy for trial in trials]
    assert table["learning_rate"].tolist() == [trial.parameters["learning_rate"] for trial in trials]
    assert all((folder / name).stat().st_size > 5000 for name in ("progress.png", "space.png"))
    assert sorted(path.name for path in place.iterdir()) == [DATA, "search"], "no checkpoints, logs or model"


def test_best_hyperparameters_are_what_train_takes(searched, tmp_path, monkeypatch, capsys):
    run, place = searched
    (command,) = [line for line in run.stdout.splitlines() if line.startswith("Train with it: ")]
    monkeypatch.chdir(tmp_path)
    for name in ("search", DATA):
        (tmp_path / name).symlink_to(place / name)
    arguments = shlex.split(command.removeprefix("Train with it: python train.py "))
    assert {"--model=slim", "--features=none", f"--folder={DATA}"} <= set(arguments)
    assert train_main([*arguments, "--epochs=1", "--save_model=no", "--keep_prob=0.77"]) == 0, capsys.readouterr().err
    trained = json.loads((tmp_path / "checkpoints" / "state.json").read_text())["settings"]
    _, trials = read_state(place / "search" / "tiny" / "state.json")
    expected = {**best(trials).parameters, "weight_decay": 0.001, "batch_size": 32, "keep_prob": 0.77}
    assert {name: trained[name] for name in expected} == expected, "the file's, and flags before it"


def test_finished_search_shows_its_result_again(searched, drawn_dataset, monkeypatch, capsys):
    _, place = searched
    monkeypatch.chdir(place)
    (place / "search" / "tiny" / "trials.csv").unlink()
    assert main(["--name=tiny", "--report"]) == 0
    assert "Best: trial " in capsys.readouterr().out and (place / "search" / "tiny" / "trials.csv").exists()
    assert main(["--name=tiny", *TINY, "--weight_decay=0.001", "--max_evals=2", f"--folder={drawn_dataset}"]) == 0
    output = capsys.readouterr().out
    assert "Best: trial " in output and "Trial 1/2" not in output


def test_search_of_an_earlier_version_goes_on(searched, drawn_dataset, tmp_path, monkeypatch, capsys):
    _, place = searched
    monkeypatch.chdir(tmp_path)
    shutil.copytree(place / "search", tmp_path / "search")
    path = Path("search/tiny/state.json")
    state = json.loads(path.read_text())
    settings = state["settings"]
    settings["recipes"] = settings.pop("feature_provenance")
    settings["hyperparams"]["weight_averaging"] = settings["hyperparams"].pop("ema_decay")
    path.write_text(json.dumps(state))
    monkeypatch.setattr(local, "run_trial", cheap)
    command = ["--name=tiny", *TINY, "--weight_decay=0.001", f"--folder={drawn_dataset}"]
    assert main([*command, "--max_evals=3"]) == 0
    output = capsys.readouterr().out
    assert "Going on after trial 2\n" in output and "Trial 3/3: " in output
    assert read_state(path)[0] == read_state(place / path)[0]


def test_another_search_under_the_same_name_is_refused(searched, drawn_dataset, monkeypatch, capsys):
    _, place = searched
    monkeypatch.chdir(place)
    state = (place / "search" / "tiny" / "state.json").read_bytes()
    same = ["--name=tiny", *TINY, "--weight_decay=0.001", f"--folder={drawn_dataset}"]
    for flag, said in (
        ("--weight_decay=0", "has weight_decay=0.001, not 0.0: use that, or search under another --name"),
        ("--seed=7", "has seed=0, not 7"),
        ("--samples=65", "has samples=64, not 65"),
        ("--stop_early=yes", "has stop_early=no, not median"),
    ):
        assert main([*same, flag]) == 2
        assert said in capsys.readouterr().err
    monkeypatch.setattr("parameters.OPTIMIZER", replace(OPTIMIZER, keep_prob=(0.5, 0.9)))
    assert main(same) == 2
    assert "OPTIMIZER.keep_prob=[0.7, 0.99], not [0.5, 0.9]" in capsys.readouterr().err
    assert (place / "search" / "tiny" / "state.json").read_bytes() == state


def damaged_states(state: dict) -> list[str]:
    first, *others = state["trials"]
    changed = [{**first, **change} for change in ({"accuracies": [7]}, {"status": "?"}, {"number": 2}, {"more": 1})]
    moved = {**first, "parameters": {**first["parameters"], "learning_rate": 0.5}}
    texts = [json.dumps({**state, "trials": [trial, *others]}) for trial in (*changed, moved, None)]
    for change in ({"samples": None}, {"space": {}}, {"network": {"model": "D"}}, {"stop_early": ...}):
        changed = {name: value for name, value in {**state["settings"], **change}.items() if value is not ...}
        texts.append(json.dumps({**state, "settings": changed, "trials": []}))
    texts += [json.dumps({**state, **change}) for change in ({"settings": {}}, {"settings": 1}, {"format": 2})]
    return ["", "{", "[]", "{}", json.dumps(state)[:-20], "\udcff" * 999, *texts]


def test_damaged_state_is_refused_and_kept(searched, drawn_dataset, tmp_path, monkeypatch, capsys):
    _, place = searched
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "search" / "tiny" / "state.json"
    path.parent.mkdir(parents=True)
    for text in damaged_states(json.loads((place / "search" / "tiny" / "state.json").read_text())):
        path.write_bytes(text.encode(errors="surrogateescape"))
        for flags in ([*TINY, f"--folder={drawn_dataset}"], ["--report"]):
            assert main(["--name=tiny", *flags]) == 2
            errors = capsys.readouterr().err.splitlines()
            assert len(errors) == 1 and "is damaged" in errors[0] and "left as it is" in errors[0], text
            assert len(errors[0]) < 400, "the file is not shown"
        assert path.read_bytes() == text.encode(errors="surrogateescape")


def test_two_searches_in_one_folder_are_refused(drawn_dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with own(Path("search/default"), HERE):
        assert main([*TINY, f"--folder={drawn_dataset}"]) == 2
    assert "another search is at work in search/default" in capsys.readouterr().err


def test_report_leaves_the_files_of_a_search_at_work_alone(searched, monkeypatch, capsys):
    _, place = searched
    monkeypatch.chdir(place)
    folder = Path("search/tiny")
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    with own(folder, HERE):
        assert main(["--name=tiny", "--report"]) == 0
    output = capsys.readouterr().out
    assert "Best: trial " in output and "A search is at work in search/tiny: its files are left to it" in output
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_folder_of_a_search_in_a_database_is_refused(drawn_dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    note = Path("search/default/origin.txt")
    note.parent.mkdir(parents=True)
    note.write_text("search default in database faces on host:27017\n")
    for flags in ([*TINY, f"--folder={drawn_dataset}"], ["--report"]):
        assert main(flags) == 2
        error = "is of search default in database faces on host:27017, not of a search on this machine: use another"
        assert error in capsys.readouterr().err
    monkeypatch.setattr(local, "run_trial", cheap)
    assert main([*TINY, f"--folder={drawn_dataset}", "--max_evals=1", "--search_folder=other"]) == 0
    assert "\n1 trial\nBest: " in capsys.readouterr().out


def test_search_of_which_every_trial_fails_exits_with_1(drawn_dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(local, "run_trial", lambda job, command, hopeless: Outcome("failed", [], 1, "bad luck"))
    assert main([*TINY, f"--folder={drawn_dataset}", "--max_evals=3"]) == 1
    output = capsys.readouterr().out
    assert "Trial 3/3: failed: bad luck" in output and "3 trials, 3 failed\nNo trial succeeded" in output
    assert pd.read_csv("search/default/trials.csv")["reason"].tolist() == ["bad luck"] * 3


def test_search_stops_where_trial_after_trial_fails_for_one_reason_but_not_for_divergence(
    drawn_dataset, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    reasons = itertools.chain(["diverged: nan"] * 5, ["full"] * 3, ["other"], ["full"] * 4)
    fail = lambda job, command, hopeless: Outcome("failed", [], 1, next(reasons))  # noqa: E731
    monkeypatch.setattr(local, "run_trial", fail)
    command = [*TINY, f"--folder={drawn_dataset}", "--max_evals=15"]
    assert main(command) == 2
    assert "4 trials in a row failed (full): mend that" in capsys.readouterr().err
    assert len(read_state(Path("search/default/state.json"))[1]) == 13
    monkeypatch.setattr(local, "run_trial", lambda job, command, hopeless: Outcome("ok", [0.5], 1))
    assert main(command) == 0  # the same command goes on


def test_equal_reasons_are_equal_wherever_the_trials_were(drawn_dataset):
    settings = search_settings(run_of(drawn_dataset), OPTIMIZER)
    code = (
        f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\n"
        "import slim; slim.register()\n"
        "from ferkit.search import trial\nfrom model import ARCHITECTURES\n"
        "def train(run, after_epoch): raise OSError(f'no space for {run.training.checkpoint_folder}')\n"
        "trial.train = train; trial.train_trial(ARCHITECTURES)"
    )
    job = {"settings": settings, "parameters": {"learning_rate": 0.01}, "folder": str(drawn_dataset)}
    outcomes = [run_trial(job, [sys.executable, "-c", code], lambda accuracies: False) for _ in range(2)]
    assert outcomes[0].reason == outcomes[1].reason and "OSError: no space for " in outcomes[0].reason


def test_search_around_a_models_own_settings(drawn_dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(local, "run_trial", cheap)
    own = ["--model=A", "--features=none", "--settings=ours", "--erasing=1", "--warmup_steps=20"]  # of so few faces
    assert main([*own, f"--folder={drawn_dataset}", "--max_evals=1"]) == 0
    settings, _ = read_state(Path("search/default/state.json"))
    assert settings["hyperparams"]["schedule"] == OWN_SETTINGS["A"]["schedule"]
    assert settings["augmentation"]["flip"] is OWN_SETTINGS["A"]["flip"]
    assert settings["hyperparams"]["optimizer"] == OWN_SETTINGS["A"]["optimizer"] != HYPERPARAMS.optimizer
    (command,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Train with it: ")]
    assert {"--flip=yes", "--erasing=1.0"} <= set(command.split()), "what was found is trained with as it was found"


@pytest.mark.parametrize(
    ("flags", "fragment"),
    [
        (["--name=../elsewhere"], "--name is '../elsewhere'"),
        (["--folder=elsewhere"], "no converted dataset in elsewhere"),
        (["--report", "--name=none"], "no search in search/none"),
        (["--report", "--search_folder=file"], "file is a file, not a folder: use another --search_folder"),
        (["--output_size=5"], "--output_size=7"),
        (["--learning_rate=0.1"], "unrecognized arguments: --learning_rate"),
        (["--worker"], "--mongo=mongodb://host:port/database"),
        (
            ["--worker", "--mongo=mongodb://host/faces", "--heartbeat=9"],
            "--worker takes its settings from the search",
        ),
    ],
)
def test_what_cannot_work_is_said_in_one_line(drawn_dataset, flags, fragment, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    try:
        status = main([*TINY, f"--folder={drawn_dataset}", *flags])
    except SystemExit as error:  # argparse's
        status = error.code
    errors = capsys.readouterr().err
    assert status == 2 and fragment in errors.splitlines()[-1]


# --- interruptions ---------------------------------------------------------------------------------------------------


def start(command: list[str], *flags: str, cwd: Path, **environment: str) -> subprocess.Popen:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, "text": True}
    return subprocess.Popen([*command, *flags], cwd=cwd, env={**os.environ, **environment}, **pipes)


def test_search_killed_at_any_moment_loses_and_repeats_nothing(drawn_dataset, tmp_path):
    (tmp_path / "cheap.py").write_text(CHEAP.format(root=str(ROOT)))
    command = [sys.executable, str(tmp_path / "cheap.py")]
    flags = [*TINY, f"--folder={drawn_dataset}", "--max_evals=12", "--random_trials=4"]
    uninterrupted, killed = tmp_path / "uninterrupted", tmp_path / "killed"
    uninterrupted.mkdir()
    killed.mkdir()
    whole = start(command, *flags, cwd=uninterrupted)
    state, evaluated, before = killed / "search" / "default" / "state.json", killed / "evaluated", []

    def reached(trials: int) -> bool:
        return trials == 0 or (evaluated.exists() and len(evaluated.read_text().splitlines()) >= trials)

    for trials, longest in KILLS:
        process = start(command, *flags, cwd=killed, SECONDS="0.1")
        wait_until(lambda count=trials, process=process: reached(count) or process.poll() is not None)
        time.sleep(random.uniform(0, longest))
        process.kill()
        process.communicate()
        known = read_state(state)
        trials = known[1] if known else []
        assert trials[: len(before)] == before, "what was finished stays"
        before = trials
    assert whole.wait(300) == 0, whole.communicate()
    process = start(command, *flags, cwd=killed)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert (f"Going on after trial {len(before)}\n" in output) == (0 < len(before) < 12)
    expected = read_state(uninterrupted / "search" / "default" / "state.json")[1]
    assert read_state(state)[1] == expected
    runs = [line.split()[0] for line in (killed / "evaluated").read_text().splitlines()]
    assert len(runs) <= 12 + len(KILLS), "a kill costs at most the trial that was under way"
    for name in ("trials.csv", "best_hyperparams.json"):
        written = [place / "search" / "default" / name for place in (killed, uninterrupted)]
        assert len({path.read_bytes() for path in written}) == 1


def trials_of(process: subprocess.Popen) -> list[int]:
    """The processes that a process has started."""
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def wait_for_trial(process: subprocess.Popen, temporary: Path) -> int:
    """Until its first trial is at work in its folder; returns the trial's process."""
    wait_until(lambda: list(temporary.glob("ferkit-trial-*/checkpoints/state.json")) or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    (trial,) = trials_of(process)
    return trial


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_search_takes_its_trial_with_it(kind, drawn_dataset, tmp_path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = command_line("optimize_hyperparams.py", *TINY, slim=True)
    process = start(command, "--epochs=100000", f"--folder={drawn_dataset}", cwd=tmp_path, TMPDIR=str(temporary))
    trial = wait_for_trial(process, temporary)
    process.send_signal(kind)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == (130 if kind == signal.SIGINT else -signal.SIGKILL)
    assert "Traceback" not in errors
    if kind == signal.SIGINT:
        assert "Stopped: search/default keeps 0 trials, the same command goes on" in errors
    wait_until(lambda: not Path(f"/proc/{trial}").exists() and not list(temporary.glob("ferkit-trial-*")))


# --- train.py --hyperparams ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ('{"momentum": 0.9}', ["sets 'momentum', which does not exist", "learning_rate"]),
        ('{"learning_rate": "high"}', ['sets learning_rate to "high": it must be a number']),
        ('{"learning_rate": true}', ["it must be a number"]),
        ('{"learning_rate": -1}', ["sets learning_rate to -1: it must be above 0"]),
        ('{"keep_prob": 1.5}', ["sets keep_prob to 1.5: it must be above 0, at most 1"]),
        ('{"batch_size": 12.5}', ["sets batch_size to 12.5: it must be a whole number"]),
        ('{"optimizer": "sgd"}', ["sets optimizer to 'sgd': it must be one of momentum"]),
        ("learning_rate: 0.1", ["is no JSON", '{"learning_rate": 0.01}']),
        ("[]", ["is no JSON object"]),
    ],
)
def test_hyperparameters_that_do_not_fit_are_refused(text, fragments, drawn_dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "best.json").write_text(text)
    assert train_main(["--train=yes", "--hyperparams=best.json", f"--folder={drawn_dataset}"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1 and all(fragment in errors[0] for fragment in fragments), errors


def test_missing_hyperparameters_are_said_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert train_main(["--train", "--hyperparams=none.json"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "none.json" in line
