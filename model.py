"""The networks: architectures as data, the graph that learns, and the graph that is saved.

graph = TrainingGraph(network, hyperparams, scaling, seed=0, steps=2912)
flatbuffer = inference_flatbuffer("checkpoints/epoch-3", network, scaling)
"""

import math
from dataclasses import dataclass

import numpy as np

import features
from command_line import quiet
from parameters import IMAGE_SIZE, Hyperparams, Network
from tflearn_compat import tf, tflearn

FEATURE_UNITS = 1024  # of the fully connected layer that the landmarks and HOG go through
BATCH_NORM_MOMENTUM = 0.9  # of the moving averages that inference uses
BATCH_NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class Convolution:
    """Convolution, ReLU, batch normalization, and where `pooled` the maximum of 3×3 at every second pixel."""

    filters: int
    side: int  # of the kernel, in pixels
    pooled: bool = True


@dataclass(frozen=True)
class Architecture:
    """An image branch: convolutions, then fully connected layers with dropout before each.

    averaged: each filter's mean over the image is what goes on, in place of all its pixels.
    """

    convolutions: tuple[Convolution, ...]
    dense: tuple[int, ...]  # units
    joint: int  # units that each branch is reduced to before the two are joined
    averaged: bool = False


ARCHITECTURES = {
    "A": Architecture(
        convolutions=(Convolution(64, 5), Convolution(64, 5), Convolution(128, 4, pooled=False)),
        dense=(1024,),
        joint=40,
    ),
    "B": Architecture(
        convolutions=(Convolution(64, 3), Convolution(128, 3), Convolution(256, 3)),
        dense=(4096, 1024),
        joint=128,
    ),
    "C": Architecture(
        convolutions=(
            Convolution(32, 3),
            *(Convolution(64, 3, pooled=False), Convolution(64, 3)),
            *(Convolution(128, 3, pooled=False), Convolution(128, 3)),
            *(Convolution(256, 3, pooled=False), Convolution(256, 3)),
            *(Convolution(512, 3, pooled=False), Convolution(512, 3, pooled=False)),
        ),
        dense=(),
        joint=128,
        averaged=True,
    ),
}


@dataclass(frozen=True)
class Scaling:
    """Means and deviations by which the network standardizes its inputs: of all pixels, and of each feature."""

    pixel_mean: float
    pixel_deviation: float
    feature_means: np.ndarray  # (size,) float32
    feature_deviations: np.ndarray  # (size,) float32

    @staticmethod
    def of(images: np.ndarray, vectors: np.ndarray) -> "Scaling":
        """From the training set: (N, 48, 48) uint8 and (N, size) float32."""
        deviations = vectors.std(axis=0, dtype=np.float64)
        return Scaling(
            float(images.mean()),
            max(float(images.std()), 1.0),
            vectors.mean(axis=0, dtype=np.float64).astype(np.float32),
            np.where(deviations > 1e-6, deviations, 1).astype(np.float32),  # a constant feature stays constant
        )


class TrainingGraph:
    """A network in training, in a graph of its own: feed `images`, `features` and `labels`, run `train`.

    With a teacher, feed `taught` too: its probabilities (N, output_size).
    Its randomness depends on `seed` and the step alone, so that a resumed run repeats the uninterrupted one. steps: of
    the whole training, over which a cosine schedule falls.
    """

    def __init__(
        self, network: Network, hyperparams: Hyperparams, scaling: Scaling | None, seed: int, steps: int
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
            vectors, targets = self.features, smoothed(self.labels, network.output_size, hyperparams.label_smoothing)
            if hyperparams.teacher_share:
                targets = (1 - hyperparams.teacher_share) * targets + hyperparams.teacher_share * self.taught
            if hyperparams.mixup:
                faces, vectors, targets = mixed(hyperparams.mixup, seed, self.step, faces, vectors, targets)
            dropout = Dropout(hyperparams.keep_prob, seed, self.step)
            logits = build(faces, vectors, network, scaling, dropout)
            weights = network_variables()  # now, before the optimizer adds its own beside them
            self.loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=logits))
            self.accuracy = tf.reduce_mean(tf.cast(tf.equal(tf.argmax(logits, 1), self.labels), tf.float32))
            objective = self.loss
            if hyperparams.weight_decay:
                kernels = [weight for weight in tf.trainable_variables() if weight.shape.rank > 1]
                objective += hyperparams.weight_decay * tf.add_n([tf.nn.l2_loss(kernel) for kernel in kernels])
            self.rate = learning_rate(hyperparams, self.step, steps)
            with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):  # batch norm's averages
                self.train = optimizer(hyperparams, self.rate).minimize(objective, global_step=self.step)
            averages = None
            if hyperparams.weight_averaging:
                averages = tf.train.ExponentialMovingAverage(hyperparams.weight_averaging, self.step)
                with tf.control_dependencies([self.train]):
                    self.train = averages.apply(weights)

            images = tf.cast(self.images[..., None], tf.float32)
            self.logits = build(images, self.features, network, scaling, dropout=None, averages=averages)
            self.predictions = tf.argmax(self.logits, 1)  # as inference computes them
            self.saver = tf.train.Saver(max_to_keep=None)  # of the weights and the optimizer's memory of them
            self.initialize = tf.global_variables_initializer()

    def session(self, bfloat16: bool) -> "tf.Session":
        """A session on this graph; with `bfloat16`, products are computed in bf16 and weights kept in fp32."""
        config = tf.ConfigProto()
        if bfloat16:
            rewrites = config.graph_options.rewrite_options
            rewrites.auto_mixed_precision_onednn_bfloat16 = type(rewrites).ON
        with quiet():
            session = tf.Session(graph=self.graph, config=config)
            session.run(self.initialize)
        return session


def inference_flatbuffer(
    checkpoint: str, network: Network, scaling: Scaling | None, averaged: bool = False, quantize: bool = False
) -> bytes:
    """The network of a checkpoint as a LiteRT flatbuffer from raw inputs to probabilities.

    Its inputs are `images` (N, 48, 48, 1) float32 of 0…255 and, for a network with features, `features` (N, size)
    float32. averaged: with the moving averages of the weights. quantize: 8-bit weights, with activations still
    computed from floats.
    """
    with tf.Graph().as_default(), quiet(), tf.Session() as session:
        images = tf.placeholder(tf.float32, (None, IMAGE_SIZE, IMAGE_SIZE, 1), "images")
        inputs = [images]
        if network.features != "none":
            inputs.append(tf.placeholder(tf.float32, (None, features.size(network.features)), "features"))
        probabilities = tf.nn.softmax(build(images, inputs[-1], network, scaling, dropout=None))
        averages = tf.train.ExponentialMovingAverage(0.0) if averaged else None
        names = {
            averages.average_name(weight) if averages else weight.op.name: weight for weight in network_variables()
        }
        tf.train.Saver(names).restore(session, checkpoint)
        converter = tf.lite.TFLiteConverter.from_session(session, inputs, [probabilities])
        if quantize:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        return converter.convert()


def build(
    images: "tf.Tensor",
    vectors: "tf.Tensor",
    network: Network,
    scaling: Scaling | None,
    dropout: "Dropout | None",
    averages: "tf.train.ExponentialMovingAverage | None" = None,
) -> "tf.Tensor":
    """The network from raw inputs to logits (N, output_size); with `dropout` in training, without it in inference.

    images: (N, 48, 48, 1) float32 of 0…255. vectors: (N, size) float32. A second call in the same graph shares the
    weights of the first, or uses their moving `averages`.
    """
    architecture = ARCHITECTURES[network.model]
    training = dropout is not None
    if scaling is not None:
        images = (images - scaling.pixel_mean) / scaling.pixel_deviation

    def averaged(getter, name, *arguments, **keywords):  # in place of each weight, its average
        return averages.average(getter(name, *arguments, **keywords))

    with tf.variable_scope("network", reuse=tf.AUTO_REUSE, custom_getter=averaged if averages else None):
        layer = images
        for number, convolution in enumerate(architecture.convolutions, 1):
            scope = f"convolution_{number}"
            layer = tflearn.conv_2d(layer, convolution.filters, convolution.side, activation="relu", scope=scope)
            if network.batch_norm_conv:
                layer = batch_norm(layer, training, f"{scope}_norm")
            if convolution.pooled:
                layer = tflearn.max_pool_2d(layer, 3, strides=2)
        if architecture.averaged:
            layer = tf.reduce_mean(layer, axis=(1, 2))
            layer = dropout(layer, 0) if dropout else layer
        layer = tflearn.flatten(layer)
        for number, units in enumerate(architecture.dense, 1):
            layer = dropout(layer, number) if dropout else layer
            layer = _dense(layer, units, network, training, f"dense_{number}")
        if network.features != "none":
            if scaling is not None:
                vectors = (vectors - scaling.feature_means) / scaling.feature_deviations
            layer = _dense(layer, architecture.joint, network, training, "image_joint")
            vectors = _dense(vectors, FEATURE_UNITS, network, training, "feature_dense")
            vectors = _dense(vectors, architecture.joint, network, training, "feature_joint")
            layer = tf.concat([layer, vectors], axis=1)
        return tflearn.fully_connected(layer, network.output_size, scope="logits")


def network_variables() -> list["tf.Variable"]:
    """The weights of the network that the current graph holds, with batch normalization's averages."""
    return tf.global_variables("network/")


def _dense(layer: "tf.Tensor", units: int, network: Network, training: bool, scope: str) -> "tf.Tensor":
    layer = tflearn.fully_connected(layer, units, activation="relu", scope=scope)
    return batch_norm(layer, training, f"{scope}_norm") if network.batch_norm_fc else layer


def batch_norm(layer: "tf.Tensor", training: bool, scope: str) -> "tf.Tensor":
    """Batch normalization (Ioffe and Szegedy, ICML 2015) over all axes but the last.

    In place of TFLearn's, which is unfused, hence slow, and decides between training and inference inside the graph,
    which LiteRT's converter refuses.
    """
    channels = layer.shape[-1]
    with tf.variable_scope(scope):
        scale = tf.get_variable("scale", channels, initializer=tf.ones_initializer())
        offset = tf.get_variable("offset", channels, initializer=tf.zeros_initializer())
        mean = tf.get_variable("mean", channels, initializer=tf.zeros_initializer(), trainable=False)
        variance = tf.get_variable("variance", channels, initializer=tf.ones_initializer(), trainable=False)
    image = layer if layer.shape.rank == 4 else layer[:, None, None, :]  # what the fused operation takes
    if training:
        normal, batch_mean, batch_variance = tf.nn.fused_batch_norm(image, scale, offset, epsilon=BATCH_NORM_EPSILON)
        for average, value in ((mean, batch_mean), (variance, batch_variance)):
            update = tf.assign_sub(average, (1 - BATCH_NORM_MOMENTUM) * (average - value))
            tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, update)
    else:
        normal, *_ = tf.nn.fused_batch_norm(
            image, scale, offset, mean, variance, epsilon=BATCH_NORM_EPSILON, is_training=False
        )
    return normal if layer.shape.rank == 4 else normal[:, 0, 0, :]


@dataclass(frozen=True)
class Dropout:
    """Dropout (Srivastava et al., JMLR 2014) whose choice depends on the seed, the layer and the step alone."""

    keep_prob: float
    seed: int
    step: "tf.Variable"

    def __call__(self, layer: "tf.Tensor", number: int) -> "tf.Tensor":
        """`layer` with each activation kept with probability keep_prob; `number` tells the layers apart."""
        seed = tf.stack([tf.constant(self.seed * 1000 + number, tf.int64), tf.cast(self.step, tf.int64)])
        kept = tf.random.stateless_uniform(tf.shape(layer), seed) < self.keep_prob
        return tf.where(kept, layer / self.keep_prob, tf.zeros_like(layer))


def smoothed(labels: "tf.Tensor", classes: int, share: float) -> "tf.Tensor":
    """One-hot labels (N, classes) of which `share` is spread evenly (Szegedy et al., CVPR 2016)."""
    return tf.one_hot(labels, classes) * (1 - share) + share / classes


def mixed(alpha: float, seed: int, step: "tf.Variable", *batches: "tf.Tensor") -> list["tf.Tensor"]:
    """Mixup (Zhang et al., ICLR 2018): each batch with its own reverse, in a share drawn from Beta(alpha, alpha).

    The share depends on the seed and the step alone.
    """
    seeds = tf.stack([tf.constant(seed * 1000 + 999, tf.int64), tf.cast(step, tf.int64)])
    first, second = tf.unstack(tf.random.stateless_gamma([2], seeds, alpha))  # their share is Beta's
    share = first / (first + second)
    return [share * batch + (1 - share) * tf.reverse(batch, [0]) for batch in batches]


def learning_rate(hyperparams: Hyperparams, step: "tf.Variable", steps: int) -> "tf.Tensor":
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


def optimizer(hyperparams: Hyperparams, rate: "tf.Tensor") -> "tf.train.Optimizer":
    """TFLearn's optimizer of that name."""
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
