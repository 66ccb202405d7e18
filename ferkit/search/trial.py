"""One trial of a hyperparameter search: a training in a process of its own.

    outcome = run_trial({"settings": …, "parameters": {"learning_rate": 0.01}, "folder": …}, command, hopeless)

The process receives its job as a line of JSON on stdin, and answers with one line for each epoch. Because it is a
separate process, TensorFlow's memory is released after each trial, and the search goes on if the system kills a trial
that needs too much memory.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from ferkit.data.dataset import open_dataset
from ferkit.errors import UserError
from ferkit.files import temporary_folder
from ferkit.learning.architecture import Architecture, find_architecture
from ferkit.learning.run import Diverged, Run
from ferkit.learning.training import train
from ferkit.search.trials import DIVERGED
from ferkit.settings import Augmentation, Hyperparams, Network, Training


@dataclass(frozen=True)
class Outcome:
    """The result of a trial; for the fields see trials.Trial."""

    status: str
    accuracies: list[float]
    seconds: float
    reason: str = ""


def run_trial(job: dict[str, Any], command: Sequence[str], hopeless: Callable[[list[float]], bool]) -> Outcome:
    """Trains in a process of its own, with its progress on stderr. Errors of that process give a failed outcome.

    job: `settings` of the search, searched `parameters`, `folder` of the dataset. command: starts a process that calls
    `train_trial`. hopeless: called with the accuracies after each epoch except the last; if it returns true, the trial
    is stopped.
    """
    started, accuracies, reason, stopped = time.monotonic(), [], "", False
    with temporary_folder("ferkit-trial-") as (place, held):
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, **_progress()},
            start_new_session=True,  # the search handles Ctrl-C
            pass_fds=(held,),  # its folder is in use until this process has ended too
        )
        orders, answers = _pipes(process)
        try:
            _tell(orders, {**job, "place": str(place)})
            for line in answers:
                message = json.loads(line)
                reason = message.get("failed", reason)
                if "accuracy" in message:
                    accuracies.append(message["accuracy"])
                    last = len(accuracies) == job["settings"]["training"]["epochs"]
                    if not last and hopeless(accuracies):
                        stopped = True
                        process.kill()
                        break
        except BaseException:  # most often Ctrl-C
            process.kill()
            raise
        finally:
            status = process.wait()
            with contextlib.suppress(BrokenPipeError):  # the process ended before it read everything
                orders.close()
            answers.close()
    seconds = time.monotonic() - started
    if stopped:
        return Outcome("stopped", accuracies, seconds)
    if reason or status != 0 or not accuracies:
        return Outcome("failed", accuracies, seconds, reason or _ending(status))
    return Outcome("ok", accuracies, seconds)


def _progress() -> dict[str, str]:
    """tqdm's settings for the trial: the bar of an epoch disappears when it is full; files get no bars."""
    if sys.stderr is not None and sys.stderr.isatty():
        return {"TQDM_LEAVE": ""}
    return {"TQDM_DISABLE": "1"}


def _pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert process.stdin is not None and process.stdout is not None, "it was started with both"
    return process.stdin, process.stdout


def _tell(orders: IO[str], job: dict[str, Any]) -> None:
    try:
        orders.write(json.dumps(job) + "\n")
        orders.flush()  # stays open: the trial notices by its end that the search has ended
    except BrokenPipeError:  # the process has already ended; its exit status gives the reason
        pass


def _ending(status: int) -> str:
    if status < 0:
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        return f"the process was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"the process ended with exit status {status}"


# --- in the process of the trial -------------------------------------------------------------------------------------


def train_trial(architectures: Mapping[str, Architecture]) -> int:
    """The main function of a trial's process: reads the job from stdin, and writes the result to stdout."""
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that prints of the training do not mix with the answers

    def answer(**message: Any) -> None:
        try:
            print(json.dumps(message, allow_nan=False), file=messages, flush=True)
        except BrokenPipeError:  # the search has ended, and the thread below has not noticed yet
            _end(job["place"])

    def fail(reason: str) -> None:  # with the same folder name in all trials, so that reasons can be compared
        answer(failed=reason.replace(job["place"], str(Path(job["place"]).with_name("trial"))))

    line = sys.stdin.readline()
    if not line:
        return 1  # the search ended before it sent the job
    job = json.loads(line)
    threading.Thread(target=_end_with_search, args=(job["place"],), daemon=True).start()
    try:
        run = run_of(job, architectures)
        check_same(run, job["settings"], "the search")  # the dataset may have been converted again
        train(run, after_epoch=lambda state: answer(accuracy=state.history[-1]["validation_accuracy"]))
    except Diverged as error:
        fail(f"{DIVERGED}{error}")
    except UserError as error:
        fail(str(error))
    except Exception as error:  # a trial may fail for any reason
        lines = str(error).strip().splitlines()
        fail(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)
    return 0


def run_of(job: dict[str, Any], architectures: Mapping[str, Architecture]) -> Run:
    """The training of a job. It writes only into the job's `place`."""
    settings, place = job["settings"], Path(job["place"])
    dataset = open_dataset(job["folder"]).labelled(settings["training"]["labels"])
    dataset = dataset.sampled(settings["samples"], settings["training"]["seed"])
    training = Training(
        **settings["training"],
        save_model=False,
        checkpoint_folder=str(place / "checkpoints"),
        logs_folder=str(place / "logs"),
    )
    hyperparams = Hyperparams(**settings["hyperparams"], **job["parameters"])
    network = Network(**settings["network"])
    architecture = find_architecture(architectures, network.model)
    return Run(dataset, architecture, network, hyperparams, training, Augmentation(**settings["augmentation"]))


def check_same(run: Run, settings: dict[str, Any], search: str) -> None:
    """Raises UserError if `run` has another dataset, other features or another teacher than the search.

    settings: those of the search. search: its name for the message.
    """
    folder = run.dataset.folder
    if run.dataset.fingerprint != settings["dataset"]:
        raise UserError(f"{folder} is another dataset than that of {search}: convert the same one, or use --folder")
    run.dataset.check(run.network.features, run.network.output_size)
    if run.dataset.feature_provenance(run.network.features) != settings["feature_provenance"]:
        raise UserError(f"the features in {folder} were computed otherwise than those of {search}: convert it again")
    if run.teacher_facts.get("teacher") != settings.get("teacher"):
        raise UserError(f"{run.hyperparams.teacher} is another teacher than that of {search}: copy it from there")


def _end_with_search(place: str) -> None:
    while os.read(0, 1):  # ends when the search has ended for any reason
        pass
    _end(place)


def _end(place: str) -> NoReturn:
    """Ends this process, and starts another one that then deletes its folder: until the end the training may write."""
    script = "import shutil, sys; sys.stdin.read(); shutil.rmtree(sys.argv[1], ignore_errors=True)"
    with contextlib.suppress(OSError):  # no further process can be started
        subprocess.Popen([sys.executable, "-S", "-c", script, place], stdin=subprocess.PIPE)
        os._exit(1)
    shutil.rmtree(place, ignore_errors=True)
    os._exit(1)
