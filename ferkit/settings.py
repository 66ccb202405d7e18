"""Every setting of the toolkit: its name, type, default, meaning, choices and range.

Users edit the values in parameters.py; the defaults here are the same. The library never reads parameters.py. The
scripts pass its values to the library.

    settings = Hyperparams(learning_rate=0.01)
    check(settings)  # raises UserError for a value outside its range
"""

import dataclasses
import json
import math
import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ferkit.constants import EMOTIONS, SHAPE_PREDICTOR, TEACHER
from ferkit.errors import UserError
from ferkit.files import read_text

SOURCES_OF_SETTINGS = ("published", "ours", "taught")
STOP_RULES = ("no", "median", "halving")  # which trials of a search are stopped early
LABELS = ("fer2013", "ferplus", "ferplus8")  # FER2013's own; FER+'s votes; these with an eighth expression, Contempt
OPTIMIZERS = ("momentum", "nesterov", "adam", "rmsprop", "adagrad", "adadelta")
SCHEDULES = ("exponential", "cosine")
ENGINES = ("tensorflow", "pytorch")

# Names of settings and facts in files of earlier versions, with their present names.
RENAMED = {"weight_averaging": "ema_decay", "recipes": "feature_provenance"}
# Settings that earlier trainings, searches and rows did not have, with the values that correspond to those, by group.
ADDED: dict[str, dict[str, Any]] = {
    "hyperparams": {"teacher_share": 0.0, "logit_adjustment": 0.0, "fer2013_share": 0.0, "body_rate": 1.0},
    "augmentation": {"blur": 0.0, "jpeg": 0.0, "darkness": 0.0},
    "training": {"quantize": False, "bfloat16": "auto", "labels": "fer2013", "engine": "tensorflow"},
}

Settings = TypeVar("Settings")
Choices = tuple[str, ...] | Callable[[], Iterable[str]]

KINDS: dict[Any, str] = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
TUPLES: dict[Any, str] = {float: "(0.5, 1.0)", str: "('first', 'second')"}


@dataclass(frozen=True)
class Range:
    """The values from `low` to `high`. A bound that is `open` is excluded."""

    low: float
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False
    unit: str = ""

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open or math.isinf(self.high) else value <= self.high
        return above and below

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        if math.isinf(self.high):
            return f"above {self.low:g}{unit}" if self.low_open else f"{self.low:g} or more{unit}"
        if not self.low_open and not self.high_open:
            return f"from {self.low:g} to {self.high:g}{unit}"
        if self.low_open and self.high_open:
            return f"between {self.low:g} and {self.high:g}{unit}"
        low = f"above {self.low:g}" if self.low_open else f"{self.low:g} or more"
        high = {2**31: "2³¹"}.get(int(self.high), f"{self.high:g}")
        return f"{low}, below {high}" if self.high_open else f"{low}, at most {high}"


def above(low: float, at_most: float = math.inf) -> Range:
    return Range(low, at_most, low_open=True)


def at_least(low: float, below: float = math.inf) -> Range:
    return Range(low, below, high_open=True)


def setting(
    default: Any,
    help: str,
    *,
    choices: Choices | None = None,
    range: Range | None = None,
    flags: tuple[str, ...] = (),
    former: Mapping[str, str] | None = None,
) -> Any:
    """A field of a dataclass of settings, with the data for its flag and its checks.

    choices: the allowed texts, or a function that lists them. range: the allowed numbers. flags: the names of its flag,
    if the field's own name is not the first or not the only one. former: what a flag that once took yes or no means.
    """
    data = {"help": help, "choices": choices, "range": range, "flags": flags, "former": former}
    return field(default=default, metadata=data)


class Joinable(tuple[str, ...]):
    """Choices that can also be joined by a plus: `landmarks+lbp`. "none" stands alone."""

    def __contains__(self, value: object) -> bool:
        names = str(value).split("+")
        return all(tuple.__contains__(self, name) for name in names) and (len(names) == 1 or "none" not in names)


def _features() -> Iterable[str]:
    from ferkit.features import FEATURES  # imported here, because parameters.py must work without NumPy

    return Joinable(FEATURES)


def _features_without_pixels() -> Iterable[str]:
    return Joinable(name for name in _features() if name != "none")


def _detectors() -> Iterable[str]:
    from ferkit.vision.detection import DETECTORS

    return DETECTORS


# --- the settings ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DatasetPaths:
    """The paths of FER2013 and of the converted dataset."""

    input: str = setting("fer2013.csv", "FER2013: a csv, also compressed or in an archive, or a folder of pictures")
    folder: str = setting("fer2013_features", "the folder of the converted dataset")
    shape_predictor_path: str = setting(
        SHAPE_PREDICTOR, "dlib's 68 landmark predictor; the installed one is used when no file of this name is here"
    )


@dataclass(frozen=True)
class Network:
    """Which network is trained, and on what input."""

    model: str = setting(
        "B", "the architecture; C and D have settings of their own, so that other defaults apply"
    )  # the choices are the names in model.py's ARCHITECTURES
    features: str = setting(
        "landmarks_hog_windows",
        "what the network is given besides the pixels, one or several joined by +; none: the pixels alone",
        choices=_features,
    )
    output_size: int = setting(7, "number of expressions; must be the dataset's", range=at_least(2))
    standardize: bool = setting(False, "bring the inputs to mean 0 and deviation 1, inside the network")
    batch_norm_conv: bool = setting(True, "batch normalization after each convolution")
    batch_norm_fc: bool = setting(False, "batch normalization after each fully connected layer")


@dataclass(frozen=True)
class Hyperparams:
    """How the weights are learned. The defaults are those of the published experiments."""

    optimizer: str = setting("momentum", "the optimizer", choices=OPTIMIZERS)
    optimizer_param: float = setting(
        0.95,
        "momentum of momentum and nesterov, beta1 of adam, decay of rmsprop, rho of adadelta; adagrad has none",
        range=at_least(0, 1),
    )
    learning_rate: float = setting(0.016, "the highest learning rate, reached after the warm-up", range=above(0))
    schedule: str = setting(
        "exponential", "how the learning rate falls; cosine: to 0 at the end of the training", choices=SCHEDULES
    )
    learning_rate_decay: float = setting(
        0.864, "exponential: the rate is multiplied by this every decay_step steps", range=above(0, 1)
    )
    decay_step: int = setting(50, "exponential: steps between two decays of the learning rate", range=at_least(1))
    warmup_steps: int = setting(0, "steps in which the learning rate first rises from 0", range=at_least(0))
    keep_prob: float = setting(0.956, "share of activations that dropout keeps", range=above(0, 1))
    weight_decay: float = setting(
        0.0, "L2: the loss grows by half of this times the sum of the kernels' squares", range=at_least(0)
    )
    label_smoothing: float = setting(
        0.0, "share of a label that is spread evenly over all expressions", range=at_least(0, 1)
    )
    teacher: str = setting(
        TEACHER,
        "knowledge distillation: a saved model to learn from, or several: ferplus+x.bin",
    )
    teacher_share: float = setting(
        0.0, "knowledge distillation: share of a label that is the teacher's probabilities; 0: none", range=Range(0, 1)
    )
    mixup: float = setting(
        0.0, "mix faces in pairs, with a share drawn from Beta(mixup, mixup); 0: none", range=at_least(0)
    )
    ema_decay: float = setting(
        0.0,
        "decay of the exponential moving average (EMA) of the weights, which is then validated and saved; 0: none",
        range=at_least(0, 1),
        flags=("ema_decay", "weight_averaging"),
    )
    logit_adjustment: float = setting(
        0.0,
        "share of the logarithm of an expression's frequency that is added to its output while learning, so that rare "
        "expressions are not neglected; 0: none",
        range=Range(0, 2),
    )
    fer2013_share: float = setting(
        0.0, "with labels=ferplus: share of FER2013's own label in what is learned of a face", range=Range(0, 1)
    )
    batch_size: int = setting(128, "images in a training step", range=at_least(2))
    body_rate: float = setting(
        1.0,
        "the layers before the last one learn at this share of the learning rate; 0: they stay as they are",
        range=Range(0, 1),
    )


@dataclass(frozen=True)
class Augmentation:
    """How each face is changed at random in every epoch. The published experiments had no augmentation."""

    flip: bool = setting(False, "mirror each face with a probability of one half")
    shift: float = setting(0.0, "move by up to this share of the side", range=Range(0, 0.5))
    zoom: float = setting(0.0, "enlarge or shrink by up to this share", range=Range(0, 1))
    rotation: float = setting(0.0, "turn by up to so many degrees", range=Range(0, 180))
    contrast: float = setting(0.0, "scale the grey values around their mean by up to this share", range=Range(0, 1))
    brightness: float = setting(0.0, "add up to this share of white", range=Range(0, 1))
    blur: float = setting(
        0.0, "probability that a face is shrunk, to a quarter at most, and enlarged again", range=Range(0, 1)
    )
    jpeg: float = setting(0.0, "probability that a face is compressed as JPEG, poorly at worst", range=Range(0, 1))
    darkness: float = setting(
        0.0, "probability that a face is darkened, to a tenth of its brightness at most", range=Range(0, 1)
    )
    erasing: float = setting(
        0.0, "probability that a rectangle of 2% to 20% of the face is replaced by noise", range=Range(0, 1)
    )


@dataclass(frozen=True)
class Training:
    """How long the training takes, and what it saves."""

    settings: str = setting(
        "published",
        "published: parameters.py as it is; ours: also OWN_SETTINGS of the model; taught: also TAUGHT_SETTINGS "
        "(knowledge distillation)",
        choices=SOURCES_OF_SETTINGS,
    )
    labels: str = setting(
        "fer2013",
        "whose labels are learned and evaluated; ferplus: the votes of FER+; ferplus8: these, with Contempt",
        choices=LABELS,
    )
    engine: str = setting(
        "tensorflow", "what computes the training; pytorch: on a GPU if there is one", choices=ENGINES
    )
    epochs: int = setting(13, "passes over the training set", range=at_least(1))
    seed: int = setting(0, "seed of all random numbers; the same seed repeats a training", range=at_least(0, 2**31))
    bfloat16: str = setting(
        "auto",
        "compute in bf16; auto: on a CPU that supports it, with PyTorch on a GPU too",
        choices=("auto", "yes", "no"),
    )
    save_model: bool = setting(True, "keep the model of the best epoch")
    save_model_path: str = setting(
        "best_model/saved_model.bin", "the saved model", flags=("model_path", "save_model_path")
    )
    balance: float = setting(
        0.0,
        "share of the logarithm of an expression's frequency that is taken out of the answers of the saved model, so "
        "that it names rare expressions more often; 0: none",
        range=Range(0, 1),
    )
    quantize: bool = setting(False, "save 8-bit weights: a quarter of the size, faster on one face")
    checkpoint_folder: str = setting("checkpoints", "folder of the checkpoints, for --resume=yes")
    logs_folder: str = setting("logs", "folder for history.csv, the learning curve and TensorBoard logs")


@dataclass(frozen=True)
class Svm:
    """The support vector machine for comparison with the networks. PublicTest chooses among several values."""

    features: str = setting(
        "landmarks_hog_windows",
        "what it is given, without the pixels; one or several joined by +",
        choices=_features_without_pixels,
    )
    components: int = setting(300, "principal components of the features that are kept, at most", range=at_least(1))
    trial_faces: int = setting(
        12000, "number of training faces used to choose scaling, kernel and parameters", range=at_least(1)
    )
    seed: int = setting(0, "chooses these training faces", range=at_least(0, 2**31))
    save_model_path: str = setting("best_svm/svm.npz", "the saved machine", flags=("model_path", "save_model_path"))
    landmarks: tuple[str, ...] = setting(
        ("crop", "face"), "as they are; or moved, turned and scaled to the face itself", choices=("crop", "face")
    )
    hog_weights: tuple[float, ...] = setting(
        (0.5, 1.0, 3.0), "variance of all of the HOG, that of the landmarks being 1", range=above(0)
    )
    kernels: tuple[str, ...] = setting(("linear", "rbf"), "the kernel", choices=("linear", "rbf"))
    penalties: tuple[float, ...] = setting((1.0, 3.0, 10.0), "the machine's C", range=above(0))
    gammas: tuple[float, ...] = setting((0.1, 0.3), "gamma of the rbf kernel", range=above(0))


@dataclass(frozen=True)
class VideoPredictor:
    """How faces are found, cropped and named in photographs and video."""

    emotions: tuple[str, ...] = setting(
        EMOTIONS, "names to show for the expressions, in the order of the model; FER2013's: the model's own"
    )
    detector: str = setting("auto", "what finds the faces; none: the whole picture is a face", choices=_detectors)
    detector_model: str = setting("", "the file of YuNet's network, for the detector yunet")
    detection_confidence: float = setting(
        0.6, "leave out faces with a lower score", range=Range(0, 1, low_open=True, high_open=True)
    )
    smallest_face: int = setting(0, "leave out faces that are narrower, in pixels", range=at_least(0))
    most_faces: int = setting(0, "recognize only the largest faces, at most this many; 0: all", range=at_least(0))
    small_faces: bool = setting(
        True, "in pictures, also find small and covered faces, from 2% of the longer side; slower"
    )
    margin: float = setting(0.0, "enlarge the crop around a face by this share of its side", range=Range(0, 2))
    test_time_augmentation: bool = setting(
        False, "average over six views of each face, enlarged, shrunk, mirrored; slower"
    )
    balance: float = setting(
        1.0,
        "how far the expressions' frequencies in training are taken out of the answers; 1: as if all were equally "
        "likely, 0: as in training",
        range=Range(0, 2),
    )
    show_confidence: bool = setting(True, "write the confidence beside the expression")
    camera_source: int = setting(0, "number of the camera")
    small_faces_in_video: bool = setting(
        False, "in video, also find small and covered faces, from 2% of the longer side; several times slower"
    )
    smoothing: float = setting(
        0.5,
        "seconds after which an old frame counts a third of a new one; 0: only the newest frame counts",
        range=Range(0, 60, unit="seconds"),
    )
    lost_face: float = setting(
        0.5, "seconds after which a face that is not found loses its number", range=Range(0, 60, unit="seconds")
    )
    every: int = setting(1, "recognize the faces of every N-th frame only", range=at_least(1))
    empty_frames: bool = setting(False, "give frames without a face a row in --log too")
    window: bool = setting(True, "show the video in a window")
    show_chart: bool = setting(False, "draw the probabilities of all expressions beside each face")
    show_frame_rate: bool = setting(False, "write the frames per second into the corner")
    snapshot_folder: str = setting("snapshots", "where the key 's' saves what the window shows")


# The fields of VideoPredictor that decide which faces of a photograph are prepared for training, and how.
PREPARING = ("detector", "detector_model", "detection_confidence", "small_faces", "smallest_face", "margin")

DAY = 86_400  # seconds


@dataclass(frozen=True)
class Optimizer:
    """The hyperparameter search: its space, as lowest and highest values, and its course."""

    learning_rate: tuple[float, ...] = setting((1e-5, 0.1), "bounds, on a logarithmic scale")
    learning_rate_decay: tuple[float, ...] = setting((0.5, 0.99), "bounds")
    optimizer: tuple[str, ...] = setting((), "to choose from; without, the one that the settings of each trial have")
    optimizer_param: tuple[float, ...] = setting((0.5, 0.99), "bounds")
    keep_prob: tuple[float, ...] = setting((0.7, 0.99), "bounds")
    max_evals: int = setting(20, "trials in all, with those of earlier calls", range=at_least(1))
    random_trials: int = setting(
        8, "trials with random parameters, before there is something to learn from", range=at_least(1)
    )
    samples: int = setting(0, "faces that a trial trains on, drawn from the training set; 0: all", range=at_least(0))
    stop_early: str = setting(
        "no",
        "which trials are stopped; median: those worse than half of the others after as many epochs; halving: after 1, "
        "3, 9, … epochs, all but the best third; yes: median",
        choices=STOP_RULES,
        former={"yes": "median", "true": "median", "no": "no", "false": "no"},
    )
    search_folder: str = setting("search", "where each search has its folder")
    heartbeat: float = setting(
        60.0,
        "seconds of silence after which a worker counts as dead and its trial is repeated; the first start of a search "
        "fixes it",
        range=Range(1, DAY),
    )


class Parameters(Protocol):
    """The names that parameters.py defines. The scripts pass the module where several of its values are needed."""

    DATASET: DatasetPaths
    NETWORK: Network
    HYPERPARAMS: Hyperparams
    AUGMENTATION: Augmentation
    TRAINING: Training
    SVM: Svm
    VIDEO_PREDICTOR: VideoPredictor
    OPTIMIZER: Optimizer
    OWN_SETTINGS: dict[str, dict[str, Any]]
    TAUGHT_SETTINGS: dict[str, Any]
    FINE_TUNING: dict[str, Any]


# --- checks ----------------------------------------------------------------------------------------------------------


def check(*groups: Any) -> None:
    """Raises UserError for the first value of the wrong type, outside its range, or not one of its choices."""
    for settings in groups:
        for item in dataclasses.fields(settings):
            value, allowed = getattr(settings, item.name), wanted(item)
            values = value if isinstance(value, tuple) else (value,)
            if needed := type_wanted(item, value):
                raise UserError(f"{item.name} is {value!r}: it must be {needed}")
            if allowed is not None and not (values and all(_is_allowed(one, item) for one in values)):
                raise UserError(f"{item.name} is {value}: it must be {allowed}")


def _is_allowed(value: Any, item: dataclasses.Field[Any]) -> bool:
    choices, range = choices_of(item), item.metadata.get("range")
    return (choices is None or value in choices) and (range is None or value in range)


def wanted(item: dataclasses.Field[Any]) -> str | None:
    """The values that a field allows, in words; None if it allows any value of its type."""
    choices, range = choices_of(item), item.metadata.get("range")
    several = typing.get_origin(item.type) is tuple
    if choices is not None:
        return f"one {'or more ' if several else ''}of {', '.join(choices)}"
    if range is not None:
        return f"one or more numbers {range}" if several else str(range)
    return None


def choices_of(item: dataclasses.Field[Any]) -> tuple[str, ...] | None:
    """The choices of a field; None if it has none."""
    choices = item.metadata.get("choices")
    if choices is None:
        return None
    found = choices() if callable(choices) else choices
    return found if isinstance(found, tuple) else tuple(found)


def check_types(settings: Any) -> None:
    """Raises UserError when a value of `settings`, as edited in parameters.py, does not have the type of its field."""
    if not dataclasses.is_dataclass(settings):
        raise UserError(f"parameters.py has {settings!r} where settings belong, such as Network(model='B')")
    for item in dataclasses.fields(settings):
        value, choices = getattr(settings, item.name), choices_of(item)
        needed = type_wanted(item, value)
        if not needed and choices and not isinstance(value, tuple) and value not in choices:
            needed = wanted(item)
        if needed:
            raise UserError(f"parameters.py sets {item.name} to {value!r}: it must be {needed}")


def type_wanted(item: dataclasses.Field[Any], value: Any) -> str | None:
    """The type of a field in words, if `value` does not have it; else None."""
    if typing.get_origin(item.type) is tuple:
        kind = typing.get_args(item.type)[0]
        fits = isinstance(value, tuple) and all(_fits(one, kind) for one in value)
        return None if fits else f"a tuple, like {TUPLES[kind]}"
    return None if _fits(value, item.type) else KINDS[item.type]


def _fits(value: Any, kind: Any) -> bool:
    is_integer_for_float = kind is float and type(value) is int and abs(value) <= sys.float_info.max
    return type(value) is kind or is_integer_for_float


# --- values from files -----------------------------------------------------------------------------------------------


def read_settings(settings: Settings, path: str | Path) -> Settings:
    """`settings` with the values from the JSON file at `path`. Raises UserError for a file that does not fit."""
    try:
        values = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f'{path} is no JSON ({error}): it must look like {{"learning_rate": 0.01}}') from error
    if not isinstance(values, dict):
        raise UserError(f'{path} is no JSON object: it must look like {{"learning_rate": 0.01}}')
    return with_values(settings, values, str(path))


def with_values(settings: Settings, values: Mapping[str, Any], source: str) -> Settings:
    """`settings` with the `values` of `source`. Raises UserError for a name or a value that is not allowed."""
    fields = {item.name: item for item in dataclasses.fields(settings)}  # type: ignore[arg-type]
    fitting: dict[str, Any] = {}
    if twice := [old for old, new in RENAMED.items() if old in values and new in values]:
        raise UserError(f"{source} sets {RENAMED[twice[0]]} twice, once by its old name {twice[0]}: leave one out")
    for name, value in renamed(values).items():
        if name not in fields:
            raise UserError(f"{source} sets '{name}', which does not exist: it can set {', '.join(fields)}")
        kind = fields[name].type
        if not _fits(value, kind):
            raise UserError(f"{source} sets {name} to {json.dumps(value, default=repr)}: it must be {KINDS[kind]}")
        fitting[name] = kind(value)  # type: ignore[operator]
        if not _is_allowed(value, fields[name]):
            raise UserError(f"{source} sets {name} to {value!r}: it must be {wanted(fields[name])}")
    return dataclasses.replace(settings, **fitting)  # type: ignore[type-var]


def with_added(groups: Mapping[str, Any]) -> dict[str, Any]:
    """Groups of settings, as an earlier version may have written them, with the settings that were added since."""
    return {group: {**ADDED.get(group, {}), **values} if group in ADDED else values for group, values in groups.items()}


def renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with the present names of the settings."""
    return {RENAMED.get(name, name): value for name, value in values.items()}


def upgraded(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a file, with present names even if an earlier version wrote it; includes the groups of settings."""
    return {name: renamed(value) if isinstance(value, dict) else value for name, value in renamed(facts).items()}
