"""Finds faces whose labels are probably wrong, and faces that are unclear, so that a person can look at them.

    faces = read_faces("my_faces")
    review = check_labels(faces, Recognizer("ferplus"))
    write_page(review, faces, "labels.html")

A simple classifier learns the labels from what a saved network sees in the faces. It answers for each face without
having learned from it (cross-validation). Confident learning (Northcutt, Jiang and Chuang, "Confident learning:
estimating uncertainty in dataset labels", JAIR 2021) then finds the labels that disagree with confident answers.
"""

import base64
import csv
import html
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ferkit.data import ferplus
from ferkit.data.fer2013 import open_source
from ferkit.data.folders import find_pictures
from ferkit.errors import UserError
from ferkit.files import whole_file
from ferkit.interpreter import SharedInterpreter
from ferkit.recognition import Recognizer
from ferkit.saved_model import BATCH, SavedModel

FOLDS = 5
_STRENGTH = 0.01  # C of the logistic regression: the activations are many, and the faces may be few
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em }
figure { display: inline-block; width: 150px; margin: 0 .6em 1em 0; vertical-align: top; font-size: .85em }
figure img { display: block; width: 144px; height: 144px; border-radius: 4px }
figcaption span { overflow-wrap: anywhere; color: #666 }
"""


class Faces(NamedTuple):
    """Labelled faces, wherever they come from."""

    images: np.ndarray  # (N, 48, 48) uint8
    labels: np.ndarray  # (N,) int64, 0…K-1
    classes: tuple[str, ...]  # K names
    names: tuple[str, ...]  # where each face is: a path, or a row of a csv


class Review(NamedTuple):
    """What was found. wrong and unclear: places of faces, the clearest cases first; no face is in both."""

    probabilities: np.ndarray  # (N, K), by classifiers that have not learned from the face
    wrong: np.ndarray
    unclear: np.ndarray


def read_faces(source: str | Path) -> Faces:
    """The faces of a folder by class, or of FER2013's csv, as conversion reads them. Raises UserError."""
    opened = open_source(str(source))
    names: list[str] = []
    if Path(source).is_dir() and ferplus.is_own_layout(Path(source)):
        names = [str(path) for path in ferplus.read_own_layout(Path(source))[1]]
    elif Path(source).is_dir():
        pictures, others = find_pictures(source)
        names = [str(path) for path in (*others, *(picture.path for picture in pictures))]  # the order of the rows
    kept = [(number, row) for number, row in enumerate(opened.rows) if not isinstance(row, str)]
    if not kept:
        raise UserError(f"{source} has no face that can be read")
    present = sorted({row[1] for _, row in kept})
    return Faces(
        np.stack([row[2] for _, row in kept]),
        np.array([present.index(row[1]) for _, row in kept]),
        tuple(opened.names[label] for label in present),
        tuple(names[number] if names else f"row {number + 1}" for number, _ in kept),
    )


def check_labels(faces: Faces, recognizer: Recognizer, seed: int = 0) -> Review:
    """Finds the faces to look at. recognizer: whose view of the faces is used; its expressions may be others.

    Raises UserError when there are too few classes or faces.
    """
    counts = np.bincount(faces.labels, minlength=len(faces.classes))
    if len(counts) < 2 or counts.min() < 2:
        fewest = faces.classes[int(counts.argmin())]
        raise UserError(f"labels are checked among two or more classes with two or more faces: {fewest} is too few")
    if not isinstance(recognizer.model, SavedModel):
        raise UserError(f"{recognizer.model_path} are several models: name one with --model_path")
    activations = penultimate(recognizer.model, faces.images, recognizer.features_of(faces.images))
    probabilities = out_of_sample(activations, faces.labels, min(FOLDS, int(counts.min())), seed)
    margins = margins_of(probabilities, faces.labels)
    wrong = disagreeing(probabilities, faces.labels)
    unclear = np.flatnonzero(~wrong)[np.abs(margins[~wrong]).argsort(kind="stable")]
    return Review(probabilities, np.flatnonzero(wrong)[margins[wrong].argsort(kind="stable")], unclear)


def penultimate(model: SavedModel, images: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """What the last layer of the model is given for each face (N, D) float32. For the arguments see SavedModel."""
    from ai_edge_litert.schema_py_generated import BuiltinOperator as kinds

    from ferkit.flatbuffer import Flatbuffer

    graph = Flatbuffer(model.flatbuffer)
    softmax = graph.maker(graph.output, kinds.SOFTMAX)
    last = softmax and graph.maker(softmax.inputs[0], kinds.FULLY_CONNECTED)
    if last is None:
        raise UserError("the model does not end in a fully connected layer: name another --model_path")
    network = SharedInterpreter(graph.up_to(last.inputs[0]))
    rows = []
    for start in range(0, len(images), BATCH):
        batch = slice(start, start + BATCH)
        arrays = {"images": images[batch, ..., None].astype(np.float32), "features": vectors[batch]}
        rows.append(network.run([arrays[details["name"]] for details in network.inputs])[0])
    return np.concatenate(rows)


def out_of_sample(activations: np.ndarray, labels: np.ndarray, folds: int, seed: int = 0) -> np.ndarray:
    """Probabilities of the classes (N, K), each row by a logistic regression that has not seen it.

    activations: (N, D). labels: (N,), each class at least `folds` times. The faces are divided at random into `folds`
    parts with equal shares of the classes, and those outside a part teach the regression that answers for it.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=_STRENGTH, max_iter=300))
    parts = StratifiedKFold(folds, shuffle=True, random_state=seed)
    return cross_val_predict(classifier, activations, labels, cv=parts, method="predict_proba")


def disagreeing(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which labels are probably wrong (N,) bool, by confident learning with pruning by noise rate.

    An answer is confident of the likeliest class whose probability reaches its mean over the faces that are labelled
    so. How often the confident answers to faces of one label are another class tells how many of all faces with this
    label belong there. So many are doubted: those whose probabilities speak most for the other class.
    """
    classes = range(probabilities.shape[1])
    thresholds = np.array([probabilities[labels == label, label].mean() for label in classes])
    confident = np.where(probabilities >= thresholds, probabilities, -1)
    sure = confident.max(axis=1) >= 0
    doubted = np.zeros(len(labels), bool)
    for label in classes:
        own = np.flatnonzero(labels == label)
        answers = np.bincount(confident[own].argmax(axis=1)[sure[own]], minlength=len(classes))
        for other in set(classes) - {label}:
            count = round(len(own) * answers[other] / max(answers.sum(), 1))
            margins = probabilities[own, other] - probabilities[own, label]
            doubted[own[np.argsort(-margins, kind="stable")[:count]]] = True
    return doubted & (probabilities.argmax(axis=1) != labels)


def margins_of(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """By how much the label's probability exceeds that of the likeliest other class (N,), -1 to 1."""
    rows = np.arange(len(labels))
    others = probabilities.copy()
    others[rows, labels] = -1
    return probabilities[rows, labels] - others.max(axis=1)


def suggested(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The likeliest class of each face that is not its label (N,)."""
    others = probabilities.copy()
    others[np.arange(len(labels)), labels] = -1
    return others.argmax(axis=1)


def write_page(review: Review, faces: Faces, path: str | Path, most: int = 200) -> None:
    """Writes a page of one file with the faces to look at, at most so many of both kinds. It loads nothing."""
    wrong, unclear = review.wrong[:most], review.unclear[:most]
    page = "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
            'img-src data:">',
            f"<title>Labels to look at</title><style>{_STYLE}</style></head><body>",
            f"<h1>Labels to look at</h1><p>{len(faces.labels)} faces of {len(faces.classes)} classes. Below each face: "
            "its label, the likeliest other class, and the probabilities of both.</p>",
            f"<h2>Probably wrong labels: {_first(len(wrong), len(review.wrong))}</h2>",
            *(_figure(review, faces, place) for place in wrong),
            f"<h2>The others, the least clear first: {_first(len(unclear), len(review.unclear))}</h2>",
            *(_figure(review, faces, place) for place in unclear),
            "</body></html>",
        ]
    )
    with whole_file(path) as temporary:
        temporary.write_text(page + "\n", encoding="utf-8", errors="replace")  # names that are no text


def _first(shown: int, count: int) -> str:
    return str(count) if shown == count else f"{count}, of which these are {shown}"


def write_table(review: Review, faces: Faces, path: str | Path) -> None:
    """Writes all faces as a CSV file, those with probably wrong labels first, then from unclear to clear."""
    others, wrong = suggested(review.probabilities, faces.labels), {*review.wrong.tolist()}
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["face", "label", "suggested", "probability_of_label", "probability_of_suggested", "wrong"])
        for place in (*review.wrong, *review.unclear):
            label, other = faces.labels[place], others[place]
            row = review.probabilities[place]
            names = faces.names[place], faces.classes[label], faces.classes[other]
            table.writerow([*names, f"{row[label]:.4f}", f"{row[other]:.4f}", "yes" if int(place) in wrong else "no"])


def _figure(review: Review, faces: Faces, place: int) -> str:
    row, label = review.probabilities[place], int(faces.labels[place])
    other = int(suggested(row[None], np.array([label]))[0])
    picture = base64.b64encode(cv2.imencode(".png", faces.images[place])[1].tobytes()).decode()
    name = html.escape(faces.names[place])
    label_text = html.escape(f"{faces.classes[label]} {row[label]:.0%}")
    other_text = html.escape(f"{faces.classes[other]} {row[other]:.0%}")
    return (
        f'<figure><img src="data:image/png;base64,{picture}" alt="{label_text}">'
        f"<figcaption><b>{label_text}</b>, rather {other_text}<br><span>{name}</span></figcaption></figure>"
    )
