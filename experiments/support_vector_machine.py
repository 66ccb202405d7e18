"""A support vector machine on landmarks and HOG, for comparison with the networks.

    machine = train(dataset, SVM)
    machine.predict(faces, vectors)  # (N, 48, 48) uint8, (N, size) float32 -> (N, K) probabilities

The scaling of the landmarks, the kernel and its parameters are chosen by their accuracy on PublicTest, after training
with a part of the training faces. With the best choice, the machine learns from all training faces. The saved file
contains arrays and facts, never a pickle, so that a file from somebody else cannot run code.
"""

import dataclasses
import io
import itertools
import json
import os
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from ferkit import features
from ferkit.data.dataset import Dataset, Split
from ferkit.errors import UserError
from ferkit.features.landmarks import LANDMARKS, LEFT_EYE, RIGHT_EYE
from ferkit.files import check_writable, read_bytes, whole_file
from ferkit.learning.calibration import best_temperature
from ferkit.provenance import made_with
from ferkit.saved_model import FACTS, at_temperature, check_replaced
from ferkit.settings import Svm, upgraded

if TYPE_CHECKING:  # imported for training only: evaluation does not need it
    from sklearn.svm import SVC

FORMAT = 1
ARRAYS = ("mean", "projection", "support", "coefficients", "intercepts")
PLACES = ("crop", "face")  # see place_landmarks
KERNELS = ("linear", "rbf")
MACHINES_AT_ONCE = 4  # trained in parallel; each needs up to 1 GB
BATCH = 512  # faces whose kernel is computed at a time: 80 MB for 20,000 support vectors


def check_place(path: Path) -> None:
    """Raises UserError before a long training if the machine could not be saved or would replace another file."""
    if path.is_dir():
        raise UserError(f"{path} is a folder: the saved machine is a file, name one with --model_path")
    check_replaced(path, machine=True)
    check_writable(path.parent)


@dataclass(frozen=True)
class Choice:
    """The settings that are chosen by PublicTest."""

    landmarks: str  # see place_landmarks
    hog_weight: float  # total variance of every other part, relative to that of the landmarks
    kernel: str  # linear or rbf
    penalty: float  # the SVM's C
    gamma: float  # parameter of the rbf kernel


@dataclass(frozen=True)
class Scaling:
    """Maps features to the machine's inputs: standardizes each value, weights each part, then projects.

    The projection onto the principal components reduces the number of inputs for the kernel, and the noise.
    """

    feature: str
    landmarks: str
    mean: np.ndarray  # (size,) float32
    projection: np.ndarray  # (size, components) float32

    @staticmethod
    def of(vectors: np.ndarray, feature: str, landmarks: str, hog_weight: float, components: int) -> "Scaling":
        """Fits the scaling to the training faces. vectors: (N, size) float32 of `feature`."""
        from scipy.linalg import eigh  # imported here, because evaluation does not need it

        values = place_landmarks(vectors, feature, landmarks)
        mean, deviation = values.mean(axis=0), values.std(axis=0)
        parts = features.parts_of(feature)
        sizes = [part.size for part in parts.values()]
        weights = [1.0 if name == "landmarks" else hog_weight for name in parts]
        # Constant values get the scale 0 instead of a division by zero.
        scale = np.where(deviation > 1e-6, 1 / np.maximum(deviation, 1e-6), 0)
        scale *= np.sqrt(np.repeat(np.divide(weights, sizes), sizes))
        scaled = (values - mean) * scale
        greatest = (max(0, len(mean) - components), len(mean) - 1)
        _, directions = eigh(scaled.T @ scaled, subset_by_index=greatest)  # sorted by variance, the greatest last
        projection = scale[:, None] * directions[:, ::-1]
        return Scaling(feature, landmarks, mean.astype(np.float32), projection.astype(np.float32))

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """(N, size) float32 -> (N, components) float32."""
        return ((place_landmarks(vectors, self.feature, self.landmarks) - self.mean) @ self.projection).astype(
            np.float32
        )


def place_landmarks(vectors: np.ndarray, feature: str, where: str) -> np.ndarray:
    """The vectors (N, size) of a feature as float64, with landmarks relative to the crop or to the face.

    where: "crop" leaves the landmarks as they are. "face" moves their mean to the origin, rotates the line between the
    eyes to horizontal, and scales the root mean square distance from the origin to 1. Then they depend on the shape of
    the face and not on the crop.
    """
    values = vectors.astype(np.float64)
    columns = features.columns(feature).get("landmarks")
    if where == "crop" or columns is None:
        return values
    points = values[:, columns].reshape(-1, LANDMARKS, 2)
    points = points - points.mean(axis=1, keepdims=True)
    across = points[:, RIGHT_EYE].mean(axis=1) - points[:, LEFT_EYE].mean(axis=1)
    angle = np.arctan2(across[:, 1], across[:, 0])
    cosine, sine = np.cos(angle), np.sin(angle)
    level = np.stack([cosine, -sine, sine, cosine], axis=1).reshape(-1, 2, 2)  # for points as rows
    size = np.sqrt((points**2).sum(axis=2).mean(axis=1))[:, None, None]
    values[:, columns] = (points @ level / np.maximum(size, 1e-6)).reshape(len(values), -1)
    return values


@dataclass(frozen=True)
class Machine:
    """A trained support vector machine, with one decision function for each pair of expressions."""

    facts: dict[str, Any]
    scaling: Scaling
    support: np.ndarray  # (S, components) float32: the support vectors
    coefficients: np.ndarray  # (pairs, S) float64
    intercepts: np.ndarray  # (pairs,) float64

    @property
    def expressions(self) -> tuple[str, ...]:
        return tuple(self.facts["expressions"])

    @property
    def features(self) -> str:
        return self.facts["features"]

    @property
    def feature_provenance(self) -> dict[str, dict[str, Any]]:
        return self.facts["feature_provenance"]

    def predict(self, faces: np.ndarray, vectors: np.ndarray, augmented: bool = False) -> np.ndarray:
        """Probabilities (N, K) of the expressions, from features (N, size). The faces are ignored.

        augmented: ignored; it exists because saved networks have it.
        """
        scores = np.exp(self.scores(vectors))
        return at_temperature(scores / scores.sum(axis=1, keepdims=True), self.facts["temperature"])

    def scores(self, vectors: np.ndarray) -> np.ndarray:
        """Scores (N, K) as in scikit-learn: how many pairs an expression wins, plus up to ±1/3 for the margin."""
        decisions = self.decisions(vectors)
        votes = np.zeros((len(vectors), len(self.expressions)))
        sums = np.zeros_like(votes)
        for (first, second), decision in zip(pairs(len(self.expressions)), decisions.T, strict=True):
            votes[:, first] += decision >= 0
            votes[:, second] += decision < 0
            sums[:, first] += decision
            sums[:, second] -= decision
        return votes + sums / (3 * (np.abs(sums) + 1))

    def decisions(self, vectors: np.ndarray) -> np.ndarray:
        """Decision values (N, pairs): at least 0 for the first expression of the pair, negative for the second."""
        support, choice = self.support.astype(np.float64), self.facts["choice"]
        batches = [vectors[start : start + BATCH] for start in range(0, len(vectors), BATCH)]
        none = np.zeros((0, len(self.intercepts)))
        return np.concatenate([none, *(self._decide(batch, support, choice) for batch in batches)])

    def _decide(self, vectors: np.ndarray, support: np.ndarray, choice: dict[str, Any]) -> np.ndarray:
        inputs = self.scaling(vectors).astype(np.float64)
        kernel = inputs @ support.T
        if choice["kernel"] == "rbf":
            distances = (inputs**2).sum(axis=1)[:, None] + (support**2).sum(axis=1) - 2 * kernel  # squared
            kernel = np.exp(-choice["gamma"] * distances)
        return kernel @ self.coefficients.T + self.intercepts

    def save(self, path: Path) -> None:
        """Writes one file. NumPy can read its arrays, and any zip tool can read its facts."""
        arrays = {
            "mean": self.scaling.mean,
            "projection": self.scaling.projection,
            "support": self.support,
            "coefficients": self.coefficients,
            "intercepts": self.intercepts,
        }
        with whole_file(path) as temporary:
            with temporary.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
            with zipfile.ZipFile(temporary, "a") as archive:
                archive.writestr(FACTS, json.dumps({"format": FORMAT, **self.facts}, indent=2, ensure_ascii=False))


def pairs(classes: int) -> list[tuple[int, int]]:
    return list(itertools.combinations(range(classes), 2))


def load(path: str | Path) -> Machine:
    """The machine saved at `path`. Raises UserError when the file is missing, damaged, or not a saved machine."""
    try:
        content = io.BytesIO(read_bytes(path))
        with zipfile.ZipFile(content) as archive:
            facts = upgraded(json.loads(archive.read(FACTS)))
        if facts.get("model") != "SVM":
            raise UserError(f"{path} is a network: 'python train.py --evaluate=yes' and 'python predict.py' use it")
        if facts["format"] != FORMAT:
            raise UserError(f"{path} was saved by another version of this toolkit: train again")
        content.seek(0)
        with np.load(content, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ARRAYS}
        return checked(facts, arrays)
    except FileNotFoundError as error:
        raise UserError(
            f"no trained machine at {path}: run 'python -m experiments.train_svm', or name another --model_path"
        ) from error
    except (UserError, MemoryError):
        raise
    except Exception as error:  # a damaged archive can raise almost any error
        raise UserError(
            f"{path} is not a whole saved machine ({error}): name another with --model_path, or copy it again"
        ) from error


def checked(facts: dict[str, Any], arrays: dict[str, np.ndarray]) -> Machine:
    """The machine with these facts and arrays. Raises ValueError, TypeError or KeyError when they do not match."""
    choice, classes = Choice(**facts["choice"]), len(facts["expressions"])
    size, (support, components) = features.size(facts["features"]), arrays["support"].shape
    shapes = {
        "mean": (size,),
        "projection": (size, components),
        "support": (support, components),
        "coefficients": (len(pairs(classes)), support),
        "intercepts": (len(pairs(classes)),),
    }
    for name, shape in shapes.items():
        if arrays[name].shape != shape or arrays[name].dtype.kind != "f" or not np.isfinite(arrays[name]).all():
            raise ValueError(f"its {name} are not what its facts say")
    known = choice.landmarks in PLACES and choice.kernel in KERNELS
    if not known or not 0 < choice.gamma < np.inf or not 0 < facts["temperature"] < np.inf or classes < 2:
        raise ValueError("its facts are not of a machine")
    scaling = Scaling(facts["features"], choice.landmarks, arrays["mean"], arrays["projection"])
    return Machine(facts, scaling, arrays["support"], arrays["coefficients"], arrays["intercepts"])


def train(dataset: Dataset, settings: Svm) -> Machine:
    """A machine trained on `dataset`. Raises UserError when the dataset lacks the features or the PublicTest split."""
    dataset.check(settings.features, len(dataset.expressions))
    learn, validation = (dataset.load(split, settings.features) for split in ("Training", "PublicTest"))
    started = time.perf_counter()
    facts = {
        "model": "SVM",
        "expressions": list(dataset.expressions),
        "features": settings.features,
        "feature_provenance": dataset.feature_provenance(settings.features),
        "settings": dataclasses.asdict(settings),
        "training": {"labels": dataset.label_source},
        "temperature": 1.0,
    }
    trials = choose(learn, validation, facts, settings)
    choice = max(trials, key=trials.__getitem__)
    print(
        f"Training an SVM on {len(learn)} faces of {len(dataset.expressions)} expressions, features: "
        f"{settings.features}; {describe(choice)}",
        flush=True,
    )
    scaling = scaling_of(learn, choice, settings)
    machine = fit(learn, scaling, choice, facts)
    probabilities = machine.predict(validation.images, validation.features)
    facts = {
        **machine.facts,
        "temperature": best_temperature(probabilities, validation.labels),
        "trials": [{**dataclasses.asdict(tried), "validation_accuracy": reached} for tried, reached in trials.items()],
        "validation_accuracy": float((probabilities.argmax(axis=1) == validation.labels).mean()),
        "support_vectors": len(machine.support),
        "seconds": time.perf_counter() - started,
        "dataset": dataset.facts,
        **made_with("scikit-learn", "numpy"),
    }
    return dataclasses.replace(machine, facts=facts)


def choose(learn: Split, validation: Split, facts: dict[str, Any], settings: Svm) -> dict[Choice, float]:
    """The accuracy on `validation` of each candidate after training with `settings.trial_faces` faces.

    Raises UserError when these faces lack one of the expressions.
    """
    rows = np.random.default_rng(settings.seed).permutation(len(learn))[: settings.trial_faces]
    few = Split(learn.images[rows], learn.features[rows], learn.labels[rows])
    missing = set(range(len(facts["expressions"]))) - set(few.labels.tolist())
    if missing:
        names = ", ".join(facts["expressions"][label] for label in sorted(missing))
        raise UserError(f"no face among {len(few)} to learn {names} from: use more, see --trial_faces")
    candidates = all_choices(settings)
    different = {(choice.landmarks, choice.hog_weight): choice for choice in candidates}
    scalings = {
        place: scaling_of(few, choice, settings)
        for place, choice in tqdm(different.items(), desc="Scaling", unit="scaling", leave=False)
    }

    def reached(choice: Choice) -> float:
        machine = fit(few, scalings[choice.landmarks, choice.hog_weight], choice, facts)
        return float((machine.scores(validation.features).argmax(axis=1) == validation.labels).mean())

    # Threads are enough, because scikit-learn's solver releases Python's global interpreter lock.
    with ThreadPoolExecutor(min(os.cpu_count() or 1, MACHINES_AT_ONCE)) as pool:
        results = tqdm(pool.map(reached, candidates), desc="Choosing", total=len(candidates), unit="machine")
        return dict(zip(candidates, results, strict=True))


def scaling_of(faces: Split, choice: Choice, settings: Svm) -> Scaling:
    return Scaling.of(faces.features, settings.features, choice.landmarks, choice.hog_weight, settings.components)


def all_choices(settings: Svm) -> list[Choice]:
    """All combinations of the settings that make a difference.

    Landmarks alone need no weight beside them, other features no place of the landmarks, and a linear kernel no gamma.
    """
    parts = features.parts_of(settings.features)
    places = settings.landmarks if "landmarks" in parts else settings.landmarks[:1]
    weights = (1.0,) if parts.keys() == {"landmarks"} else settings.hog_weights
    combinations = itertools.product(places, weights, settings.kernels, settings.penalties, settings.gammas)
    return list(
        dict.fromkeys(
            Choice(landmarks, weight, kernel, penalty, gamma if kernel == "rbf" else 1.0)
            for landmarks, weight, kernel, penalty, gamma in combinations
        )
    )


def describe(choice: Choice) -> str:
    gamma = f", gamma {choice.gamma:g}" if choice.kernel == "rbf" else ""
    scaling = f"landmarks in the {choice.landmarks}, weight of the others {choice.hog_weight:g}"
    return f"{scaling}, {choice.kernel} kernel, C {choice.penalty:g}{gamma}"


def fit(faces: Split, scaling: Scaling, choice: Choice, facts: dict[str, Any]) -> Machine:
    """A machine trained on `faces`, which must contain all expressions."""
    inputs = scaling(faces.features)
    solved = solve(inputs, faces.labels, choice)
    coefficients, intercepts = of_pairs(solved)
    return Machine(
        {**facts, "choice": dataclasses.asdict(choice)}, scaling, inputs[solved.support_], coefficients, intercepts
    )


def solve(inputs: np.ndarray, labels: np.ndarray, choice: Choice) -> "SVC":
    """scikit-learn's machine, trained on inputs (N, components) and labels (N,)."""
    from sklearn.svm import SVC

    machine = SVC(C=choice.penalty, kernel=choice.kernel, gamma=choice.gamma, cache_size=500, break_ties=True)
    return machine.fit(inputs.astype(np.float64), labels)


def of_pairs(machine: "SVC") -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (pairs, S) and intercepts (pairs,) for each pair, from a machine of scikit-learn.

    In scikit-learn's dual_coef_, row j has the coefficients of expression i's support vectors against expression j. If
    j is greater than i, it is row j - 1.
    """
    ends = np.cumsum(machine.n_support_)
    of = [slice(end - count, end) for end, count in zip(ends, machine.n_support_, strict=True)]
    coefficients = np.zeros((len(pairs(len(of))), len(machine.support_)))
    for pair, (first, second) in enumerate(pairs(len(of))):
        coefficients[pair, of[first]] = machine.dual_coef_[second - 1, of[first]]
        coefficients[pair, of[second]] = machine.dual_coef_[first, of[second]]
    sign = -1 if len(of) == 2 else 1  # for two classes, scikit-learn reverses the sign
    return sign * coefficients, sign * machine.intercept_
