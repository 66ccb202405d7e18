"""The saved model: one file with the network and its facts, run by LiteRT without TensorFlow.

    model = load("best_model/saved_model.bin")
    model.facts["expressions"]
    model.predict(faces, vectors)  # (N, 48, 48) uint8, (N, size) float32 -> (N, K) probabilities

The file is a LiteRT (TensorFlow Lite) flatbuffer with a zip archive of `facts.json` appended, the way TensorFlow
Lite's own metadata is: any LiteRT tool reads the network, any zip tool the facts.
"""

import hashlib
import io
import json
import math
import os
import zipfile
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

import features
from augmentation import average_over_views
from command_line import UserError, quiet
from files import whole_file
from parameters import IMAGE_SIZE

FORMAT = 1
FACTS = "facts.json"
BATCH = 64  # faces in one run: more would not be faster, and would take more memory


class SavedModel:
    """A loaded model: its facts, and its network ready to run."""

    def __init__(self, network: bytes, facts: dict, threads: int | None = None):
        self.facts = facts
        self.expressions: tuple[str, ...] = tuple(facts["expressions"])
        self.features: str = facts["features"]
        self.recipes: dict[str, dict] = facts["recipes"]  # of its features: see features.recipe
        # Calibration, in which confidence is made to mean something: see without_smoothing and at_temperature.
        self.smoothing = float(facts.get("label_smoothing", 0.0))
        self.temperature = float(facts.get("temperature", 1.0))
        self.temperature_augmented = float(facts.get("temperature_augmented", self.temperature))
        with quiet():
            self._interpreter = Interpreter(model_content=network, num_threads=threads or os.cpu_count())
        inputs = {details["name"]: details for details in self._interpreter.get_input_details()}
        self._images = inputs["images"]["index"]
        self._vectors = inputs["features"]["index"] if "features" in inputs else None
        self._vector_size = int(inputs["features"]["shape"][-1]) if "features" in inputs else 0
        self._output = self._interpreter.get_output_details()[0]["index"]
        outputs = int(self._interpreter.get_output_details()[0]["shape"][-1])
        if not all(0 < temperature < math.inf for temperature in (self.temperature, self.temperature_augmented)):
            raise ValueError(f"its temperatures are {self.temperature} and {self.temperature_augmented}")
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"its label_smoothing is {self.smoothing}")
        if outputs != len(self.expressions) or self._vector_size != features.size(self.features):
            raise ValueError("its facts are not those of its network")
        self._batch = 0  # faces that memory is laid out for

    def predict(self, faces: np.ndarray, vectors: np.ndarray, augmented: bool = False) -> np.ndarray:
        """Probabilities of the expressions, calibrated; `augmented`: averaged over views of each face.

        faces: (N, 48, 48) uint8. vectors: (N, size) float32 as features.extract gives them; size 0 for a model of raw
        pixels. Returns (N, K) float32. Raises ValueError for faces or vectors of another shape.
        """
        if faces.shape[1:] != (IMAGE_SIZE, IMAGE_SIZE) or faces.dtype != np.uint8:
            raise ValueError(f"faces must be (N, {IMAGE_SIZE}, {IMAGE_SIZE}) uint8, not {faces.shape} {faces.dtype}")
        if vectors.shape != (len(faces), self._vector_size):
            raise ValueError(f"vectors must be ({len(faces)}, {self._vector_size}), not {vectors.shape}")
        if augmented:
            probabilities = average_over_views(self._run_all, faces, vectors, self.features)
        else:
            probabilities = self._run_all(faces, vectors)
        temperature = self.temperature_augmented if augmented else self.temperature
        return at_temperature(without_smoothing(probabilities, self.smoothing), temperature)

    def _run_all(self, faces: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        batches = [slice(start, start + BATCH) for start in range(0, len(faces), BATCH)]
        none = np.zeros((0, len(self.expressions)), np.float32)
        return np.concatenate([none, *(self._run(faces[batch], vectors[batch]) for batch in batches)])

    def _run(self, faces: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        if len(faces) != self._batch:
            self._batch = len(faces)
            with quiet():
                self._interpreter.resize_tensor_input(self._images, (self._batch, IMAGE_SIZE, IMAGE_SIZE, 1))
                if self._vectors is not None:
                    self._interpreter.resize_tensor_input(self._vectors, (self._batch, self._vector_size))
                self._interpreter.allocate_tensors()
        self._interpreter.set_tensor(self._images, faces[..., None].astype(np.float32))
        if self._vectors is not None:
            self._interpreter.set_tensor(self._vectors, np.ascontiguousarray(vectors, np.float32))
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output)


def check_replaced(path: Path, machine: bool = False) -> None:
    """Raises UserError where saving a model at `path` would replace a file that is something else.

    machine: a support vector machine's, which train_svm.py saves, instead of a network's.
    """
    if not path.exists():
        return
    try:
        with zipfile.ZipFile(path) as archive:
            facts = json.loads(archive.read(FACTS))
    except Exception:  # damaged, an archive can raise nearly anything
        facts = None
    if not isinstance(facts, dict) or (facts.get("model") == "SVM") != machine:
        kind = "support vector machine" if machine else "network"
        raise UserError(
            f"{path} is no saved {kind} and would be replaced: name another --save_model_path, or delete it"
        )


def without_smoothing(probabilities: np.ndarray, share: float) -> np.ndarray:
    """Of the labels themselves (N, K), where a network learned labels of which `share` was spread over all classes.

    Such a network never says more than 1 - share, however sure it may be. None becomes less than 0.0001.
    """
    if share == 0:
        return probabilities
    hard = np.maximum((probabilities - share / probabilities.shape[1]) / (1 - share), np.float32(1e-4))
    return hard / hard.sum(axis=1, keepdims=True)


def at_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """What softmax gives (N, K) when its inputs are divided by `temperature` first (Guo et al., ICML 2017)."""
    if temperature == 1:
        return probabilities
    sharpened = (probabilities / probabilities.max(axis=1, keepdims=True)) ** (1 / temperature)  # no row underflows
    return sharpened / sharpened.sum(axis=1, keepdims=True)


def save(path: str | Path, network: bytes, facts: dict) -> None:
    """Writes the flatbuffer `network` and `facts`, at least "expressions", "features" and "recipes", to one file."""
    facts = {"format": FORMAT, **facts, "network_sha256": hashlib.sha256(network).hexdigest()}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as appendix:
        appendix.writestr(FACTS, json.dumps(facts, indent=2, ensure_ascii=False))
    with whole_file(path) as temporary:
        temporary.write_bytes(network + archive.getvalue())


def load(path: str | Path, threads: int | None = None) -> SavedModel:
    """The model saved at `path`. Raises UserError when there is none, or the file is not whole or not a saved model.

    threads: how many the network runs on; all cores by default.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise UserError(
            f"no trained model at {path}: run 'python train.py --train=yes', or set TRAINING.save_model_path"
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as appendix:
            facts = json.loads(appendix.read(FACTS))
            if facts.get("model") == "SVM":
                raise UserError(f"{path} is a support vector machine: only 'python train_svm.py --train=no' uses it")
            network = content[: appendix.getinfo(FACTS).header_offset]
        if facts["format"] != FORMAT:
            raise UserError(f"{path} was saved by another version of this toolkit: train again")
        if hashlib.sha256(network).hexdigest() != facts["network_sha256"]:
            raise ValueError("its network is not the one that was saved")
        return SavedModel(network, facts, threads)
    except UserError:
        raise
    except Exception as error:  # damaged, the archive or the network can raise nearly anything
        raise UserError(
            f"{path} is not a whole saved model ({error}): copy it again, or delete it and train"
        ) from error
