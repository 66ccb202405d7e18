"""Which faces a training meets, in which order, and how they are changed: the same whatever library trains.

rows = shuffled_batches(len(learn), batch_size=64, seed=0, epoch=1)
faces = changed_batch(run, learn.take(rows[0]), epoch=1, step=0)
"""

import dataclasses
from typing import Any

import numpy as np

from ferkit.data.dataset import Split
from ferkit.learning.augmentation import augment
from ferkit.learning.run import Run

# Augmentation that leaves a face clear. These changes are drawn last, so that the others stay the same without them.
CLEAR: dict[str, Any] = {"blur": 0.0, "jpeg": 0.0, "darkness": 0.0, "erasing": 0.0}


def shuffled_batches(count: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The rows of each step. They depend only on `seed` and `epoch`. Rows that do not fill a batch are left out."""
    order = np.random.default_rng((seed, epoch)).permutation(count)
    steps = max(1, count // batch_size)
    return [order[step * batch_size : (step + 1) * batch_size] for step in range(steps)]


def changed_batch(run: Run, faces: Split, epoch: int, step: int, clear: bool = False) -> Split:
    """The faces of a step, randomly changed. The changes depend only on the seed, the epoch and the step.

    clear: neither degraded nor partly erased, for a teacher; otherwise the same.
    """
    random = np.random.default_rng((run.training.seed, epoch, step))
    feature = run.network.features
    known = run.dataset.feature_provenance(feature)
    changes = dataclasses.replace(run.augmentation, **CLEAR) if clear else run.augmentation
    images, vectors = augment(faces.images, faces.features, feature, changes, random, known)
    return dataclasses.replace(faces, images=images, features=vectors)


def is_degraded(run: Run) -> bool:
    """Whether the faces that are learned are less clear than those for a teacher."""
    return any(getattr(run.augmentation, name) for name in CLEAR)


def frequencies(learn: Split, classes: int) -> np.ndarray:
    """The share of each expression in what is learned (classes,)."""
    targets = learn.targets if learn.targets is not None else np.eye(classes)[learn.labels]
    return targets.mean(axis=0)
