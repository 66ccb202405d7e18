"""The networks: every architecture with every kind of feature, from the graph that learns to the file that is run."""

import math
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

import features
import saved_model
from model import ARCHITECTURES, Scaling, TrainingGraph, inference_flatbuffer
from parameters import EMOTIONS, FEATURES, HYPERPARAMS, OPTIMIZERS, Hyperparams, Network, Training
from tflearn_compat import tf
from train import uses_bfloat16

TINY = 16  # faces that a network must be able to learn by heart
STEADY = replace(HYPERPARAMS, optimizer="adam", optimizer_param=0.9, learning_rate=1e-3, keep_prob=1.0)


def tiny_set(network: Network) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (TINY, 48, 48), dtype=np.uint8)
    vectors = random.random((TINY, features.size(network.features)), np.float32)
    return images, vectors, np.arange(TINY) % network.output_size


def parameter_count(network: Network) -> int:
    """Number of learned weights."""
    graph = TrainingGraph(network, HYPERPARAMS, None, seed=0, steps=1000)
    return sum(math.prod(weight.shape.as_list()) for weight in graph.graph.get_collection("trainable_variables"))


def learn(graph: TrainingGraph, session: "tf.Session", faces: tuple, steps: int) -> list[float]:
    images, vectors, labels = faces
    feed = {graph.images: images, graph.features: vectors, graph.labels: labels}
    return [float(session.run([graph.loss, graph.train], feed)[0]) for _ in range(steps)]


def saved(network: Network, graph: TrainingGraph, session: "tf.Session", scaling: Scaling | None, folder: Path):
    checkpoint = graph.saver.save(session, str(folder / "weights"))
    path = folder / "model.bin"
    facts = {"expressions": EMOTIONS[: network.output_size], "features": network.features, "recipes": {}}
    saved_model.save(path, inference_flatbuffer(checkpoint, network, scaling), facts)
    return saved_model.load(path)


@pytest.mark.parametrize("kind", FEATURES)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_network_learns_a_tiny_set_and_its_saved_model_predicts_the_same(name, kind, tmp_path):
    network = Network(model=name, features=kind, output_size=5)
    images, vectors, _ = faces = tiny_set(network)
    scaling = Scaling.of(images, vectors)
    graph = TrainingGraph(network, STEADY, scaling, seed=0, steps=1000)
    with graph.session(bfloat16=False) as session:
        losses = learn(graph, session, faces, steps=20)
        assert losses[-1] < 0.3 * losses[0]
        model = saved(network, graph, session, scaling, tmp_path)
        feed = {graph.images: images, graph.features: vectors}
        logits = session.run(graph.logits, feed)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    probabilities = model.predict(images, vectors)
    assert probabilities.shape == (TINY, 5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(probabilities, expected, atol=1e-4)
    one_by_one = [model.predict(images[i : i + 1], vectors[i : i + 1]) for i in range(3)]
    np.testing.assert_allclose(np.concatenate(one_by_one), probabilities[:3], atol=1e-5)


@pytest.mark.parametrize(
    ("batch_norm_conv", "batch_norm_fc", "standardize"),
    [(True, True, True), (True, False, False), (False, True, False), (False, False, True)],
)
def test_switches_change_the_graph_and_survive_saving(batch_norm_conv, batch_norm_fc, standardize, tmp_path):
    network = Network("A", "landmarks", 3, standardize, batch_norm_conv, batch_norm_fc)
    images, vectors, _ = faces = tiny_set(network)
    scaling = Scaling.of(images, vectors) if standardize else None
    graph = TrainingGraph(network, replace(STEADY, learning_rate=1e-4), scaling, seed=0, steps=1000)
    norms = {
        variable.op.name for variable in graph.graph.get_collection("trainable_variables") if "norm" in variable.name
    }
    assert any("convolution" in name for name in norms) == batch_norm_conv
    assert any("dense" in name for name in norms) == batch_norm_fc
    with graph.session(bfloat16=False) as session:
        assert np.isfinite(learn(graph, session, faces, steps=3)).all()
        model = saved(network, graph, session, scaling, tmp_path)
        predicted = session.run(graph.predictions, {graph.images: images, graph.features: vectors})
    np.testing.assert_array_equal(model.predict(images, vectors).argmax(axis=1), predicted)


def test_weights_of_model_a_are_the_published_networks():
    # Counted by hand from the published description: two poolings, so the last convolution sees 12×12.
    convolutions = (25 * 1 + 3) * 64 + (25 * 64 + 3) * 64 + (16 * 64 + 3) * 128
    dense = (12 * 12 * 128 + 1) * 1024
    assert parameter_count(Network("A", "none", 7)) == convolutions + dense + (1024 + 1) * 7
    joint = (1024 + 1) * 40 + (136 + 1) * 1024 + (1024 + 1) * 40
    assert parameter_count(Network("A", "landmarks", 5)) == convolutions + dense + joint + (80 + 1) * 5


def test_weights_of_model_b_are_the_published_networks():
    # Convolutions with their norms, then the fully connected layers behind the third pooling.
    convolutions = (9 * 1 + 3) * 64 + (9 * 64 + 3) * 128 + (9 * 128 + 3) * 256
    dense = (6 * 6 * 256 + 1) * 4096 + (4096 + 1) * 1024
    assert parameter_count(Network("B", "none", 7)) == convolutions + dense + (1024 + 1) * 7
    joint = (1024 + 1) * 128 + (2728 + 1) * 1024 + (1024 + 1) * 128
    assert parameter_count(Network("B", "landmarks_hog_windows", 5)) == convolutions + dense + joint + (256 + 1) * 5


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_learns(name):
    rates = {"momentum": 0.01, "adam": 1e-3, "rmsprop": 1e-3, "adagrad": 0.02, "adadelta": 1.0}
    network = Network("A", "landmarks", 3)
    faces = tiny_set(network)
    hyperparams = Hyperparams(optimizer=name, optimizer_param=0.5, learning_rate=rates[name], decay_step=1000)
    graph = TrainingGraph(network, hyperparams, Scaling.of(*faces[:2]), seed=0, steps=1000)
    with graph.session(bfloat16=False) as session:
        losses = learn(graph, session, faces, steps=15)
    assert np.isfinite(losses).all() and min(losses[-3:]) < 0.7 * losses[0]


def test_learning_rate_decays_in_steps():
    faces = tiny_set(network := Network("A", "none", 3))
    frozen = replace(HYPERPARAMS, learning_rate_decay=1e-9, decay_step=2, keep_prob=1.0)
    graph = TrainingGraph(network, frozen, None, seed=0, steps=1000)
    with graph.session(bfloat16=False) as session:
        losses = learn(graph, session, faces, steps=6)
    assert losses[0] != losses[2], "the first two steps learn"
    np.testing.assert_allclose(losses[3:], losses[2], rtol=1e-5, err_msg="after them the rate is next to nothing")


def test_dropout_depends_on_seed_and_step_alone():
    network = Network("A", "none", 3)
    faces = tiny_set(network)

    def losses(seed: int) -> list[float]:
        graph = TrainingGraph(network, replace(STEADY, keep_prob=0.5), None, seed, steps=1000)
        with graph.session(bfloat16=False) as session:
            return learn(graph, session, faces, steps=4)

    first = losses(seed=0)
    np.testing.assert_allclose(losses(seed=0), first, rtol=1e-5)
    assert not np.allclose(losses(seed=1), first, rtol=1e-3)


def test_bfloat16_learns_like_float32():
    network = Network("A", "landmarks_hog", 5)
    faces = tiny_set(network)
    graph = TrainingGraph(network, STEADY, Scaling.of(*faces[:2]), seed=0, steps=1000)
    losses = {}
    for bfloat16 in (False, True):
        with graph.session(bfloat16) as session:
            losses[bfloat16] = learn(graph, session, faces, steps=20)
    assert losses[True][-1] < 0.3 and abs(losses[True][-1] - losses[False][-1]) < 0.2
    if uses_bfloat16(Training(bfloat16="auto")):
        assert losses[True] != losses[False], "bf16 was not used"


def test_every_architecture_can_be_chosen():
    assert tuple(ARCHITECTURES) == next(field for field in fields(Network) if field.name == "model").metadata["choices"]


def test_quantized_network_is_a_quarter_of_the_size_and_nearly_the_same(tmp_path):
    network = Network("A", "landmarks", 5)
    images, vectors, _ = faces = tiny_set(network)
    scaling = Scaling.of(images, vectors)
    graph = TrainingGraph(network, STEADY, scaling, seed=0, steps=1000)
    with graph.session(bfloat16=False) as session:
        learn(graph, session, faces, steps=10)
        checkpoint = graph.saver.save(session, str(tmp_path / "weights"))
    sizes, probabilities = [], []
    for quantize in (False, True):
        flatbuffer = inference_flatbuffer(checkpoint, network, scaling, quantize)
        model = saved_model.SavedModel(
            flatbuffer, {"expressions": EMOTIONS[:5], "features": "landmarks", "recipes": {}}
        )
        sizes.append(len(flatbuffer))
        probabilities.append(model.predict(images, vectors))
    assert sizes[1] < 0.27 * sizes[0]
    np.testing.assert_allclose(probabilities[1], probabilities[0], atol=0.1)


def test_constant_features_and_blank_images_do_not_divide_by_zero():
    scaling = Scaling.of(np.zeros((4, 48, 48), np.uint8), np.full((4, 3), 7, np.float32))
    assert scaling.pixel_deviation > 0 and (scaling.feature_deviations > 0).all()
