"""The networks: every architecture with every kind of feature, from the graph that learns to the file that is run."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import train
from experiments.results import INPUTS
from ferkit import features, saved_model
from ferkit.constants import EMOTIONS
from ferkit.learning.architecture import Architecture
from ferkit.learning.graph import TrainingGraph, inference_flatbuffer, mixed
from ferkit.learning.run import uses_bfloat16
from ferkit.learning.scaling import Scaling
from ferkit.learning.tflearn_compat import tf
from ferkit.settings import OPTIMIZERS, Hyperparams, Network, Training
from model import ARCHITECTURES
from parameters import HYPERPARAMS

AT_ONCE = (("A", "landmarks"), ("C", "none"))  # tested by `make test`; the others by `make test-all`
TINY = 16  # faces that a network must be able to learn by heart
STEADY = replace(HYPERPARAMS, optimizer="adam", optimizer_param=0.9, learning_rate=1e-3, keep_prob=1.0)
PLAIN = replace(HYPERPARAMS, optimizer_param=0.0, learning_rate=0.1, keep_prob=1.0)  # a step is the rate × the gradient


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """`quick` is an architecture that learns a few faces by heart in a few steps, as the full-size ones do."""

    def build(layers, faces):
        for filters in (16, 32):
            faces = layers.convolution(faces, filters, 3, pooled=True)
        return layers.dense(layers.flatten(faces), 256)

    monkeypatch.setitem(ARCHITECTURES, "quick", Architecture(build, joint=32))


@pytest.fixture
def slim(monkeypatch: pytest.MonkeyPatch) -> Network:
    """A network with one of everything, built in a moment."""

    def build(layers, faces):
        for filters, pooled in ((4, True), (8, False), (8, True)):
            faces = layers.convolution(faces, filters, 3, pooled=pooled)
        return layers.dense(layers.dropout(layers.global_average_pooling(faces)), 16)

    monkeypatch.setitem(ARCHITECTURES, "slim", Architecture(build, joint=4))
    return Network("slim", "landmarks", 3)


def graph_of(network: Network, *arguments, **keywords) -> TrainingGraph:
    return TrainingGraph(network, ARCHITECTURES[network.model], *arguments, **keywords)


def flatbuffer_of(checkpoint: str, network: Network, *arguments, **keywords) -> bytes:
    return inference_flatbuffer(checkpoint, network, ARCHITECTURES[network.model], *arguments, **keywords)


def tiny_set(network: Network) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (TINY, 48, 48), dtype=np.uint8)
    vectors = random.random((TINY, features.size(network.features)), np.float32)
    return images, vectors, np.arange(TINY) % network.output_size


def parameter_count(network: Network) -> int:
    """Number of learned weights."""
    graph = graph_of(network, HYPERPARAMS, None, seed=0, steps=1000)
    return sum(math.prod(weight.shape.as_list()) for weight in graph.graph.get_collection("trainable_variables"))


def learn(graph: TrainingGraph, session: "tf.Session", faces: tuple, steps: int) -> list[float]:
    images, vectors, labels = faces
    feed = {graph.images: images, graph.features: vectors, graph.labels: labels}
    return [float(session.run([graph.loss, graph.train], feed)[0]) for _ in range(steps)]


def values(graph: TrainingGraph, session: "tf.Session") -> dict[str, np.ndarray]:
    """The network's weights by name, without the optimizer's memory and the averages, which are named after them."""
    variables = graph.graph.get_collection("variables", "network/")
    names = {variable.op.name for variable in variables}
    weights = [variable for variable in variables if variable.op.name.rpartition("/")[0] not in names]
    return {variable.op.name: value for variable, value in zip(weights, session.run(weights), strict=True)}


def step_of(graph: TrainingGraph, faces: tuple, number: int = 0) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The first weights before and after one step of training, as if it were step `number`."""
    with graph.session(bfloat16=False) as session:
        graph.step.load(number, session)
        before = values(graph, session)
        learn(graph, session, faces, steps=1)
        return before, values(graph, session)


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> float:
    return float(-(targets * (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))).sum(axis=1).mean())


def saved(network: Network, graph: TrainingGraph, session: "tf.Session", scaling: Scaling | None, folder: Path):
    checkpoint = graph.saver.save(session, str(folder / "weights"))
    path = folder / "model.bin"
    facts = {"expressions": EMOTIONS[: network.output_size], "features": network.features, "feature_provenance": {}}
    saved_model.save(path, flatbuffer_of(checkpoint, network, scaling), facts)
    return saved_model.load(path)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=[] if name == "quick" or (name, kind) in AT_ONCE else pytest.mark.slow)
        for name in ("quick", *ARCHITECTURES)
        for kind in INPUTS
    ],
)
def test_network_learns_a_tiny_set_and_its_saved_model_predicts_the_same(name, kind, tmp_path):
    network = Network(model=name, features=kind, output_size=5)
    images, vectors, _ = faces = tiny_set(network)
    scaling = Scaling.of(images, vectors)
    graph = graph_of(network, STEADY, scaling, seed=0, steps=1000)
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
    network = Network("quick", "landmarks", 3, standardize, batch_norm_conv, batch_norm_fc)
    images, vectors, _ = faces = tiny_set(network)
    scaling = Scaling.of(images, vectors) if standardize else None
    graph = graph_of(network, replace(STEADY, learning_rate=1e-4), scaling, seed=0, steps=1000)
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


def test_weights_of_model_c_are_its_tables():
    sizes = (1, 32, 64, 64, 128, 128, 256, 256, 512, 512)
    convolutions = sum((9 * given + 3) * made for given, made in pairwise(sizes))
    assert parameter_count(Network("C", "none", 7)) == convolutions + (512 + 1) * 7
    joint = (512 + 1) * 128 + (136 + 1) * 1024 + (1024 + 1) * 128
    assert parameter_count(Network("C", "landmarks", 5)) == convolutions + joint + (256 + 1) * 5


def test_averaged_image_branch_gives_each_filters_mean(monkeypatch):
    def build(layers, faces):
        return layers.global_average_pooling(layers.convolution(faces, 1, 1))

    monkeypatch.setitem(ARCHITECTURES, "slim", Architecture(build, joint=4))
    images, vectors, _ = tiny_set(network := Network("slim", "none", 2, batch_norm_conv=False))
    graph = graph_of(network, STEADY, None, seed=0, steps=1000)
    with graph.session(bfloat16=False) as session:
        for variable in graph.graph.get_collection("trainable_variables"):
            fill = np.zeros if variable.shape.rank == 1 else np.ones
            variable.load(fill(variable.shape.as_list()), session)
        logits = session.run(graph.logits, {graph.images: images, graph.features: vectors})
    means = images.mean(axis=(1, 2))
    np.testing.assert_allclose(logits, np.stack([means, means], axis=1), rtol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_learns(name):
    rates = {"momentum": 0.01, "nesterov": 0.01, "adam": 1e-3, "rmsprop": 1e-3, "adagrad": 0.02, "adadelta": 1.0}
    network = Network("quick", "landmarks", 3)
    faces = tiny_set(network)
    hyperparams = Hyperparams(optimizer=name, optimizer_param=0.5, learning_rate=rates[name], decay_step=1000)
    graph = graph_of(network, hyperparams, Scaling.of(*faces[:2]), seed=0, steps=1000)
    with graph.session(bfloat16=False) as session:
        losses = learn(graph, session, faces, steps=40)
    assert np.isfinite(losses).all() and min(losses[-3:]) < 0.7 * losses[0]


def test_learning_rate_decays_in_steps():
    faces = tiny_set(network := Network("quick", "none", 3))
    frozen = replace(HYPERPARAMS, learning_rate_decay=1e-9, decay_step=2, keep_prob=1.0)
    graph = graph_of(network, frozen, None, seed=0, steps=1000)
    with graph.session(bfloat16=False) as session:
        losses = learn(graph, session, faces, steps=6)
    assert losses[0] != losses[2], "the first two steps learn"
    np.testing.assert_allclose(losses[3:], losses[2], rtol=1e-5, err_msg="after them the rate is next to nothing")


@pytest.mark.parametrize("warmup", [0, 40])
def test_cosine_falls_from_the_rate_to_nothing(slim, warmup):
    hyperparams = Hyperparams(learning_rate=0.2, schedule="cosine", warmup_steps=warmup)
    graph = graph_of(slim, hyperparams, None, seed=0, steps=240)
    expected = {
        0: 0.2 / max(1, warmup),
        **({10: 0.2 * 11 / 40, 39: 0.2} if warmup else {}),
        warmup: 0.2,
        warmup + (240 - warmup) // 4: 0.2 * (1 + math.sqrt(0.5)) / 2,
        warmup + (240 - warmup) // 2: 0.1,
        240: 0,
        300: 0,
    }
    with graph.session(bfloat16=False) as session:
        for step, rate in expected.items():
            graph.step.load(step, session)
            assert session.run(graph.rate) == pytest.approx(rate, rel=1e-5, abs=1e-8), step


def test_exponential_decay_begins_after_warm_up(slim):
    hyperparams = Hyperparams(learning_rate=0.2, warmup_steps=40, decay_step=50, learning_rate_decay=0.5)
    graph = graph_of(slim, hyperparams, None, seed=0, steps=240)
    with graph.session(bfloat16=False) as session:
        for step, rate in {0: 0.005, 19: 0.1, 40: 0.2, 89: 0.2, 90: 0.1, 140: 0.05}.items():
            graph.step.load(step, session)
            assert session.run(graph.rate) == pytest.approx(rate, rel=1e-5), step


def test_schedules_rate_is_the_one_that_is_used(slim):
    faces, rate = tiny_set(slim), 0.1 * (1 + math.cos(math.pi * 0.75)) / 2
    scaling = Scaling.of(*faces[:2])
    start, full = step_of(graph_of(slim, PLAIN, scaling, seed=0, steps=8), faces)
    cosine = graph_of(slim, replace(PLAIN, schedule="cosine"), scaling, seed=0, steps=8)
    before, after = step_of(cosine, faces, number=6)
    for name in ("network/logits/W", "network/feature_dense/W"):
        np.testing.assert_array_equal(before[name], start[name])
        gradient = (full[name] - start[name]) / 0.1
        tolerance = 0.02 * np.abs(gradient).max()
        assert tolerance > 1e-6
        np.testing.assert_allclose((after[name] - before[name]) / rate, gradient, atol=tolerance)


def test_nesterov_looks_ahead(slim):
    """Its first step is the gradient and the momentum of that gradient; plain momentum's is the gradient alone."""
    faces = tiny_set(slim)
    steps = {}
    for name in ("momentum", "nesterov"):
        hyperparams = replace(PLAIN, optimizer=name, optimizer_param=0.5)
        graph = graph_of(slim, hyperparams, Scaling.of(*faces[:2]), seed=0, steps=8)
        before, after = step_of(graph, faces)
        steps[name] = after["network/logits/W"] - before["network/logits/W"]
    assert np.abs(steps["momentum"]).max() > 1e-4
    np.testing.assert_allclose(steps["nesterov"], 1.5 * steps["momentum"], atol=1e-5)


def test_weight_decay_shrinks_kernels_and_nothing_else(slim):
    faces = tiny_set(slim)
    before, without = step_of(graph_of(slim, PLAIN, None, seed=0, steps=8), faces)
    same, decayed = step_of(graph_of(slim, replace(PLAIN, weight_decay=0.5), None, seed=0, steps=8), faces)
    kernels = {name for name in before if name.endswith("/W")}
    assert len(kernels) == 8 and len(before) > 2 * len(kernels)
    for name, value in before.items():
        np.testing.assert_array_equal(value, same[name])
        expected = without[name] - 0.1 * 0.5 * value if name in kernels else without[name]
        np.testing.assert_allclose(decayed[name], expected, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_label_smoothing_spreads_a_share_evenly(slim, share):
    network = replace(slim, batch_norm_conv=False)
    images, vectors, labels = tiny_set(network)
    graph = graph_of(network, replace(STEADY, label_smoothing=share), Scaling.of(images, vectors), 0, steps=8)
    feed = {graph.images: images, graph.features: vectors, graph.labels: labels}
    with graph.session(bfloat16=False) as session:
        learn(graph, session, (images, vectors, labels), steps=3)
        loss, logits = session.run([graph.loss, graph.logits], feed)
    targets = np.where(np.eye(3)[labels] == 1, 1 - share + share / 3, share / 3)
    assert loss == pytest.approx(cross_entropy(logits, targets), rel=1e-4)


def test_teacher_takes_its_share_of_the_labels(slim):
    network = replace(slim, batch_norm_conv=False)
    images, vectors, labels = tiny_set(network)
    taught = np.random.default_rng(1).dirichlet(np.ones(3), TINY).astype(np.float32)
    hyperparams = replace(STEADY, label_smoothing=0.1, teacher_share=0.7)
    graph = graph_of(network, hyperparams, Scaling.of(images, vectors), 0, steps=8)
    feed = {graph.images: images, graph.features: vectors, graph.labels: labels, graph.taught: taught}
    with graph.session(bfloat16=False) as session:
        loss, logits = session.run([graph.loss, graph.logits], feed)
    targets = 0.3 * (0.9 * np.eye(3)[labels] + 0.1 / 3) + 0.7 * taught
    assert loss == pytest.approx(cross_entropy(logits, targets), rel=1e-4)


def test_mixup_mixes_each_batch_in_one_share_that_depends_on_seed_and_step():
    first, second = np.float32([[1], [2], [3]]), np.eye(3, dtype=np.float32)

    def shares(alpha: float, seed: int, steps: range) -> list[float]:
        found = []
        with tf.Graph().as_default(), tf.Session() as session:
            step = tf.placeholder(tf.int64, ())
            both = mixed(alpha, seed, step, tf.constant(first), tf.constant(second))
            for number in steps:
                one, targets = session.run(both, {step: number})
                np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
                share = targets[0, 0]
                assert 0 <= share <= 1
                np.testing.assert_allclose(targets, share * second + (1 - share) * second[::-1], atol=1e-6)
                np.testing.assert_allclose(one, share * first + (1 - share) * first[::-1], atol=1e-6)
                found.append(share)
        return found

    assert shares(0.4, 1, range(5, 8)) == shares(0.4, 1, range(8))[5:]
    assert len({*shares(0.4, 1, range(8)), *shares(0.4, 2, range(8))}) == 16
    for alpha in (0.2, 1.0):
        drawn = shares(alpha, 0, range(400))
        assert np.mean(drawn) == pytest.approx(0.5, abs=0.05)
        assert np.var(drawn) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.15), "as Beta's"


def test_mixup_mixes_what_the_network_is_given_and_the_labels(slim):
    network = replace(slim, batch_norm_conv=False)
    _, vectors, labels = tiny_set(network)
    images = np.full((TINY, 48, 48), 9, np.uint8)  # mixed, they stay the same
    graph = graph_of(network, replace(STEADY, mixup=1.0), Scaling.of(images, vectors), seed=3, steps=8)
    with graph.graph.as_default():
        share = mixed(1.0, 3, graph.step, tf.constant([[1.0], [0.0]]))[0][0, 0]
    with graph.session(bfloat16=False) as session:
        learn(graph, session, (images, vectors, labels), steps=15)
        feed = {graph.images: images, graph.features: vectors, graph.labels: labels}
        loss, accuracy, part = session.run([graph.loss, graph.accuracy, share], feed)
        mixture = part * vectors + (1 - part) * vectors[::-1]
        logits = session.run(graph.logits, {graph.images: images, graph.features: mixture})
        plain = session.run(graph.logits, {graph.images: images, graph.features: vectors})
    targets = part * np.eye(3)[labels] + (1 - part) * np.eye(3)[labels[::-1]]
    assert 0.05 < part < 0.95
    assert accuracy == pytest.approx(targets[np.arange(len(labels)), logits.argmax(axis=1)].mean(), rel=1e-5)
    assert loss == pytest.approx(cross_entropy(logits, targets), rel=1e-4)
    assert loss != pytest.approx(cross_entropy(plain, np.eye(3)[labels]), rel=1e-3)


def test_averaged_weights_are_the_moving_averages_and_what_inference_uses(slim, tmp_path):
    images, vectors, _ = faces = tiny_set(slim)
    scaling = Scaling.of(images, vectors)
    steady = replace(STEADY, learning_rate=0.01, ema_decay=0.3)
    graph = graph_of(slim, steady, scaling, seed=0, steps=8)
    feed = {graph.images: images, graph.features: vectors}
    with graph.session(bfloat16=False) as session:
        averages = values(graph, session)
        for step in range(1, 7):
            learn(graph, session, faces, steps=1)
            decay = min(0.3, (1 + step) / (10 + step))
            for name, value in values(graph, session).items():
                averages[name] = decay * averages[name] + (1 - decay) * value
        newest = values(graph, session)
        logits = session.run(graph.logits, feed)
        checkpoint = graph.saver.save(session, str(tmp_path / "weights"))

    assert {"network/convolution_1_norm/mean", "network/logits/b", "network/convolution_2/W"} <= averages.keys()
    assert np.abs(newest["network/logits/W"] - averages["network/logits/W"]).max() > 1e-3
    plain = graph_of(slim, STEADY, scaling, seed=1, steps=8)
    expected = {}
    for kind, weights in (("averages", averages), ("newest", newest)):
        with plain.session(bfloat16=False) as session:
            for variable in plain.graph.get_collection("variables"):
                if variable.op.name in weights:
                    variable.load(weights[variable.op.name], session)
            expected[kind] = session.run(plain.logits, {plain.images: images, plain.features: vectors})
    np.testing.assert_allclose(logits, expected["averages"], atol=1e-4)
    assert np.abs(logits - expected["newest"]).max() > 1e-2

    for averaged, kind in ((True, "averages"), (False, "newest")):
        facts = {"expressions": EMOTIONS[:3], "features": slim.features, "feature_provenance": {}}
        model = saved_model.SavedModel(flatbuffer_of(checkpoint, slim, scaling, averaged), facts)
        powers = np.exp(expected[kind])
        softmax = powers / powers.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(model.predict(images, vectors), softmax, atol=1e-4, err_msg=kind)


def test_dropout_depends_on_seed_and_step_alone():
    network = Network("quick", "none", 3)
    faces = tiny_set(network)

    def losses(seed: int) -> list[float]:
        graph = graph_of(network, replace(STEADY, keep_prob=0.5), None, seed, steps=1000)
        with graph.session(bfloat16=False) as session:
            return learn(graph, session, faces, steps=4)

    first = losses(seed=0)
    np.testing.assert_allclose(losses(seed=0), first, rtol=1e-5)
    assert not np.allclose(losses(seed=1), first, rtol=1e-3)


def test_bfloat16_learns_like_float32():
    network = Network("quick", "landmarks_hog", 5)
    faces = tiny_set(network)
    graph = graph_of(network, STEADY, Scaling.of(*faces[:2]), seed=0, steps=1000)
    losses = {}
    for bfloat16 in (False, True):
        with graph.session(bfloat16) as session:
            losses[bfloat16] = learn(graph, session, faces, steps=20)
    assert losses[True][-1] < 0.3 and abs(losses[True][-1] - losses[False][-1]) < 0.2
    if uses_bfloat16(Training(bfloat16="auto")):
        assert losses[True] != losses[False], "bf16 was not used"


def test_every_architecture_can_be_chosen():
    (flag,) = [action for action in train.parser()._actions if action.dest == "model"]
    assert tuple(flag.choices) == tuple(ARCHITECTURES)


def test_quantized_network_is_a_quarter_of_the_size_and_nearly_the_same(tmp_path):
    network = Network("quick", "landmarks", 5)
    images, vectors, _ = faces = tiny_set(network)
    scaling = Scaling.of(images, vectors)
    graph = graph_of(network, STEADY, scaling, seed=0, steps=1000)
    with graph.session(bfloat16=False) as session:
        learn(graph, session, faces, steps=10)
        checkpoint = graph.saver.save(session, str(tmp_path / "weights"))
    sizes, probabilities = [], []
    for quantize in (False, True):
        flatbuffer = flatbuffer_of(checkpoint, network, scaling, quantize=quantize)
        model = saved_model.SavedModel(
            flatbuffer, {"expressions": EMOTIONS[:5], "features": "landmarks", "feature_provenance": {}}
        )
        sizes.append(len(flatbuffer))
        probabilities.append(model.predict(images, vectors))
    assert sizes[1] < 0.27 * sizes[0]
    np.testing.assert_allclose(probabilities[1], probabilities[0], atol=0.1)


def test_constant_features_and_blank_images_do_not_divide_by_zero():
    scaling = Scaling.of(np.zeros((4, 48, 48), np.uint8), np.full((4, 3), 7, np.float32))
    assert scaling.pixel_deviation > 0 and (scaling.feature_deviations > 0).all()
