"""Fine-tuning: a training that starts from a saved model has its answers at first, and learns own classes."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import convert_fer2013_to_images_and_landmarks as conversion
import parameters
import train
from ferkit import features, saved_model
from ferkit.data.dataset import Split, open_dataset
from ferkit.errors import UserError
from ferkit.learning.graph import TrainingGraph, inference_flatbuffer
from ferkit.learning.scaling import Scaling
from ferkit.learning.starting import Start, _Weights
from ferkit.settings import Hyperparams, Network
from model import ARCHITECTURES

RANDOM = np.random.default_rng(7)
FACES = RANDOM.integers(0, 256, (40, 48, 48)).astype(np.uint8)
LAST = {"network/logits/W", "network/logits/b"}


def answers(graph: TrainingGraph, session, faces: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """The probabilities of the network in training."""
    logits = session.run(graph.logits, {graph.images: faces, graph.features: vectors})
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def started(start: Start, expressions, faces: np.ndarray, vectors: np.ndarray, **hyperparams) -> np.ndarray:
    """The probabilities of a network in training that has only just started from a saved model."""
    network = dataclasses.replace(start.network, output_size=len(expressions))
    scaling = start.scaling(Scaling.of(faces, vectors) if network.standardize else None)
    graph = TrainingGraph(network, ARCHITECTURES[network.model], Hyperparams(**hyperparams), scaling, 0, 10)
    with graph.session(bfloat16=False) as session:
        start.fill(graph, session, expressions, scaling, Split(faces, vectors, np.zeros(len(faces), np.int64)))
        return answers(graph, session, faces, vectors)


def saved(path: Path, network: Network) -> tuple[np.ndarray, np.ndarray]:
    """Saves a network that has learned noise for a few steps; returns vectors, and its answers for FACES with them."""
    vectors = RANDOM.normal(3, 2, (len(FACES), features.size(network.features))).astype(np.float32)
    scaling = Scaling.of(FACES, vectors) if network.standardize else None
    graph = TrainingGraph(network, ARCHITECTURES[network.model], Hyperparams(learning_rate=0.01), scaling, 0, 10)
    with graph.session(bfloat16=False) as session:
        labels = RANDOM.integers(0, network.output_size, len(FACES))
        for _ in range(3):
            session.run(graph.train, {graph.images: FACES, graph.features: vectors, graph.labels: labels})
        graph.saver.save(session, str(path.with_name("epoch")))
        known = answers(graph, session, FACES, vectors)
    flatbuffer = inference_flatbuffer(
        str(path.with_name("epoch")), network, ARCHITECTURES[network.model], scaling, quantize=path.stem == "8-bit"
    )
    facts = {
        "expressions": [f"class {number}" for number in range(network.output_size)],
        "features": network.features,
        "feature_provenance": {},
        "network": dataclasses.asdict(network),
    }
    saved_model.save(path, flatbuffer, facts)
    return vectors, known


NETWORKS = [
    Network("slim", "none", 3, standardize=True),
    Network("slim", "landmarks", 3, standardize=True),
    Network("slim", "landmarks", 3, batch_norm_conv=False, batch_norm_fc=True),
    *(
        pytest.param(Network(model, kind, 3, standardize=True), marks=pytest.mark.slow)
        for model in [name for name in ARCHITECTURES if name != "slim"]
        for kind in ("none", "landmarks_hog_windows")
    ),
]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: f"{network.model}-{network.features}")
def test_started_network_answers_as_the_saved_one(network, tmp_path):
    vectors, known = saved(tmp_path / "model.bin", network)
    start = Start(str(tmp_path / "model.bin"))
    assert start.network == network
    np.testing.assert_allclose(started(start, start.expressions, FACES, vectors), known, atol=1e-4)
    other = np.clip(vectors * 3 + 20, -50, 50), FACES // 3 + 100  # faces whose mean and deviation are others
    expected = saved_model.load(start.path)._run_all(other[1], other[0])
    np.testing.assert_allclose(started(start, start.expressions, other[1], other[0]), expected, atol=1e-3)


def test_included_model_answers_as_before(drawn_dataset):
    """Its weights are 8-bit, and LiteRT rounds activations to 8 bits as well, which training does not."""
    faces = open_dataset(drawn_dataset).load("PrivateTest", "none")
    start = Start("ferplus")
    ours = started(start, start.expressions, faces.images, faces.features, ema_decay=0.9)
    theirs = saved_model.load("ferplus")._run_all(faces.images, faces.features)
    assert np.abs(ours - theirs).mean() < 0.01
    sure = theirs.max(axis=1) > 0.6
    assert sure.sum() > 50 and (ours.argmax(axis=1) == theirs.argmax(axis=1))[sure].all()


def test_classes_with_the_same_names_keep_their_weights(tmp_path):
    vectors, known = saved(tmp_path / "model.bin", Network("slim", "none", 3, standardize=True))
    start = Start(str(tmp_path / "model.bin"))
    some = started(start, ("class 2", "new", "class 0"), FACES, vectors)
    np.testing.assert_allclose(some[:, 0] / some[:, 2], known[:, 2] / known[:, 0], rtol=1e-3)


def test_other_layers_are_one_line(tmp_path):
    saved(tmp_path / "model.bin", Network("slim", "none", 3))
    start = Start(str(tmp_path / "model.bin"))
    start.network = dataclasses.replace(start.network, batch_norm_fc=True, features="landmarks")
    with pytest.raises(UserError, match=r"model.bin has other layers than Model slim of model.py"):
        started(start, start.expressions, FACES, np.zeros((len(FACES), 136), np.float32))


# --- train.py --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own_features(drawn_dataset, tmp_path_factory) -> Path:
    """Drawn people who are happy, and who are angry, under a name that no model knows: 50 of each."""
    folder = tmp_path_factory.mktemp("own")
    faces = open_dataset(drawn_dataset).load("Training", "none")
    for label, name in ((3, "Happy"), (0, "Fury")):
        for number, face in enumerate(faces.images[faces.labels == label][:50]):
            path = folder / "faces" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), face)
    flags = ["--hog=no", "--hog_windows=no", "--labels_map=own", "--processes=1"]
    assert conversion.main([f"--input={folder / 'faces'}", f"--folder={folder / 'features'}", *flags]) == 0
    return folder / "features"


def fine_tune(own_features: Path, small_model: Path, *flags: str) -> int:
    return train.main(["--train=yes", f"--folder={own_features}", f"--start_from={small_model}", *flags])


def test_own_classes_are_learned_with_nothing_but_the_start(own_features, small_model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert fine_tune(own_features, small_model, "--evaluate=yes", "--epochs=4") == 0
    printed = capsys.readouterr().out
    assert f"Starting from {small_model}" in printed and "80 faces of 2 expressions, features: landmarks" in printed
    model = saved_model.load("best_model/saved_model.bin")
    assert model.expressions == ("Happy", "Fury") and model.facts["network"]["output_size"] == 2
    assert model.facts["hyperparams"]["optimizer"] == parameters.FINE_TUNING["optimizer"]
    source = saved_model.load(small_model)
    assert model.facts["start"]["network_sha256"] == source.facts["network_sha256"]
    metrics = json.loads(Path("best_model/metrics.json").read_text())
    assert metrics["splits"]["PrivateTest"]["accuracy"] >= 0.9


def test_frozen_body_stays_as_it_is(own_features, small_model, tmp_path, monkeypatch):
    """Apart from the first layers' weights: their division by the inputs' deviation is undone and done again."""
    monkeypatch.chdir(tmp_path)
    before = _Weights(saved_model.load(small_model).flatbuffer).values
    for rate, changes in ((0, set()), (0.1, before.keys() - LAST)):
        flags = ["--epochs=1", f"--body_rate={rate}", f"--model_path={rate}.bin", "--optimizer=adam"]
        assert fine_tune(own_features, small_model, *flags) == 0
        after = _Weights(saved_model.load(f"{rate}.bin").flatbuffer).values
        assert after.keys() == before.keys() and after["network/logits/W"].shape[-1] == 2
        changed = {name for name in before.keys() - LAST if not np.allclose(before[name], after[name], atol=1e-6)}
        assert changed == changes if not rate else len(changed) > len(changes) / 2


def test_gradients_are_those_of_the_weights_before_the_step():
    """The gradients of the body need the last layer, which must not be changed before they are computed."""
    hyperparams = Hyperparams(optimizer="momentum", body_rate=0.3)
    graph = TrainingGraph(Network("slim", "none", 3), ARCHITECTURES["slim"], hyperparams, None, 0, 10)
    updates = [operation for operation in graph.graph.get_operations() if operation.type == "ApplyMomentum"]
    (last,) = [update for update in updates if update.inputs[0].op.name == "network/logits/W"]
    before, found = [last], set()
    while before:
        operation = before.pop()
        found.add(operation)
        sources = {*(tensor.op for tensor in operation.inputs), *operation.control_inputs}
        before += sources - found
    assert len(updates) > 4 and all(update.inputs[3].op in found for update in updates)


@pytest.mark.slow
def test_interrupted_fine_tuning_goes_on(own_features, small_model, raw_model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = ["--schedule=exponential", "--model_path=own.bin"]
    assert fine_tune(own_features, small_model, "--epochs=2", *flags, "--checkpoint_folder=whole") == 0
    whole = saved_model.load("own.bin").flatbuffer
    assert fine_tune(own_features, small_model, "--epochs=1", *flags) == 0
    assert fine_tune(own_features, small_model, "--epochs=2", *flags, "--resume=yes") == 0
    assert saved_model.load("own.bin").flatbuffer == whole
    assert fine_tune(own_features, raw_model, "--epochs=3", *flags, "--resume=yes") == 4
    assert "has features=landmarks, not none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "fragment"),
    [
        (["--start_from=missing"], "or name another with --start_from (included: "),
        (
            ["--start_from=ferplus", "--model=A"],
            "was trained with model=C: leave out --model=A, or name another --start",
        ),
        (["--start_from=ferplus", "--standardize=no"], "was trained with standardize=yes: leave out --standardize=no"),
        (["--start_from=own.bin", "--model_path=own.bin"], "the model to start from, own.bin would be replaced"),
        (["--start_from=ferplus", "--train=no", "--evaluate=yes"], "--start_from says where a training begins"),
    ],
)
def test_start_that_does_not_fit_is_one_line(flags, fragment, own_features, small_model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("own.bin").write_bytes(Path(small_model).read_bytes())
    try:
        assert train.main(["--train=yes", f"--folder={own_features}", *flags]) == 2
    except SystemExit as error:
        assert error.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert fragment in line
    assert Path("own.bin").read_bytes() == Path(small_model).read_bytes()
