"""Every setting of the toolkit. Edit the values here, or override one for a single run with a flag.

Each script's `--help` lists the flags it takes; most are named after the setting they override:
`python train.py --train=yes --model=A --epochs=5`.
"""

from dataclasses import dataclass, field
from typing import Any

EMOTIONS = ("Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise", "Neutral")  # FER2013's labels 0 to 6
SPLITS = ("Training", "PublicTest", "PrivateTest")  # learn, choose, report
FEATURES = ("none", "landmarks", "landmarks_hog", "landmarks_hog_windows")  # what joins the pixels
MODELS = ("A", "B", "C")
PUBLISHED_MODELS = ("A", "B")  # the other has no settings but OWN_SETTINGS
SETTINGS = ("published", "ours", "taught")
OPTIMIZERS = ("momentum", "nesterov", "adam", "rmsprop", "adagrad", "adadelta")
SCHEDULES = ("exponential", "cosine")
DETECTORS = ("blazeface", "haar")
SHIPPED_MODEL = "pretrained/saved_model.bin"  # beside the code
SHAPE_PREDICTOR = "shape_predictor_68_face_landmarks.dat"
IMAGE_SIZE = 48  # a face is IMAGE_SIZE × IMAGE_SIZE grey pixels


def setting(default: Any, explanation: str, choices: tuple[str, ...] | None = None) -> Any:
    """A dataclass field whose explanation and choices also serve the flag that overrides it."""
    return field(default=default, metadata={"help": explanation, "choices": choices})


@dataclass(frozen=True)
class Dataset:
    """Where FER2013 is, and where its converted form goes."""

    input: str = setting("fer2013.csv", "FER2013: a csv (also .gz, .bz2, .xz, .zip, .tar.gz) or a folder of pictures")
    folder: str = setting("fer2013_features", "the converted dataset's folder")
    shape_predictor_path: str = setting(
        SHAPE_PREDICTOR, "dlib's 68 landmark predictor; of this name, when absent, the installed package's"
    )


@dataclass(frozen=True)
class Network:
    """Which network, and what it is given."""

    model: str = setting("B", "the architecture", choices=MODELS)
    features: str = setting("landmarks_hog_windows", "what the network is given besides the pixels", choices=FEATURES)
    output_size: int = setting(7, "number of expressions; must be the dataset's")
    standardize: bool = setting(False, "inputs brought to mean 0 and deviation 1, inside the network")
    batch_norm_conv: bool = setting(True, "batch normalization after each convolution")
    batch_norm_fc: bool = setting(False, "batch normalization after each fully connected layer")


@dataclass(frozen=True)
class Hyperparams:
    """How the weights are learned. The values are those of the published experiments."""

    optimizer: str = setting("momentum", "the optimizer", choices=OPTIMIZERS)
    optimizer_param: float = setting(0.95, "momentum; adam's beta1; rmsprop's decay; adadelta's rho; adagrad has none")
    learning_rate: float = setting(0.016, "the highest learning rate: of the first step, or of the first after warm-up")
    schedule: str = setting("exponential", "how the learning rate falls; cosine: to 0 at the end", choices=SCHEDULES)
    learning_rate_decay: float = setting(0.864, "exponential: the rate is multiplied by this every decay_step steps")
    decay_step: int = setting(50, "exponential: steps between two decays of the learning rate")
    warmup_steps: int = setting(0, "steps in which the learning rate rises from 0 first")
    keep_prob: float = setting(0.956, "share of activations that dropout keeps")
    weight_decay: float = setting(0.0, "the loss grows by half of this times the sum of the kernels' squares")
    label_smoothing: float = setting(0.0, "share of a label that is spread evenly over all expressions")
    teacher: str = setting(SHIPPED_MODEL, "a saved model that the network may learn from")
    teacher_share: float = setting(0.0, "share of a label that is the teacher's probabilities of the face; 0: none")
    mixup: float = setting(0.0, "faces are mixed in pairs, with a share drawn from Beta(mixup, mixup); 0: none")
    weight_averaging: float = setting(0.0, "decay of the moving average of the weights, which is kept; 0: none")
    batch_size: int = setting(128, "images in a training step")


@dataclass(frozen=True)
class Augmentation:
    """How each face is changed at random, anew in every epoch; the published experiments did not."""

    flip: bool = setting(False, "mirror every other face")
    shift: float = setting(0.0, "move by up to this share of the side")
    zoom: float = setting(0.0, "enlarge or shrink by up to this share")
    rotation: float = setting(0.0, "turn by up to so many degrees")
    contrast: float = setting(0.0, "scale the grey values around their mean by up to this share")
    brightness: float = setting(0.0, "add up to this share of white")
    erasing: float = setting(0.0, "with this probability, a rectangle of 2% to 20% becomes noise")


@dataclass(frozen=True)
class Training:
    """How long to train, and what is kept."""

    settings: str = setting(
        "published", "whose settings; ours: OWN_SETTINGS of the model; taught: TAUGHT_SETTINGS too", choices=SETTINGS
    )
    epochs: int = setting(13, "passes over the training set")
    seed: int = setting(0, "makes a run repeatable")
    bfloat16: str = setting("auto", "bf16 arithmetic; auto: where the CPU has it", choices=("auto", "yes", "no"))
    save_model: bool = setting(True, "keep the best epoch's model")
    save_model_path: str = setting("best_model/saved_model.bin", "the saved model")
    quantize: bool = setting(False, "save 8-bit weights: a quarter of the size, faster on one face")
    checkpoint_folder: str = setting("checkpoints", "what --resume=yes goes on from")
    logs_folder: str = setting("logs", "TensorBoard logs")


@dataclass(frozen=True)
class Svm:
    """The support vector machine that the networks are compared with. Of several values PublicTest chooses one."""

    features: str = setting("landmarks_hog_windows", "what it is given, without the pixels", choices=FEATURES[1:])
    components: int = setting(300, "principal components of the features that are kept, at most")
    trial_faces: int = setting(12000, "training faces that scaling, kernel and parameters are chosen with")
    seed: int = setting(0, "which training faces those are")
    save_model_path: str = setting("best_svm/svm.npz", "the saved machine")
    landmarks: tuple[str, ...] = ("crop", "face")  # as they are; or moved, turned and scaled to the face itself
    hog_weights: tuple[float, ...] = (0.5, 1.0, 3.0)  # variance of all of the HOG, that of the landmarks being 1
    kernels: tuple[str, ...] = ("linear", "rbf")
    penalties: tuple[float, ...] = (1.0, 3.0, 10.0)  # the machine's C
    gammas: tuple[float, ...] = (0.1, 0.3)  # of the rbf kernel


@dataclass(frozen=True)
class VideoPredictor:
    """How faces are found, cropped and named in photographs and video."""

    emotions: tuple[str, ...] = setting(EMOTIONS, "names of the expressions, in the order of the dataset's labels")
    detector: str = setting("blazeface", "what finds the faces", choices=DETECTORS)
    detection_confidence: float = setting(0.6, "BlazeFace leaves out faces it is less sure of, 0 to 1")
    small_faces: bool = setting(True, "in photographs, seek faces of 2% to 4% of the longer side too; slower")
    margin: float = setting(0.0, "widens the crop around a face by this share of its side")
    test_time_augmentation: bool = setting(
        False, "average over six views of each face, enlarged, shrunk, mirrored; slower"
    )
    show_confidence: bool = setting(True, "write the confidence beside the expression")
    camera_source: int = setting(0, "number of the camera")
    small_faces_in_video: bool = setting(False, "in video, seek such small faces too; some six times slower")
    smoothing: float = setting(0.5, "seconds by which what a face showed has faded to a third; 0: only what it shows")
    lost_face: float = setting(0.5, "seconds for which a face that is not seen keeps its identity")
    window: bool = setting(True, "show the video in a window")
    show_chart: bool = setting(False, "draw the probabilities of all expressions beside each face")
    show_frame_rate: bool = setting(False, "write the frames per second into the corner")
    snapshot_folder: str = setting("snapshots", "where the key 's' saves what the window shows")


@dataclass(frozen=True)
class Optimizer:
    """The hyperparameter search: its space, from the lowest value to the highest, and how it goes."""

    learning_rate: tuple[float, float] = (1e-5, 0.1)  # on a logarithmic scale
    learning_rate_decay: tuple[float, float] = (0.5, 0.99)
    optimizer: tuple[str, ...] = ()  # to choose from; without, the one that each trial's settings have
    optimizer_param: tuple[float, float] = (0.5, 0.99)
    keep_prob: tuple[float, float] = (0.7, 0.99)
    max_evals: int = setting(20, "trials in all, with those of earlier calls")
    random_trials: int = setting(8, "trials with random parameters, before there is something to learn from")
    samples: int = setting(0, "faces that a trial trains on, drawn from the training set; 0: all")
    stop_early: bool = setting(False, "stop a trial that is worse than half of the others after as many epochs")
    search_folder: str = setting("search", "where each search has its folder")
    heartbeat: float = setting(
        60.0, "seconds of silence after which a worker is taken for dead, and its trial redone; stays a search's first"
    )


DATASET = Dataset()
NETWORK = Network()
HYPERPARAMS = Hyperparams()
AUGMENTATION = Augmentation()
TRAINING = Training()
SVM = Svm()
VIDEO_PREDICTOR = VideoPredictor()
OPTIMIZER = Optimizer()

A_AND_B = {  # one recipe for all inputs, so that these are compared and not the tuning
    "standardize": True,
    "optimizer": "adam",
    "optimizer_param": 0.9,
    "learning_rate": 0.001,
    "schedule": "cosine",
    "warmup_steps": 189,
    "keep_prob": 0.5,
    "label_smoothing": 0.1,
    "flip": True,
    "shift": 0.1,
    "zoom": 0.12,
    "rotation": 12.0,
    "epochs": 30,
}

# What a model takes in place of the settings above: C always, A and B with settings="ours" and "taught". Flags win.
OWN_SETTINGS: dict[str, dict[str, Any]] = {
    "A": A_AND_B,
    "B": A_AND_B,
    "C": {
        "settings": "ours",
        "features": "none",
        "standardize": True,
        "optimizer": "nesterov",
        "optimizer_param": 0.9,
        "learning_rate": 0.05,
        "schedule": "cosine",
        "warmup_steps": 448,
        "keep_prob": 0.5,
        "weight_decay": 5e-4,
        "label_smoothing": 0.1,
        "weight_averaging": 0.999,
        "batch_size": 64,
        "flip": True,
        "shift": 0.1,
        "zoom": 0.15,
        "rotation": 15.0,
        "contrast": 0.3,
        "brightness": 0.1,
        "erasing": 0.5,
        "epochs": 64,
        "quantize": True,
    },
}

# What A and B take besides with settings="taught", to learn from the shipped model.
TAUGHT_SETTINGS: dict[str, Any] = {"teacher_share": 0.7, "keep_prob": 0.6}
