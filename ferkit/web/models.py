"""The models that the server offers: the chosen one and the included ones."""

import functools
import threading
from pathlib import Path

from ferkit import saved_model
from ferkit.constants import DEFAULT_MODEL, SHIPPED_MODELS
from ferkit.ensemble import weights_of
from ferkit.recognition import Recognizer

TRAINED = "trained"  # the name of a model that is not an included one
_TITLES = {
    "mixed": "FER+ and FER2013 together",
    "ferplus": "FER+: as people see it",
    "fer2013": "FER2013: its own labels",
    "fer2013_large": "FER2013: its own labels, larger",
}


class Models:
    """Recognizers by the names of their models. One recognizer of each model serves all threads.

    chosen: the recognizer of the default model, which is named `trained` if it is not an included one. The others have
    its settings, and are loaded when they are first needed.
    """

    def __init__(self, chosen: Recognizer):
        self.settings = chosen.settings
        self._chosen = chosen
        self._lock = threading.Lock()
        shipped = {name: saved_model.shipped(name) for name in SHIPPED_MODELS}
        self._paths = {name: path for name, path in shipped.items() if path.is_file()}
        if all(name in self._paths for name in weights_of(DEFAULT_MODEL)):
            self._paths = {DEFAULT_MODEL: Path(DEFAULT_MODEL), **self._paths}
        here = chosen.model_path.resolve()
        own = (name for name, path in self._paths.items() if path.resolve() == here or name == str(chosen.model_path))
        self.default = next(own, TRAINED)
        self.names = tuple(dict.fromkeys((self.default, *self._paths)))  # the default is the first

    def recognizer(self, name: str) -> Recognizer:
        """The recognizer of the model with one of `names`."""
        if name == self.default:
            return self._chosen
        with self._lock:
            return self._loaded(name)

    @functools.cache  # noqa: B019 it lives as long as the server
    def _loaded(self, name: str) -> Recognizer:
        return Recognizer(self._paths[name], self._chosen.settings, self._chosen.shape_predictor_path)

    def title(self, name: str) -> str:
        """A few words about a model, for people to choose from."""
        own = self._chosen.model_path
        several = len(weights_of(own)) > 1
        return _TITLES.get(name, f"Together: {own}" if several else f"Your own: {own.name}")
