"""The saved model: one file with the network and its facts, run by LiteRT without TensorFlow.

    model = load("best_model/saved_model.bin")
    model.facts["expressions"]
    model.predict(faces, vectors)  # (N, 48, 48) uint8, (N, size) float32 -> (N, K) probabilities

The file is a LiteRT (TensorFlow Lite) flatbuffer, followed by a zip archive with `facts.json`. TensorFlow Lite appends
its own metadata in the same way. Any LiteRT tool can read the network, and any zip tool can read the facts.
"""

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ferkit import features
from ferkit.constants import IMAGE_SIZE, MIXTURES, SHIPPED_MODELS
from ferkit.errors import UserError
from ferkit.files import check_replaceable, read_bytes, real_path, whole_file
from ferkit.interpreter import SharedInterpreter
from ferkit.schemas import Facts, check_shape
from ferkit.settings import upgraded
from ferkit.transforms import average_over_views

FORMAT = 1
FACTS = "facts.json"
LEAST_FREQUENCY = 1e-6  # of an expression, so that none that was never learned is divided by 0
LEAST_PROBABILITY = 1e-4  # after label smoothing is taken out
BATCH = 64  # faces in one run: more are not faster and need more memory


class SavedModel:
    """A loaded model: its facts, and its network ready to run. Any number of threads may share it."""

    def __init__(self, network: bytes, facts: dict[str, Any], threads: int | None = None):
        self.facts = facts
        self.flatbuffer = network
        self.expressions: tuple[str, ...] = tuple(facts["expressions"])
        self.features: str = facts["features"]
        self.feature_provenance: dict[str, dict[str, Any]] = facts["feature_provenance"]  # see features.provenance
        # For calibration, which fits confidence to accuracy: see without_smoothing and at_temperature.
        self.smoothing = float(facts.get("label_smoothing", 0.0))
        self.temperature = float(facts.get("temperature", 1.0))
        self.temperature_augmented = float(facts.get("temperature_augmented", self.temperature))
        self.balance = np.asarray(facts["balance"], np.float32) if "balance" in facts else None  # see Training.balance
        self.frequencies = _frequencies(facts)
        self._network = SharedInterpreter(network, threads)
        self._inputs = [details["name"] for details in self._network.inputs]
        sizes = {details["name"]: int(details["shape"][-1]) for details in self._network.inputs}
        self._vector_size = sizes.get("features", 0)
        outputs = int(self._network.outputs[0]["shape"][-1])
        if self.balance is not None and self.balance.shape != (len(self.expressions),):
            raise ValueError("its balance is not a factor for each expression")
        if self.frequencies is not None and self.frequencies.shape != (len(self.expressions),):
            raise ValueError("its frequencies are not a share for each expression")
        if outputs != len(self.expressions) or self._vector_size != features.size(self.features):
            raise ValueError("its facts are not those of its network")
        features.check_learned(self.features, self.feature_provenance)
        blank = np.zeros((1, IMAGE_SIZE, IMAGE_SIZE), np.uint8)
        if not np.isfinite(answer := self._run(blank, np.zeros((1, self._vector_size)))).all() or answer.ndim != 2:
            raise ValueError("its network gives no probabilities")  # run once, as damage may show only then

    def predict(
        self, faces: np.ndarray, vectors: np.ndarray, augmented: bool = False, balance: float | None = None
    ) -> np.ndarray:
        """Calibrated probabilities of the expressions. augmented: test-time augmentation, see transforms.views.

        balance: how far the frequencies of the expressions in training are taken out of the answers, see
        VideoPredictor.balance. By default, and for a model that does not know them, as it was saved. Among balanced
        answers, those of a model of votes are the shares of the votes, without the temperature: that fits confidence to
        accuracy on faces like those it was trained on, and is too high on photographs.
        faces: (N, 48, 48) uint8. vectors: (N, size) float32 from features.extract; size is 0 for a model of raw pixels.
        Returns (N, K) float32. Raises ValueError for faces or vectors of another shape or type.
        """
        if faces.shape[1:] != (IMAGE_SIZE, IMAGE_SIZE) or faces.dtype != np.uint8:
            raise ValueError(f"faces must be (N, {IMAGE_SIZE}, {IMAGE_SIZE}) uint8, not {faces.shape} {faces.dtype}")
        if vectors.shape != (len(faces), self._vector_size):
            raise ValueError(f"vectors must be ({len(faces)}, {self._vector_size}), not {vectors.shape}")
        if augmented:
            probabilities = average_over_views(self._run_all, faces, vectors, self.features, self.feature_provenance)
        else:
            probabilities = self._run_all(faces, vectors)
        return self.calibration(balance, augmented)(probabilities)

    def calibration(self, balance: float | None = None, augmented: bool = False) -> "Calibration":
        """How `predict` calibrates what the network answers; for the arguments see there."""
        temperature = self.temperature_augmented if augmented else self.temperature
        factors = self.balance
        if balance is not None and self.frequencies is not None:
            learned = self.facts.get("hyperparams", {}).get("logit_adjustment", 0.0)  # taken out in training already
            factors = np.maximum(self.frequencies, LEAST_FREQUENCY) ** (learned - balance)
            temperature = temperature if labels_of(self.facts) == "fer2013" else 1.0
        return Calibration(self.smoothing, factors, temperature)

    def _run_all(self, faces: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        batches = [slice(start, start + BATCH) for start in range(0, len(faces), BATCH)]
        none = np.zeros((0, len(self.expressions)), np.float32)
        return np.concatenate([none, *(self._run(faces[batch], vectors[batch]) for batch in batches)])

    def _run(self, faces: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        arrays = {
            "images": faces[..., None].astype(np.float32),
            "features": np.ascontiguousarray(vectors, np.float32),
        }
        return self._network.run([arrays[name] for name in self._inputs])[0]


@dataclass(frozen=True)
class Calibration:
    """Turns a network's probabilities (N, K) into calibrated ones."""

    smoothing: float  # see without_smoothing
    factors: np.ndarray | None  # (K,) of the expressions
    temperature: float  # see at_temperature

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        probabilities = without_smoothing(probabilities, self.smoothing)
        if self.factors is not None:
            probabilities = probabilities * self.factors
            probabilities /= probabilities.sum(axis=1, keepdims=True)
        return at_temperature(probabilities, self.temperature)


def labels_of(facts: dict[str, Any]) -> str:
    """Whose labels a model with these facts has learned: see settings.LABELS."""
    return facts.get("training", {}).get("labels", "fer2013")


def _frequencies(facts: dict[str, Any]) -> np.ndarray | None:
    """The share of each expression in what the model learned (K,) float32; None if its facts do not tell it."""
    if "frequencies" in facts:
        return np.asarray(facts["frequencies"], np.float32)
    exponent = facts.get("training", {}).get("balance", 0.0)
    if "balance" not in facts or not exponent:  # an earlier version saved this instead
        return None
    return np.asarray(facts["balance"], np.float32) ** np.float32(-1 / exponent)


def check_replaced(path: Path, machine: bool = False) -> None:
    """Raises UserError if saving a model at `path` would replace a different kind of file.

    machine: whether the model is a support vector machine, as experiments.train_svm saves it, not a network.
    """
    check_replaceable(real_path(path), path)
    if not path.exists():
        return
    try:
        with zipfile.ZipFile(path) as archive:
            facts = json.loads(archive.read(FACTS))
    except PermissionError as error:
        raise UserError(f"no permission to read {path}, which would be replaced: name another --model_path") from error
    except Exception:  # a damaged archive can raise almost any error
        facts = None
    if not isinstance(facts, dict) or (facts.get("model") == "SVM") != machine:
        kind = "support vector machine" if machine else "network"
        raise UserError(f"{path} is no saved {kind} and would be replaced: name another --model_path, or delete it")


def without_smoothing(probabilities: np.ndarray, share: float) -> np.ndarray:
    """Removes the effect of label smoothing from probabilities (N, K). share: spread over all classes in training.

    A network that learned smoothed labels gives at most about 1 - share, even when it is certain. Results of less than
    LEAST_PROBABILITY are raised to it before the final normalization.
    """
    if share == 0:
        return probabilities
    hard = np.maximum((probabilities - share / probabilities.shape[1]) / (1 - share), np.float32(LEAST_PROBABILITY))
    return hard / hard.sum(axis=1, keepdims=True)


def at_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """The probabilities (N, K) after the logits are divided by `temperature` (Guo et al., ICML 2017)."""
    if temperature == 1:
        return probabilities
    sharpened = (probabilities / probabilities.max(axis=1, keepdims=True)) ** (1 / temperature)  # avoids underflow
    return sharpened / sharpened.sum(axis=1, keepdims=True)


def save(path: str | Path, network: bytes, facts: dict[str, Any]) -> None:
    """Writes the flatbuffer `network` and `facts` to one file.

    The facts must have "expressions", "features" and "feature_provenance".
    """
    facts = {"format": FORMAT, **facts, "network_sha256": hashlib.sha256(network).hexdigest()}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as appendix:
        appendix.writestr(FACTS, json.dumps(facts, indent=2, ensure_ascii=False))
    with whole_file(path) as temporary:
        temporary.write_bytes(network + archive.getvalue())


def load(path: str | Path, threads: int | None = None, flag: str = "--model_path") -> SavedModel:
    """The model saved at `path`. Raises UserError when the file is missing, damaged, or not a saved network.

    path: also a short name of a shipped model, such as "fer2013", unless there is a file of this name. threads: number
    of threads for the network; at most four by default. flag: the one that names another model, for the errors.
    """
    path = find(path)
    try:
        content = read_bytes(path)
    except FileNotFoundError as error:
        raise UserError(
            f"no trained model at {path}: run 'python train.py --train=yes', or name another with {flag} "
            f"(included: {', '.join((*MIXTURES, *SHIPPED_MODELS))})"
        ) from error
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as appendix:
            facts = upgraded(json.loads(appendix.read(FACTS)))
            if facts.get("model") == "SVM":
                raise UserError(
                    f"{path} is a support vector machine: only 'python -m experiments.train_svm --train=no' uses it"
                )
            network = content[: appendix.getinfo(FACTS).header_offset]
        if facts["format"] != FORMAT:
            raise UserError(f"{path} was saved by another version of this toolkit: train again")
        check_shape(facts, Facts)
        if hashlib.sha256(network).hexdigest() != facts["network_sha256"]:
            raise ValueError("its network is not the one that was saved")
        return SavedModel(network, facts, threads)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # a damaged archive or network can raise almost any error
        raise UserError(
            f"{path} is not a whole saved model ({error}): name another with {flag}, or copy it again"
        ) from error


def find(path: str | Path) -> Path:
    """The file that `load` reads for a path, or for the short name of a shipped model."""
    return shipped(str(path)) if str(path) in SHIPPED_MODELS and not Path(path).is_file() else Path(path)


def shipped(name: str | None = None) -> Path:
    """The path of a shipped model: beside the code in the repository, inside the package after an installation.

    name: its short name in SHIPPED_MODELS, whose first one is the default.
    """
    package = Path(__file__).resolve().parent
    inside = SHIPPED_MODELS[name or next(iter(SHIPPED_MODELS))]
    places = (package.parent / inside, package / inside)
    return next((path for path in places if path.is_file()), places[0])
