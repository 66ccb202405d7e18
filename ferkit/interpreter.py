"""A LiteRT network that any number of threads, and forked processes, can share."""

import os
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from ferkit.processes import available_cores, quiet

_most_threads = min(4, available_cores())  # for one network: ours are small, and more threads do not help


def use_one_thread() -> None:
    """Makes networks that are loaded from now on run in one thread: for a process that is one for each core."""
    global _most_threads
    _most_threads = 1


class SharedInterpreter:
    """Runs a LiteRT network. Calls from several threads wait for one another.

    network: the flatbuffer. threads: number of threads for the network; by default at most four. Raises ValueError or
    RuntimeError when the flatbuffer is not a network that can be run.
    """

    def __init__(self, network: bytes, threads: int | None = None) -> None:
        self._network = network
        self._threads = threads
        self._lock = threading.Lock()
        self._interpreter = self._new()
        self._process = os.getpid()  # the process whose threads the interpreter uses
        self._shapes: list[tuple[int, ...]] = []  # input shapes that memory is allocated for
        self.inputs: list[dict[str, Any]] = self._interpreter.get_input_details()  # LiteRT's: name, shape, dtype
        self.outputs: list[dict[str, Any]] = self._interpreter.get_output_details()
        _all.add(self)

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs for the inputs `arrays`, given in the order of `inputs`. The first axis may have any length."""
        shapes = [array.shape for array in arrays]
        with self._lock:
            if self._process != os.getpid():
                self._restart()
            interpreter = self._interpreter
            inputs = interpreter.get_input_details()
            if shapes != self._shapes:
                with quiet():  # LiteRT prints messages
                    for details, shape in zip(inputs, shapes, strict=True):
                        interpreter.resize_tensor_input(details["index"], shape)
                    interpreter.allocate_tensors()
                self._shapes = shapes
            for details, array in zip(inputs, arrays, strict=True):
                interpreter.set_tensor(details["index"], array)
            interpreter.invoke()
            return [interpreter.get_tensor(details["index"]) for details in interpreter.get_output_details()]

    def _new(self) -> Interpreter:
        with quiet():
            threads = min(self._threads or _most_threads, _most_threads)
            return Interpreter(model_content=self._network, num_threads=threads)

    def _restart(self) -> None:
        """Makes a new interpreter in a forked process, when it is first needed there.

        The old interpreter would wait for threads that exist only in the parent. It is kept but never used again,
        because its release could also wait for them.
        """
        _abandoned.append(self._interpreter)
        self._interpreter, self._process, self._shapes = self._new(), os.getpid(), []


_abandoned: list[Interpreter] = []  # old interpreters in a forked process
_all: "weakref.WeakSet[SharedInterpreter]" = weakref.WeakSet()


def _unlock_all() -> None:
    """In a forked process: a thread of the parent may have held a lock, and cannot release it here."""
    for interpreter in list(_all):
        interpreter._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_all)
