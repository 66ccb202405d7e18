"""The TensorFlow graph for training, and the network in the form that is saved.

graph = TrainingGraph(network, architecture, hyperparams, scaling, seed=0, steps=2912)
flatbuffer = inference_flatbuffer("checkpoints/epoch-3", network, architecture, scaling)
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ferkit import features
from ferkit.constants import IMAGE_SIZE
from ferkit.learning.architecture import FEATURE_UNITS, Architecture
from ferkit.learning.layers import Dropout, Layers, Tensor
from ferkit.learning.scaling import Scaling
from ferkit.learning.tflearn_compat import tf, tflearn
from ferkit.processes import quiet
from ferkit.settings import Hyperparams, Network

LAST_LAYER = "network/logits"  # the scope of its variables


class TrainingGraph:
    """A network in training, in its own graph: feed `images`, `features` and `labels`, and run `train`.

    With a teacher, also feed `taught`, the teacher's probabilities (N, output_size).
    Random numbers depend only on `seed` and the step, so that a resumed training equals an uninterrupted one. steps:
    number of steps of the whole training, for the cosine schedule. distributions: also feed `targets` (N, output_size),
    which are learned in place of the labels. frequencies: of the expressions in the training set (output_size,), for
    logit adjustment (Menon et al., ICLR 2021).
    """

    def __init__(
        self,
        network: Network,
        architecture: Architecture,
        hyperparams: Hyperparams,
        scaling: Scaling | None,
        seed: int,
        steps: int,
        frequencies: np.ndarray | None = None,
        distributions: bool = False,
    ) -> None:
        self.graph = tf.Graph()
        with self.graph.as_default(), quiet():
            tf.set_random_seed(seed)
            self.images = tf.placeholder(tf.uint8, (None, IMAGE_SIZE, IMAGE_SIZE), "images")
            self.features = tf.placeholder(tf.float32, (None, features.size(network.features)), "features")
            self.labels = tf.placeholder(tf.int64, (None,), "labels")
            self.taught = tf.placeholder(tf.float32, (None, network.output_size), "taught")
            self.step = tf.train.get_or_create_global_step()

            faces = tf.cast(self.images[..., None], tf.float32)
            vectors = self.features
            if distributions:
                self.targets = tf.placeholder(tf.float32, (None, network.output_size), "targets")
                targets = spread(self.targets, network.output_size, hyperparams.label_smoothing)
            else:
                targets = smoothed(self.labels, network.output_size, hyperparams.label_smoothing)
            if hyperparams.teacher_share:
                targets = (1 - hyperparams.teacher_share) * targets + hyperparams.teacher_share * self.taught
            labels = tf.one_hot(self.labels, network.output_size)
            if hyperparams.mixup:
                batches = faces, vectors, targets, labels
                faces, vectors, targets, labels = mixed(hyperparams.mixup, seed, self.step, *batches)
            dropout = Dropout(hyperparams.keep_prob, seed, self.step)
            frozen = hyperparams.body_rate == 0
            logits = build(faces, vectors, network, architecture, scaling, dropout, fixed_norm=frozen)
            self._weights = network_variables()  # before the optimizer adds its own variables
            learned = logits
            if hyperparams.logit_adjustment and frequencies is not None:
                logarithms = np.log(np.maximum(frequencies, 1e-6)).astype(np.float32)
                learned = logits + hyperparams.logit_adjustment * logarithms
            self.loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=learned))
            hits = labels * tf.one_hot(tf.argmax(logits, 1), network.output_size)
            self.accuracy = tf.reduce_mean(tf.reduce_sum(hits, 1))  # under mixup, of a label its share in the face
            objective = self.loss
            if hyperparams.weight_decay:
                kernels = [weight for weight in tf.trainable_variables() if weight.shape.rank > 1]
                objective += hyperparams.weight_decay * tf.add_n([tf.nn.l2_loss(kernel) for kernel in kernels])
            self.rate = learning_rate(hyperparams, self.step, steps)
            with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):  # averages of batch normalization
                self.train = minimized(objective, hyperparams, self.rate, self.step)
            self._ema = ema = None
            if hyperparams.ema_decay:
                self._ema = ema = tf.train.ExponentialMovingAverage(hyperparams.ema_decay, self.step)
                with tf.control_dependencies([self.train]):
                    self.train = ema.apply(self._weights)

            images = tf.cast(self.images[..., None], tf.float32)
            self.logits = build(images, self.features, network, architecture, scaling, dropout=None, ema=ema)
            self.predictions = tf.argmax(self.logits, 1)  # computed as in inference
            self.saver = tf.train.Saver(max_to_keep=None)  # saves the weights and the optimizer's variables
            self.initialize = tf.global_variables_initializer()

    def session(self, bfloat16: bool) -> Any:
        """A session on this graph. With `bfloat16`, products are computed in bf16, and weights stay in fp32."""
        config = tf.ConfigProto()
        if bfloat16:
            rewrites = config.graph_options.rewrite_options
            rewrites.auto_mixed_precision_onednn_bfloat16 = type(rewrites).ON
        with quiet():
            session = tf.Session(graph=self.graph, config=config)
            session.run(self.initialize)
        return session

    def weights_in(self, session: Any) -> dict[str, np.ndarray]:
        """The network's weights in a session, by the names of their variables."""
        return session.run({weight.op.name: weight for weight in self._weights})

    def norm_inputs(self) -> dict[str, Tensor]:
        """What each batch normalization is given in inference (N, …, C), by the scope of its variables."""
        norms = (operation for operation in self.graph.get_operations() if operation.type == "FusedBatchNormV3")
        inferring = (operation for operation in norms if not operation.get_attr("is_training"))
        return {operation.inputs[1].op.name.rpartition("/scale")[0]: operation.inputs[0] for operation in inferring}

    def assign(self, session: Any, values: Mapping[str, np.ndarray]) -> None:
        """Gives all the network's weights, and their moving averages, the values with the names of their variables."""
        with quiet():
            for weight in self._weights:
                weight.load(values[weight.op.name], session)
                if self._ema is not None:
                    self._ema.average(weight).load(values[weight.op.name], session)


def inference_flatbuffer(
    weights: str | Mapping[str, np.ndarray],
    network: Network,
    architecture: Architecture,
    scaling: Scaling | None,
    averaged: bool = False,
    quantize: bool = False,
) -> bytes:
    """A network as a LiteRT flatbuffer that maps raw inputs to probabilities.

    weights: the path of a checkpoint, or an array for each name of a weight.
    The inputs are `images` (N, 48, 48, 1) float32 of 0…255 and, for a network with features, `features` (N, size)
    float32. averaged: use the exponential moving average (EMA) of the checkpoint's weights. quantize: store the weights
    in 8 bits; activations are still computed as floats.
    """
    with tf.Graph().as_default(), quiet(), tf.Session() as session:
        images = tf.placeholder(tf.float32, (None, IMAGE_SIZE, IMAGE_SIZE, 1), "images")
        inputs = [images]
        if network.features != "none":
            inputs.append(tf.placeholder(tf.float32, (None, features.size(network.features)), "features"))
        probabilities = tf.nn.softmax(build(images, inputs[-1], network, architecture, scaling, dropout=None))
        if isinstance(weights, str):
            ema = tf.train.ExponentialMovingAverage(0.0) if averaged else None
            names = {ema.average_name(weight) if ema else weight.op.name: weight for weight in network_variables()}
            tf.train.Saver(names).restore(session, weights)
        else:
            for weight in network_variables():
                weight.load(weights[weight.op.name], session)
        converter = tf.lite.TFLiteConverter.from_session(session, inputs, [probabilities])
        if quantize:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        return converter.convert()


def build(
    faces: Tensor,
    vectors: Tensor,
    network: Network,
    architecture: Architecture,
    scaling: Scaling | None,
    dropout: Dropout | None,
    ema: Any = None,
    fixed_norm: bool = False,
) -> Tensor:
    """The network from raw inputs to logits (N, output_size): with `dropout` for training, without it for inference.

    faces: (N, 48, 48, 1) float32 of 0…255. vectors: (N, size) float32. ema: TensorFlow's exponential moving average. A
    second call in the same graph shares the weights of the first call or, with `ema`, uses their averages. fixed_norm:
    batch normalization computes as in inference in any case.
    """
    layers = Layers(network.batch_norm_conv, network.batch_norm_fc, dropout, fixed_norm)
    if scaling is not None:
        faces = (faces - scaling.pixel_mean) / scaling.pixel_deviation

    def averaged(getter: Any, name: str, *arguments: Any, **keywords: Any) -> Tensor:  # replaces each weight
        return ema.average(getter(name, *arguments, **keywords))

    with tf.variable_scope("network", reuse=tf.AUTO_REUSE, custom_getter=averaged if ema else None):
        layer = architecture.build(layers, faces)
        if network.features != "none":
            if scaling is not None:
                vectors = (vectors - scaling.feature_means) / scaling.feature_deviations
            layer = layers.fully_connected(layer, architecture.joint, "image_joint")
            vectors = layers.fully_connected(vectors, FEATURE_UNITS, "feature_dense")
            vectors = layers.fully_connected(vectors, architecture.joint, "feature_joint")
            layer = tf.concat([layer, vectors], axis=1)
        return tflearn.fully_connected(layer, network.output_size, scope="logits")


def network_variables() -> list[Any]:
    """The network's weights in the current graph, including the averages of batch normalization."""
    return tf.global_variables("network/")


def smoothed(labels: Tensor, classes: int, share: float) -> Tensor:
    """One-hot labels (N, classes) with label smoothing: `share` is spread evenly (Szegedy et al., CVPR 2016)."""
    return spread(tf.one_hot(labels, classes), classes, share)


def spread(targets: Tensor, classes: int, share: float) -> Tensor:
    """Distributions (N, classes) of which `share` is spread evenly over all classes."""
    return targets * (1 - share) + share / classes


def mixed(alpha: float, seed: int, step: Any, *batches: Tensor) -> list[Tensor]:
    """Mixup (Zhang et al., ICLR 2018): mixes each batch with its reverse, in a ratio drawn from Beta(alpha, alpha).

    The ratio depends only on the seed and the step.
    """
    seeds = tf.stack([tf.constant(seed * 1000 + 999, tf.int64), tf.cast(step, tf.int64)])
    first, second = tf.unstack(tf.random.stateless_gamma([2], seeds, alpha))  # their ratio has the Beta distribution
    share = first / (first + second)
    return [share * batch + (1 - share) * tf.reverse(batch, [0]) for batch in batches]


def learning_rate(hyperparams: Hyperparams, step: Any, steps: int) -> Tensor:
    """The schedule's learning rate at `step` of `steps`."""
    warmup = hyperparams.warmup_steps
    after = tf.maximum(tf.cast(step, tf.float32) - warmup, 0)
    if hyperparams.schedule == "cosine":  # Loshchilov and Hutter, ICLR 2017, without restarts
        share = tf.minimum(after / max(1, steps - warmup), 1)
        rate = hyperparams.learning_rate * (1 + tf.cos(math.pi * share)) / 2
    else:
        rate = tf.train.exponential_decay(
            hyperparams.learning_rate, after, hyperparams.decay_step, hyperparams.learning_rate_decay, staircase=True
        )
    return rate * tf.minimum((tf.cast(step, tf.float32) + 1) / warmup, 1) if warmup else rate


def minimized(objective: Tensor, hyperparams: Hyperparams, rate: Tensor, step: Any) -> Any:
    """A step of the optimizer. The layers before the last one learn at `body_rate` times the rate, or not at all."""
    if hyperparams.body_rate == 1:
        return optimizer(hyperparams, rate).minimize(objective, global_step=step)
    last = tf.trainable_variables(f"{LAST_LAYER}/")
    body = [weight for weight in tf.trainable_variables() if weight not in set(last)] if hyperparams.body_rate else []
    gradients = tf.gradients(objective, [*last, *body])
    with tf.control_dependencies(gradients):  # those of the body need the last layer as it was
        steps = [optimizer(hyperparams, rate).apply_gradients(zip(gradients[: len(last)], last, strict=True), step)]
        if body:
            slower = optimizer(hyperparams, rate * hyperparams.body_rate)
            steps.append(slower.apply_gradients(zip(gradients[len(last) :], body, strict=True)))
    return tf.group(*steps)


def optimizer(hyperparams: Hyperparams, rate: Tensor) -> Any:
    """The optimizer of the hyperparameters, from TFLearn."""
    parameter = hyperparams.optimizer_param
    optimizers = {
        "momentum": lambda: tflearn.Momentum(rate, momentum=parameter),
        "nesterov": lambda: tflearn.Nesterov(rate, momentum=parameter),
        "adam": lambda: tflearn.Adam(rate, beta1=parameter),
        "rmsprop": lambda: tflearn.RMSProp(rate, decay=parameter),
        "adagrad": lambda: tflearn.AdaGrad(rate),
        "adadelta": lambda: tflearn.AdaDelta(rate, rho=parameter),
    }
    return optimizers[hyperparams.optimizer]().get_tensor()
