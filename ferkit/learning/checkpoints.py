"""The checkpoint folder: the weights of the last and the best epoch, and the state of the training."""

import contextlib
import dataclasses
import errno
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ferkit.errors import UserError, in_short
from ferkit.files import lock, not_written, read_text, whole_file
from ferkit.flags import shown
from ferkit.learning.run import CannotResume, Run, State
from ferkit.settings import ADDED, renamed

if TYPE_CHECKING:  # TensorFlow is slow to import
    from ferkit.learning.graph import TrainingGraph


# Files with weights: the name of the log (see training.log_name), the epoch, and TensorFlow's two suffixes. While it
# writes them, they have a third one.
WEIGHTS = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_\w+_epoch-\d+\.(index|data-\d{5}-of-\d{5})(\.tempstate\d+)?")


ANEW = "leave out --resume=yes"  # the cure where nothing can be resumed


def check_same(run: Run, state: State, place: Path, cure: str = ANEW) -> None:
    """Raises CannotResume unless the state found at `place` is one of this run. cure: how to begin anew."""
    settings = run.resumable()
    added = {name: value for group in ADDED.values() for name, value in group.items() if name in settings}
    before = {**added, **renamed(state.settings)}
    for name in {**settings, **before}:
        was, now = before.get(name), settings.get(name)
        if was != now and name in ("dataset", "feature_provenance"):
            raise CannotResume(f"the training in {place} is of another dataset: {cure}")
        if was != now:
            raise CannotResume(
                f"the training in {place} has {name}={shown(was)}, not {shown(now)}: use that, or {cure}"
            )
    if len(state.history) > run.training.epochs:
        raise CannotResume(
            f"the training in {place} has {len(state.history)} epochs already, more than "
            f"{run.training.epochs}: use --epochs={len(state.history)}, or {cure}"
        )


@contextlib.contextmanager
def damage_told(path: Path, cure: str = ANEW) -> Iterator[None]:
    """While the state in a file is read: raises CannotResume if the file is missing or its contents make no sense.

    cure: how to begin anew.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise CannotResume(f"nothing to resume in {path.parent}: {cure}") from error
    except (UserError, OSError, MemoryError):  # not the fault of the saved training
        raise
    except Exception as error:  # invalid contents can raise almost any error
        raise CannotResume(f"{path} is damaged ({in_short(error)}): {cure}") from error


class Checkpoints:
    """The folder that a training is resumed from: the weights of the last and the best epoch, and the state.

    The state is written after the weights and names their epochs. If the process is killed, the previous state is still
    complete.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.state_path = folder / "state.json"

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Locks the folder, as two trainings would delete each other's weights. Raises UserError if it is in use."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with lock(self.state_path) as locked:
            if not locked:
                raise UserError(
                    f"another training uses {self.folder}: name another --checkpoint_folder, or wait for it"
                )
            yield

    def weights(self, state: State, epoch: float) -> Path:
        """The path of an epoch's weights; no other training uses the same name."""
        return self.folder / f"{state.log}_epoch-{int(epoch)}"

    def write(self, graph: "TrainingGraph", session: Any, state: State) -> None:
        """Writes the weights and the state. Raises UserError, and leaves nothing of them, when they do not fit."""
        path = self.weights(state, state.history[-1]["epoch"])
        try:
            graph.saver.save(session, str(path), write_meta_graph=False, write_state=False)
        except Exception as error:  # TensorFlow raises types of its own
            for half in self.folder.glob(f"{path.name}.*"):
                half.unlink()
            before = len(state.history) - 1
            kept = f"; --resume=yes then goes on after epoch {before}" if before else ""
            raise UserError(f"{not_written(path, _error_of_system(error))}{kept}") from error
        with whole_file(self.state_path) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(state), indent=2) + "\n", encoding="utf-8")

    def tidy(self, state: State) -> None:
        """Deletes all weights except those of the last and the best epoch, also weights of earlier trainings.

        Files that no training wrote are kept.
        """
        kept = {self.weights(state, row["epoch"]).name for row in (state.history[-1], state.best)}
        for file in self.folder.glob("*_epoch-*.*"):
            if WEIGHTS.fullmatch(file.name) and file.name.split(".")[0] not in kept:
                file.unlink()

    def read(self, run: Run) -> State:
        """The state to resume `run` from. Raises CannotResume if it is missing, damaged or of another training."""
        with damage_told(self.state_path):
            state = State(**json.loads(read_text(self.state_path)))
            epochs = [row["epoch"] for row in (state.best, state.history[-1])]
            whole = isinstance(state.settings, dict) and isinstance(state.log, str)
        if not whole or not all(self.weights(state, epoch).with_suffix(".index").is_file() for epoch in epochs):
            raise CannotResume(f"{self.folder} is missing or damaged in part: leave out --resume=yes")
        check_same(run, state, self.folder)
        return state

    def restore(self, graph: "TrainingGraph", session: Any, state: State) -> None:
        from ferkit.learning.tflearn_compat import tf

        path = self.weights(state, state.history[-1]["epoch"])
        try:
            graph.saver.restore(session, str(path))
        except (tf.errors.ResourceExhaustedError, MemoryError) as error:
            raise UserError(f"no memory for {path}: end other programs, and resume again") from error
        except Exception as error:  # TensorFlow's errors have no common base class
            raise CannotResume(f"{path} is missing or damaged: leave out --resume=yes") from error


def _error_of_system(error: Exception) -> OSError:
    """The error of the operating system behind one of TensorFlow's, which only its text tells."""
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES):
        if os.strerror(number) in str(error):
            return OSError(number, os.strerror(number))
    return OSError(in_short(error))
