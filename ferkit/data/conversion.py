"""Conversion of FER2013 into a folder of arrays: images, labels, and the parts of the features.

    manifest = convert("fer2013.csv", "fer2013_features", labels=range(7), arrays=["landmarks", "hog_features"])

The folder contains `<Training|PublicTest|PrivateTest>/*.npy` and a `manifest.json`. It appears only when complete.
"""

import collections
import functools
import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from ferkit import features
from ferkit.constants import EMOTIONS, IMAGE_SIZE, SHAPE_PREDICTOR, SPLITS
from ferkit.data import fer2013, ferplus
from ferkit.data.dataset import MANIFEST_FORMAT, is_dataset
from ferkit.errors import UserError
from ferkit.features import PARTS, hog, landmarks
from ferkit.files import check_writable, real_path, whole_folder
from ferkit.processes import one_opencv_thread, parallel

CHUNK = 64  # faces that a process extracts at a time
_SHARES = {"PublicTest": "validation_share", "PrivateTest": "test_share"}  # the flags that make these splits
HOG_IMAGES = "hog_images"  # pictures of the HOG; no feature uses them


@dataclass
class Faces:
    """The usable rows of one split."""

    images: list[np.ndarray] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)  # of the source, from 0

    def take(self, places: Sequence[int]) -> "Faces":
        """The faces at these places."""
        images, labels = [self.images[place] for place in places], [self.labels[place] for place in places]
        return Faces(images, labels, [self.rows[place] for place in places])


def convert(
    source: str,
    folder: str,
    labels: Sequence[int] | None,
    arrays: Sequence[str],
    *,
    one_hot: bool = True,
    jpg: bool = False,
    limit: int | None = None,
    processes: int = 1,
    shape_predictor_path: str = SHAPE_PREDICTOR,
    ferplus_path: str | None = None,
    labels_map: Mapping[str, str] | str | None = None,
    validation_share: float | None = None,
    test_share: float | None = None,
    split_seed: int = 0,
) -> dict[str, Any]:
    """Converts FER2013 at `source` into `folder` and returns the manifest. The folder appears only when complete.

    labels: the expressions to keep, ascending; they become 0…K-1; None: all that the source has. arrays: names of
    features.PARTS, and "hog_images". one_hot: labels as one-hot vectors, not as indices. jpg:
    also writes the faces as pictures. limit: how many rows of each split to keep. ferplus_path: the votes of FER+,
    joined row by row. labels_map: what the classes of a folder mean, see folders.expressions_of. validation_share,
    test_share: see `hold_out`; None: a tenth if the source has no splits, else nothing. Raises UserError when the
    source, the votes or the folder cannot be used.
    """
    check_output(Path(folder), Path(source))
    own_layout = ferplus.is_own_layout(Path(source))
    votes = ferplus.read_own_layout(Path(source))[0] if own_layout else None
    if ferplus_path is not None:
        votes = read_joinable(ferplus_path, source)
    if any(name in features.PARTS and features.PARTS[name].needs_landmarks for name in arrays):
        landmarks.load_shape_predictor(shape_predictor_path)  # first, as it may be missing; forked processes share it
    opened = fer2013.open_source(source, labels_map)
    labels = opened.labels if labels is None else labels
    if max(labels) >= len(opened.names):
        raise UserError(f"there is no expression {max(labels)}: the last of {source} is {len(opened.names) - 1}")
    names = [opened.names[label] for label in labels]
    splits, dropped, seen = gather(opened.rows, labels, limit)
    unsplit = not any(split for split, _ in seen)
    usual = 0.1 if unsplit else 0.0
    shares = {
        "PublicTest": usual if validation_share is None else validation_share,
        "PrivateTest": usual if test_share is None else test_share,
    }
    splits = hold_out(splits, shares, split_seed)
    if votes is not None and not own_layout:
        ferplus.check_join(votes, seen, str(ferplus_path), source)
    if not splits:
        reasons = "; ".join(f"{count} × {reason}" for reason, count in dropped.items())
        raise UserError(f"{source} holds no usable face of these expressions" + (f" ({reasons})" if reasons else ""))
    digest = fer2013.hash_of(source)
    parts = [name for name in arrays if name in PARTS]
    known = learned(parts, splits)
    with whole_folder(folder) as staging:
        for split, faces in splits.items():
            write_split(staging / split, faces, len(labels), one_hot)
            if votes is not None:
                np.save(staging / split / "votes.npy", votes.votes[faces.rows])
        extract_arrays(staging, {split: len(faces.images) for split, faces in splits.items()},
                       arrays, jpg, names, processes, shape_predictor_path, known)  # fmt: skip
        manifest = {
            "format": MANIFEST_FORMAT,
            "source": {"name": Path(source).name, "sha256": digest},
            "expressions": names,
            **({"fer2013_labels": list(labels)} if opened.names == EMOTIONS else {}),
            **({"held_out": {**shares, "seed": split_seed}} if any(shares.values()) else {}),
            "one_hot": one_hot,
            "arrays": list(arrays),
            "feature_provenance": features.provenance_of(parts, shape_predictor_path, known),
            "splits": {split: describe(faces, names) for split, faces in splits.items()},
            **({} if votes is None else {"ferplus": describe_votes(ferplus_path, votes, splits, digest)}),
            "dropped": dict(dropped),
            "versions": versions(),
        }
        (staging / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest


def check_output(folder: Path, source: Path) -> None:
    """Raises UserError if `folder` cannot be written, or contains something other than a converted dataset."""
    place, read = real_path(folder), real_path(source)
    if place in (read, *read.parents):
        raise UserError(f"the output {folder} would replace the input {source}: name another folder with --folder")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"the output {folder} is a file: name a folder with --folder")
    inside = {path.relative_to(folder).as_posix() for path in folder.glob("*")} if folder.is_dir() else set()
    inside |= {path.relative_to(folder).as_posix() for split in SPLITS for path in (folder / split).glob("*")}
    if inside and (not is_dataset(folder) or not inside <= own_files()):
        raise UserError(f"the output {folder} holds more than a converted dataset: empty it, or use another --folder")
    if os.path.ismount(folder):
        raise UserError(f"the output {folder} is a mount point, which cannot be replaced: name a folder in it")
    check_writable(place.parent)


def own_files() -> set[str]:
    """What conversion writes into a dataset's folder, apart from the pictures of the faces."""
    arrays = [f"{name}.npy" for name in ("images", "labels", "votes", HOG_IMAGES, *PARTS)]
    return {"manifest.json", *SPLITS, *(f"{split}/{name}" for split in SPLITS for name in (*arrays, "jpg"))}


def gather(
    rows: Iterable[fer2013.Row], labels: Sequence[int], limit: int | None
) -> tuple[dict[str, Faces], collections.Counter[str], list[tuple[str | None, int]]]:
    """The rows with the expressions `labels`, at most `limit` per split, and the number of unusable rows by reason.

    Image and label of a row are kept or dropped together, so they always match. The last value has the split and
    FER2013's label of every row of the source, None and -1 for a row that cannot be used. Rows without a split go to
    Training.
    """
    seen: list[tuple[str | None, int]] = []
    splits = {split: Faces() for split in SPLITS}
    dropped: collections.Counter[str] = collections.Counter()
    new_label = {label: index for index, label in enumerate(labels)}
    for number, row in enumerate(rows):
        if isinstance(row, str):
            dropped[row] += 1
            seen.append((None, -1))
            continue
        split, label, image = row
        seen.append((split, label))
        faces = splits[split or "Training"]
        if label in new_label and (limit is None or len(faces.images) < limit):
            faces.images.append(image)
            faces.labels.append(new_label[label])
            faces.rows.append(number)
    return {split: faces for split, faces in splits.items() if faces.images}, dropped, seen


def hold_out(splits: dict[str, Faces], shares: Mapping[str, float], seed: int) -> dict[str, Faces]:
    """The splits, with these shares of Training moved to the splits that they name; of each expression the same share.

    Raises UserError when the source has such a split already, and when nothing would be left.
    """
    shares = {split: share for split, share in shares.items() if share}
    if not shares:
        return splits
    if there := [split for split in shares if split in splits]:
        raise UserError(f"the source has a {there[0]} split already: leave out --{_SHARES[there[0]]}")
    if sum(shares.values()) >= 1:
        raise UserError(f"--{' and --'.join(_SHARES[split] for split in shares)} leave nothing for Training")
    random = np.random.default_rng(seed)
    whole = splits["Training"] if "Training" in splits else Faces()
    moved: dict[str, list[int]] = {split: [] for split in ("Training", *shares)}
    for label in sorted({*whole.labels}):
        places = random.permutation(np.flatnonzero(np.array(whole.labels) == label)).tolist()
        counts = [round(share * len(places)) for share in shares.values()]
        for split, count in zip(shares, counts, strict=True):
            moved[split] += places[:count]
            del places[:count]
        moved["Training"] += places
    parts = {split: whole.take(sorted(places)) for split, places in moved.items() if places}
    return {split: (splits | parts)[split] for split in SPLITS if split in splits or split in parts}


def read_joinable(ferplus_path: str, source: str) -> ferplus.Votes:
    """FER+'s votes. Raises UserError when they cannot be joined to such a source."""
    if Path(source).is_dir():
        raise UserError(f"FER+'s votes join the rows of a csv, and {source} is a folder: leave out --ferplus")
    return ferplus.read_votes(ferplus_path)


def learned(parts: Sequence[str], splits: dict[str, Faces]) -> dict[str, dict[str, Any]]:
    """What the parts learn from the faces of Training: see features.learn. Raises UserError without such faces."""
    if learning := [name for name in parts if PARTS[name].learn is not None]:
        if "Training" not in splits:
            raise UserError(f"{learning[0]} is learned from the faces of Training, and there is none: convert some")
        print(f"Learning from Training: {', '.join(learning)}", file=sys.stderr)
    return features.learn(learning, np.stack(splits["Training"].images)) if learning else {}


def describe_votes(path: str | None, votes: ferplus.Votes, splits: dict[str, Faces], digest: str) -> dict[str, Any]:
    """The votes, for the manifest. path: the file that was joined; None for FER+'s own folders, of this digest."""
    arrays = {split: votes.votes[faces.rows] for split, faces in splits.items()}
    return {
        "name": None if path is None else Path(path).name,
        "sha256": digest if path is None else fer2013.hash_of(path),
        "alone": path is None,  # there are no labels of FER2013
        "columns": list(ferplus.COLUMNS),
        "splits": {
            split: {
                "sha256": hashlib.sha256(array.tobytes()).hexdigest(),
                "with_majority": int((ferplus.majority(array, EMOTIONS) >= 0).sum()),
            }
            for split, array in arrays.items()
        },
    }


# --- writing ---------------------------------------------------------------------------------------------------------


def write_split(folder: Path, faces: Faces, classes: int, one_hot: bool) -> None:
    """Writes `images.npy` (N, 48, 48) uint8 and `labels.npy`: one-hot (N, classes) float32, or indices (N,) int64."""
    folder.mkdir()
    np.save(folder / "images.npy", np.stack(faces.images))
    indices = np.array(faces.labels, np.int64)
    np.save(folder / "labels.npy", np.eye(classes, dtype=np.float32)[indices] if one_hot else indices)


def describe(faces: Faces, names: Sequence[str]) -> dict[str, Any]:
    """Counts of one split, for the manifest."""
    counts = np.bincount(faces.labels, minlength=len(names))
    return {
        "count": len(faces.labels),
        "expressions": dict(zip(names, counts.tolist(), strict=True)),
        "blank": sum(int(image.min() == image.max()) for image in faces.images),
        "sha256": hashlib.sha256(
            b"".join([*(image.tobytes() for image in faces.images), bytes(faces.labels)])
        ).hexdigest(),
    }


def extract_arrays(
    folder: Path,
    counts: dict[str, int],
    arrays: Sequence[str],
    jpg: bool,
    names: Sequence[str],
    processes: int,
    shape_predictor_path: str,
    known: features.Provenance,
) -> None:
    """Fills `folder/<split>/<array>.npy` from its `images.npy`, in several processes, with a progress bar.

    The processes write directly into the arrays' files, so no arrays are sent between them and they need little memory.
    Raises UserError when the disk has too little space.
    """
    shapes = {name: PARTS[name].shape if name in PARTS else (IMAGE_SIZE, IMAGE_SIZE) for name in arrays}
    needed = 4 * sum(counts.values()) * sum(int(np.prod(shape)) for shape in shapes.values())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"the arrays take {needed / 1e6:.0f} MB, but the disk of {folder.parent} has {free / 1e6:.0f} MB left: "
            "free some, or name another place"
        )
    for split, count in counts.items():
        for name, shape in shapes.items():
            path = folder / split / f"{name}.npy"
            np.lib.format.open_memmap(path, "w+", np.float32, (count, *shape)).flush()
            _reserve(path)
    chunks = [(folder / split, start) for split, count in counts.items() for start in range(0, count, CHUNK)]
    work = functools.partial(_extract_chunk, arrays, names if jpg else None, shape_predictor_path, known)
    with tqdm(total=sum(counts.values()), desc="Extracting", unit="face") as progress, one_opencv_thread():
        for done in parallel(work, chunks, processes):
            progress.update(done)


def _reserve(path: Path) -> None:
    """Reserves the space of a file that has its size but no content yet. Raises OSError if the disk has too little.

    Otherwise a disk that other programs fill meanwhile would end the processes that write into it, without a word.
    """
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _extract_chunk(
    arrays: Sequence[str],
    jpg_names: Sequence[str] | None,
    shape_predictor_path: str,
    known: features.Provenance,
    chunk: tuple[Path, int],
) -> int:
    """Extracts the arrays of `CHUNK` faces; returns their number. chunk: folder of the split, and first row."""
    folder, start = chunk
    images = np.load(folder / "images.npy", mmap_mode="r")[start : start + CHUNK]
    for name in arrays:
        array = np.load(folder / f"{name}.npy", mmap_mode="r+")
        if name == HOG_IMAGES:
            array[start : start + CHUNK] = hog_images(images)
        else:
            array[start : start + CHUNK] = features.extract_part(name, images, shape_predictor_path, known)
    if jpg_names is not None:
        labels = np.load(folder / "labels.npy", mmap_mode="r")[start : start + CHUNK]
        _write_jpgs(folder / "jpg", start, images, labels.argmax(1) if labels.ndim == 2 else labels, jpg_names)
    return len(images)


def hog_images(images: np.ndarray) -> np.ndarray:
    """scikit-image's picture of each face's HOG: (N, 48, 48) uint8 -> (N, 48, 48) float32."""
    from skimage.feature import hog as skimage_hog  # imported here: it is slow and rarely needed

    cell = (hog.FACE_CELL, hog.FACE_CELL)
    pictures = [skimage_hog(image, hog.ORIENTATIONS, cell, (1, 1), visualize=True)[1] for image in images]
    return np.stack(pictures).astype(np.float32)


def _write_jpgs(folder: Path, start: int, images: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> None:
    """Writes `<expression>/<row>.jpg` for each face; row is its index in the split's arrays."""
    for row, (image, label) in enumerate(zip(images, labels, strict=True), start):
        path = folder / names[label] / f"{row:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".jpg", np.ascontiguousarray(image))[1].tobytes())


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that the values of the arrays depend on, as far as installed."""
    names = {"numpy": ("numpy",), "scikit-image": ("scikit-image",), "dlib": ("dlib-bin", "dlib")}
    found = {name: next(filter(None, map(_version, distributions)), None) for name, distributions in names.items()}
    return {
        "python": ".".join(map(str, sys.version_info[:3])),
        **{name: version for name, version in found.items() if version is not None},
    }


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
