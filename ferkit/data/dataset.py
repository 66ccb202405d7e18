"""The converted dataset, checked against its manifest and against the network's input.

data = open_dataset("fer2013_features")
data.check("landmarks_hog", output_size=7)
training = data.load("Training", "landmarks_hog")
training.images, training.features, training.labels
"""

import functools
import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ferkit import features
from ferkit.constants import IMAGE_SIZE
from ferkit.data import ferplus
from ferkit.errors import UserError, in_short
from ferkit.files import open_file, read_text, recover_folder
from ferkit.schemas import Manifest, check_shape
from ferkit.settings import DatasetPaths, upgraded

MANIFEST_FORMAT = 1  # written by the conversion, required for loading
CONVERT = "python convert_fer2013_to_images_and_landmarks.py"


@dataclass(frozen=True)
class Split:
    """Faces of one split, row by row."""

    images: np.ndarray  # (N, 48, 48) uint8
    features: np.ndarray  # (N, size of the feature) float32
    labels: np.ndarray  # (N,) int64, 0…K-1: the likeliest expression
    targets: np.ndarray | None = None  # (N, K) float32, the share of people who see each; None: all see the label

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> "Split":
        """The faces at these places, or where a mask (N,) is true."""
        targets = None if self.targets is None else self.targets[rows]
        return Split(self.images[rows], self.features[rows], self.labels[rows], targets)


@dataclass(frozen=True)
class Dataset:
    """A converted dataset's folder and the contents of its manifest.

    sample: (rows, seed) to use only this number of rows of Training, drawn at random.
    """

    folder: Path
    manifest: dict
    sample: tuple[int, int] | None = None
    label_source: str = "fer2013"  # see settings.LABELS
    fer2013_share: float = 0.0  # of FER2013's own label in the targets of Training, where FER+ labels the faces

    @property
    def expressions(self) -> tuple[str, ...]:
        """Names of the expressions, in the order of the labels."""
        own = tuple(self.manifest["expressions"])
        return (*own, ferplus.CONTEMPT) if self.label_source == "ferplus8" else own

    @property
    def fingerprint(self) -> str:
        """Identifies the dataset: equal for equal faces and labels in the same order, whatever their source file."""
        faces = {split: facts["sha256"] for split, facts in self.manifest["splits"].items()}
        facts: list[Any] = [self.expressions, faces]
        if self.label_source != "fer2013":
            facts += [
                self.label_source,
                {split: votes["sha256"] for split, votes in self.manifest["ferplus"]["splits"].items()},
            ]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    @property
    def counts(self) -> dict[str, int]:
        """Number of faces in each existing split; for Training, in the sample if there is one."""
        counts = {split: facts["count"] for split, facts in self.manifest["splits"].items()}
        if self.label_source != "fer2013":
            counts = {split: int(rows.sum()) for split, rows in self._voted_rows.items() if rows.any()}
        if self.sample is not None and "Training" in counts:
            counts["Training"] = min(counts["Training"], self.sample[0])
        return counts

    @property
    def facts(self) -> dict[str, Any]:
        """The facts about the training dataset that a saved model contains."""
        return {"source": self.manifest["source"], "fingerprint": self.fingerprint, "counts": self.counts}

    def labelled(self, labels: str) -> "Dataset":
        """The dataset with other labels: see settings.LABELS. Raises UserError when it does not have them."""
        if labels != "fer2013" and "ferplus" not in self.manifest:
            raise UserError(
                f"{self.folder} has no FER+ votes, which labels={labels} needs: '{CONVERT} --ferplus=fer2013new.csv', "
                f"with the file from {ferplus.ADDRESS}"
            )
        if labels == "fer2013" and self._only_votes:
            raise UserError(f"{self.folder} has no labels of FER2013, only the votes of FER+: use --labels=ferplus")
        dataset = replace(self, label_source=labels)
        if "Training" in self.counts and "Training" not in dataset.counts:
            raise UserError(f"{self.folder} has no training face that labels={labels} can use: convert more faces")
        return dataset

    @functools.cached_property
    def _votes(self) -> dict[str, np.ndarray]:
        """FER+'s votes (N, 10) of each split."""
        splits = self.manifest["splits"]
        return {
            split: self._array(split, "votes", (splits[split]["count"], len(ferplus.COLUMNS)), np.uint8)
            for split in splits
        }

    @functools.cached_property
    def _voted_rows(self) -> dict[str, np.ndarray]:
        """Which rows of each split FER+ labels (N,) bool: in Training every face with votes for the expressions, in the
        others, by the official rule, those with a majority.
        """
        rows = {}
        for split, votes in self._votes.items():
            if split == "Training":
                rows[split] = ferplus.distributions(votes, self.expressions).sum(axis=1) > 0
            else:
                rows[split] = ferplus.majority(votes, self.expressions) >= 0
        return rows

    def sampled(self, rows: int, seed: int) -> "Dataset":
        """The dataset with only `rows` rows of Training, drawn at random; 0: all rows."""
        return replace(self, sample=(rows, seed)) if rows else self

    def mixed(self, fer2013_share: float) -> "Dataset":
        """The dataset whose targets of Training, if FER+ labels it, have this share of FER2013's own label."""
        if fer2013_share and self._only_votes:
            raise UserError(f"{self.folder} has no labels of FER2013: use --fer2013_share=0")
        return replace(self, fer2013_share=fer2013_share)

    @property
    def _only_votes(self) -> bool:
        """Whether the faces are labelled by FER+ alone: its own folders do not tell FER2013's labels."""
        return self.manifest.get("ferplus", {}).get("alone", False)

    def feature_provenance(self, feature: str) -> dict[str, dict[str, Any]]:
        """How the values of a feature were computed: see features.provenance."""
        return {name: self.manifest["feature_provenance"][name] for name in features.parts_of(feature)}

    def check_computed(self, theirs: Mapping[str, Mapping[str, Any]], whose: str, cure: str) -> None:
        """Raises UserError when the features of the dataset were computed otherwise than `theirs`, those of a model.

        theirs: see `feature_provenance`. whose: words for the model's. cure: what to do besides converting again.
        """
        ours = self.manifest["feature_provenance"]
        different = [name for name in theirs if ours.get(name) != theirs[name]]
        if learned := [name for name in different if "learned" in theirs[name]]:
            raise UserError(
                f"{self.folder} has other {' and '.join(learned)} than {whose}, because they were learned from other "
                f"training faces: {cure}"
            )
        if different:
            raise UserError(
                f"{self.folder} has features computed otherwise than {whose} (another landmark predictor?): convert "
                f"again, or {cure}"
            )

    def check(self, feature: str, output_size: int) -> None:
        """Raises UserError unless the dataset has the parts of `feature` and `output_size` expressions."""
        parts = features.parts_of(feature)
        missing = [name for name in parts if name not in self.manifest["arrays"]]
        if missing:
            flags = [part.flag for part in parts.values()]
            unusual = str(self.folder) != DatasetPaths().folder
            if unusual:
                flags.append(f"--folder={self.folder}")
            raise UserError(
                f"{self.folder} has no {' and no '.join(missing)}, which features={feature} needs: "
                f"'{CONVERT} {shlex.join(flags)}'" + (" with its --input" if unusual else "")
            )
        try:
            features.check_learned(feature, self.manifest["feature_provenance"])
        except Exception as error:  # a damaged value can raise almost any error
            raise UserError(f"{self.folder / 'manifest.json'} is damaged ({in_short(error)}): convert again") from error
        if len(self.expressions) != output_size:
            raise UserError(
                f"{self.folder} has {len(self.expressions)} expressions ({', '.join(self.expressions)}) but "
                f"output_size is {output_size}: use --output_size={len(self.expressions)}, or convert again"
            )

    def check_learnable(self) -> None:
        """Raises UserError when there is no training face, or none of an expression, which would never be learned."""
        self._check_split("Training")
        if self.label_source == "fer2013":
            counts = self.manifest["splits"]["Training"]["expressions"]
            missing = [name for name in self.expressions if not counts.get(name, 0)]
        else:
            seen = ferplus.distributions(self._votes["Training"], self.expressions).sum(axis=0)
            missing = [name for name, people in zip(self.expressions, seen, strict=True) if not people]
        if missing:
            raise UserError(
                f"{self.folder} has no training face of {', '.join(missing)}: convert more faces, or without these "
                f"expressions ('{CONVERT} --expressions=…')"
            )

    def load(self, split: str, feature: str) -> Split:
        """The rows of `split` with the vectors of `feature`. Raises UserError when a file does not match."""
        self._check_split(split)
        count = self.manifest["splits"][split]["count"]
        images = self._array(split, "images", (count, IMAGE_SIZE, IMAGE_SIZE), np.uint8)
        own = len(self.manifest["expressions"])
        shape, dtype = ((count, own), np.float32) if self.manifest["one_hot"] else ((count,), np.int64)
        labels = self._array(split, "labels", shape, dtype)
        parts = {
            name: self._array(split, name, (count, *part.shape), np.float32)
            for name, part in features.parts_of(feature).items()
        }
        indices = labels.argmax(axis=1) if labels.ndim == 2 else labels.astype(np.int64)
        if not ((indices >= 0) & (indices < own)).all():
            raise UserError(f"{self.folder / split} holds other labels than conversion writes: convert again")
        whole = Split(images, features.join(parts, feature, count), indices)
        if self.label_source != "fer2013":
            whole = self._with_votes(whole, split)
        if split == "Training" and self.sample is not None:
            return whole.take(np.random.default_rng(self.sample[1]).permutation(len(whole))[: self.sample[0]])
        return whole

    def _check_split(self, split: str) -> None:
        if split not in self.counts:
            raise UserError(f"{self.folder} has no {split} split: convert a source that has one")

    def own_labels(self, split: str) -> np.ndarray | None:
        """FER2013's labels (N,) of the faces that `load` gives, where these are labelled by FER+; else None."""
        if self.label_source == "fer2013" or self._only_votes:
            return None
        return replace(self, label_source="fer2013", sample=None).load(split, "none").labels[self._voted_rows[split]]

    def _with_votes(self, faces: Split, split: str) -> Split:
        """The faces that FER+ labels, with its labels."""
        votes, rows = self._votes[split], self._voted_rows[split]
        targets = ferplus.distributions(votes, self.expressions)
        labels = ferplus.majority(votes, self.expressions)
        labels = np.where(labels < 0, targets.argmax(axis=1), labels)  # in Training, of a face without a majority
        if split == "Training":
            own = np.eye(len(self.expressions), dtype=np.float32)[faces.labels]
            targets = (1 - self.fer2013_share) * targets + self.fer2013_share * own
        return replace(faces, labels=labels, targets=targets).take(rows)

    def _array(self, split: str, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        path = self.folder / split / f"{name}.npy"
        try:
            with open_file(path) as file:
                array = np.load(file, allow_pickle=False)
        except (UserError, MemoryError):
            raise
        except Exception as error:  # a damaged header can raise almost any error
            raise UserError(f"{path} cannot be read ({error}): convert again with '{CONVERT}'") from error
        if array.shape != shape or array.dtype != dtype:
            held, wanted = f"{array.shape} {array.dtype}", f"{shape} {np.dtype(dtype)}"
            raise UserError(f"{path} holds {held}, where {wanted} belong: convert again with '{CONVERT}'")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise UserError(f"{path} holds values that are no numbers: convert again with '{CONVERT}'")
        return array


def is_dataset(folder: Path) -> bool:
    """Whether a conversion made this folder."""
    try:
        manifest = json.loads(read_text(folder / "manifest.json"))
    except (UserError, FileNotFoundError, ValueError, RecursionError):
        return False
    return isinstance(manifest, dict) and {"format", "expressions", "splits", "arrays"} <= manifest.keys()


def open_dataset(folder: str | Path) -> Dataset:
    """The converted dataset in `folder`. Raises UserError when there is none or its manifest is damaged."""
    recover_folder(folder)
    path = Path(folder) / "manifest.json"
    try:
        manifest = upgraded(json.loads(read_text(path)))
        if manifest["format"] != MANIFEST_FORMAT:
            raise UserError(f"{path} is of another version of this toolkit: convert again with '{CONVERT}'")
        check_shape(manifest, Manifest)
        if missing := ({*manifest["arrays"]} & {*features.PARTS}) - {*manifest["feature_provenance"]}:
            raise ValueError(f"there is no provenance of {min(missing)}")
    except FileNotFoundError as error:
        raise UserError(f"no converted dataset in {folder}: run '{CONVERT}', or name another --folder") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path} is damaged ({in_short(error)}): delete {folder} and convert again with '{CONVERT}'"
        ) from error
    return Dataset(Path(folder), manifest)
