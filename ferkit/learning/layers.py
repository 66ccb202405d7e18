"""The layers that architectures are built from, made with TFLearn.

layers = Layers(batch_norm_conv=True, batch_norm_fc=False, dropout=Dropout(0.5, seed=0, step=step))
vector = layers.dense(layers.flatten(layers.convolution(faces, 64, 5, pooled=True)), 1024)
"""

from dataclasses import dataclass
from typing import Any

from ferkit.learning.architecture import BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM
from ferkit.learning.tflearn_compat import tf, tflearn

Tensor = Any  # a tensor of TensorFlow, which has no types of its own to check


class Layers:
    """Makes the layers of one network: with `dropout` for training, without it for inference.

    fixed_norm: batch normalization uses its averages in training too, and does not change them.
    Layers are numbered in the order of the calls. A second object with the same calls therefore makes the same network,
    and shares the weights if the variable scope allows it.
    """

    def __init__(
        self, batch_norm_conv: bool, batch_norm_fc: bool, dropout: "Dropout | None", fixed_norm: bool = False
    ) -> None:
        self._batch_norm_conv, self._batch_norm_fc, self._dropout = batch_norm_conv, batch_norm_fc, dropout
        self._norm_learns = dropout is not None and not fixed_norm
        self._convolutions = self._dense = self._dropouts = 0

    def convolution(self, layer: Tensor, filters: int, side: int, pooled: bool = False) -> Tensor:
        """Convolution with kernels of `side` × `side`, ReLU, batch normalization if set: (N, H, W, C) -> (N, H, W, K).

        pooled: adds max pooling of 3×3 pixels with stride 2, which halves height and width.
        """
        self._convolutions += 1
        scope = f"convolution_{self._convolutions}"
        layer = tflearn.conv_2d(layer, filters, side, activation="relu", scope=scope)
        if self._batch_norm_conv:
            layer = batch_norm(layer, self._norm_learns, f"{scope}_norm")
        return self.max_pooling(layer) if pooled else layer

    def max_pooling(self, layer: Tensor) -> Tensor:
        """Max pooling of 3×3 pixels with stride 2: (N, H, W, C) -> (N, H / 2, W / 2, C)."""
        return tflearn.max_pool_2d(layer, 3, strides=2)

    def global_average_pooling(self, layer: Tensor) -> Tensor:
        """The mean of each filter over the image (Lin, Chen and Yan, ICLR 2014): (N, H, W, C) -> (N, C)."""
        return tf.reduce_mean(layer, axis=(1, 2))

    def flatten(self, layer: Tensor) -> Tensor:
        """(N, H, W, C) -> (N, H × W × C)."""
        return tflearn.flatten(layer)

    def dropout(self, layer: Tensor) -> Tensor:
        """An additional dropout; `dense` has its own."""
        self._dropouts += 1
        return self._dropped(layer, 100 * (self._dropouts - 1))

    def dense(self, layer: Tensor, units: int) -> Tensor:
        """Dropout, then a fully connected layer with ReLU: (N, size) -> (N, units)."""
        self._dense += 1
        return self.fully_connected(self._dropped(layer, self._dense), units, f"dense_{self._dense}")

    def fully_connected(self, layer: Tensor, units: int, scope: str) -> Tensor:
        """A fully connected layer with ReLU, without dropout, in its own variable scope."""
        layer = tflearn.fully_connected(layer, units, activation="relu", scope=scope)
        return batch_norm(layer, self._norm_learns, f"{scope}_norm") if self._batch_norm_fc else layer

    def _dropped(self, layer: Tensor, number: int) -> Tensor:
        return layer if self._dropout is None else self._dropout(layer, number)


def batch_norm(layer: Tensor, training: bool, scope: str) -> Tensor:
    """Batch normalization (Ioffe and Szegedy, ICML 2015) over all axes but the last.

    It replaces TFLearn's layer. That layer is not fused, so it is slow, and it switches between training and inference
    inside the graph, which LiteRT's converter does not accept.
    """
    channels = layer.shape[-1]
    with tf.variable_scope(scope):
        scale = tf.get_variable("scale", channels, initializer=tf.ones_initializer())
        offset = tf.get_variable("offset", channels, initializer=tf.zeros_initializer())
        mean = tf.get_variable("mean", channels, initializer=tf.zeros_initializer(), trainable=False)
        variance = tf.get_variable("variance", channels, initializer=tf.ones_initializer(), trainable=False)
    image = layer if layer.shape.rank == 4 else layer[:, None, None, :]  # the fused operation needs 4 axes
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
    """Dropout (Srivastava et al., JMLR 2014) that depends only on the seed, the layer and the step."""

    keep_prob: float
    seed: int
    step: Any  # a variable

    def __call__(self, layer: Tensor, number: int) -> Tensor:
        """`layer` with each activation kept with probability keep_prob. `number` identifies the layer."""
        seed = tf.stack([tf.constant(self.seed * 1000 + number, tf.int64), tf.cast(self.step, tf.int64)])
        kept = tf.random.stateless_uniform(tf.shape(layer), seed) < self.keep_prob
        return tf.where(kept, layer / self.keep_prob, tf.zeros_like(layer))
