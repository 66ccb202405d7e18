"""The values of all settings. Edit them here, or override one for a single run with a flag of the same name:

    python train.py --train=yes --model=A --epochs=5

`--help` of each script and ferkit/settings.py explain each setting and its allowed values.
"""

from typing import Any

from ferkit.constants import EMOTIONS, SHAPE_PREDICTOR, TEACHER
from ferkit.settings import (
    Augmentation,
    DatasetPaths,
    Hyperparams,
    Network,
    Optimizer,
    Svm,
    Training,
    VideoPredictor,
)

DATASET = DatasetPaths(
    input="fer2013.csv",
    folder="fer2013_features",
    shape_predictor_path=SHAPE_PREDICTOR,  # if there is no such file, the installed one
)

NETWORK = Network(
    model="B",  # A, B, C or D: see model.py
    features="landmarks_hog_windows",  # or none, landmarks, landmarks+lbp, …: see docs/train.md
    output_size=7,  # number of expressions
    standardize=False,
    batch_norm_conv=True,
    batch_norm_fc=False,
)

HYPERPARAMS = Hyperparams(  # those of the published experiments
    optimizer="momentum",
    optimizer_param=0.95,
    learning_rate=0.016,
    schedule="exponential",
    learning_rate_decay=0.864,
    decay_step=50,
    warmup_steps=0,
    keep_prob=0.956,
    weight_decay=0.0,
    label_smoothing=0.0,
    teacher=TEACHER,
    teacher_share=0.0,
    mixup=0.0,
    ema_decay=0.0,
    logit_adjustment=0.0,
    fer2013_share=0.0,
    batch_size=128,
    body_rate=1.0,
)

AUGMENTATION = Augmentation(  # the published experiments had none
    flip=False,
    shift=0.0,
    zoom=0.0,
    rotation=0.0,
    contrast=0.0,
    brightness=0.0,
    blur=0.0,
    jpeg=0.0,
    darkness=0.0,
    erasing=0.0,
)

TRAINING = Training(
    settings="published",  # ours: OWN_SETTINGS below; taught: TAUGHT_SETTINGS too
    labels="fer2013",  # or ferplus, ferplus8: needs a conversion with --ferplus
    engine="tensorflow",  # or pytorch, which can use a GPU: pip install torch
    epochs=13,
    seed=0,
    bfloat16="auto",
    save_model=True,
    save_model_path="best_model/saved_model.bin",
    balance=0.0,
    quantize=False,
    checkpoint_folder="checkpoints",
    logs_folder="logs",
)

SVM = Svm(
    features="landmarks_hog_windows",
    components=300,
    trial_faces=12000,
    seed=0,
    save_model_path="best_svm/svm.npz",
    landmarks=("crop", "face"),
    hog_weights=(0.5, 1.0, 3.0),
    kernels=("linear", "rbf"),
    penalties=(1.0, 3.0, 10.0),
    gammas=(0.1, 0.3),
)

VIDEO_PREDICTOR = VideoPredictor(
    emotions=EMOTIONS,
    detector="auto",  # or one of its parts, yunet, haar, none: see docs/predict.md
    detector_model="",
    detection_confidence=0.6,
    smallest_face=0,
    most_faces=0,
    small_faces=True,
    margin=0.0,
    test_time_augmentation=False,
    balance=1.0,
    show_confidence=True,
    camera_source=0,
    small_faces_in_video=False,
    smoothing=0.5,
    lost_face=0.5,
    every=1,
    empty_frames=False,
    window=True,
    show_chart=False,
    show_frame_rate=False,
    snapshot_folder="snapshots",
)

OPTIMIZER = Optimizer(
    learning_rate=(1e-5, 0.1),
    learning_rate_decay=(0.5, 0.99),
    optimizer=(),  # such as ("momentum", "adam"); if empty, the one of HYPERPARAMS
    optimizer_param=(0.5, 0.99),
    keep_prob=(0.7, 0.99),
    max_evals=20,
    random_trials=8,
    samples=0,
    stop_early="no",  # or median, halving
    search_folder="search",
    heartbeat=60.0,
)

A_AND_B = {  # the same settings for all inputs, so that the comparison does not depend on tuning
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

C_AND_D: dict[str, Any] = {
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
    "ema_decay": 0.999,
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
}

# Settings that replace those above: always for C and D; with settings="ours" or "taught" for A and B. Flags override
# them.
OWN_SETTINGS: dict[str, dict[str, Any]] = {
    "A": A_AND_B,
    "B": A_AND_B,
    "C": C_AND_D,
    "D": C_AND_D,
}

# Further settings of A and B with settings="taught", to learn from the included model fer2013.
TAUGHT_SETTINGS: dict[str, Any] = {"teacher_share": 0.7, "keep_prob": 0.6}

# Further settings of every model with --start_from: benchmarks/benchmark_fine_tuning.py compares some.
FINE_TUNING: dict[str, Any] = {
    "optimizer": "nesterov",
    "optimizer_param": 0.9,
    "learning_rate": 0.01,
    "body_rate": 1.0,
    "schedule": "cosine",
    "warmup_steps": 0,
    "keep_prob": 0.5,
    "weight_decay": 5e-4,
    "label_smoothing": 0.1,
    "ema_decay": 0.0,
    "batch_size": 16,
    "flip": True,
    "shift": 0.1,
    "zoom": 0.15,
    "rotation": 15.0,
    "contrast": 0.3,
    "brightness": 0.1,
    "erasing": 0.0,
    "epochs": 30,
}
