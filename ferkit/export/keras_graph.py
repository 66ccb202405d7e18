"""A network as a Keras model of ordinary layers, from which TensorFlow makes its own formats."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from ferkit.errors import UserError
from ferkit.export.rebuilding import OUTPUT, Pads
from ferkit.processes import quiet

with quiet():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf  # first, because its name is in the message when it is missing

    import keras  # isort: skip


class KerasGraph:
    """See rebuilding.Graph. batch: number of faces; None for any.

    Raises UserError in a process that has trained: TFLearn turns off what Keras needs.
    """

    def __init__(self, batch: int | None):
        if not tf.executing_eagerly():
            raise UserError("this process has trained a network, and cannot export one: use python export_model.py")
        self._batch = batch
        self._inputs: list[Any] = []

    def model(self, output: Any) -> keras.Model:
        inputs = self._inputs if len(self._inputs) > 1 else self._inputs[0]
        return keras.Model(inputs, output, name="ferkit")

    def input(self, name: str, shape: tuple[int, ...]) -> Any:
        self._inputs.append(keras.Input(shape, self._batch, name=name))
        return self._inputs[-1]

    def convolution(self, x: Any, kernel: np.ndarray, bias: np.ndarray, strides: tuple[int, int], pads: Pads) -> Any:
        layer = keras.layers.Conv2D(len(kernel), kernel.shape[1:3], strides, _padding(pads))
        return _weighted(layer, x, kernel.transpose(1, 2, 3, 0), bias)

    def max_pooling(self, x: Any, sides: tuple[int, int], strides: tuple[int, int], pads: Pads) -> Any:
        return keras.layers.MaxPooling2D(sides, strides, _padding(pads))(x)

    def mean(self, x: Any) -> Any:
        return keras.layers.GlobalAveragePooling2D()(x)

    def dense(self, x: Any, weights: np.ndarray, bias: np.ndarray) -> Any:
        return _weighted(keras.layers.Dense(len(weights)), x, weights.T, bias)

    def affine(self, x: Any, scale: np.ndarray, offset: np.ndarray, shape: tuple[int, ...]) -> Any:
        layer = keras.layers.BatchNormalization(epsilon=0.0)
        return _weighted(layer, x, scale, offset, np.zeros_like(scale), np.ones_like(scale))

    def activation(self, x: Any, name: str) -> Any:
        return keras.layers.Activation(name)(x)

    def reshape(self, x: Any, before: tuple[int, ...], after: tuple[int, ...]) -> Any:
        return keras.layers.Reshape(after)(x)

    def concatenate(self, xs: list[Any]) -> Any:
        return keras.layers.Concatenate()(xs)

    def add(self, x: Any, y: Any) -> Any:
        return keras.layers.Add()([x, y])

    def multiply(self, x: Any, y: Any) -> Any:
        return keras.layers.Multiply()([x, y])

    def logarithm(self, x: Any, least: float) -> Any:
        return keras.ops.log(keras.ops.maximum(x, least))

    def softmax(self, x: Any, name: str) -> Any:
        return keras.layers.Softmax(name=name)(x)


def flatbuffer(model: keras.Model) -> bytes:
    """The model for LiteRT."""
    function, module = _function(model)
    return tf.lite.TFLiteConverter.from_concrete_functions([function], module).convert()


def write_saved_model(model: keras.Model, folder: Path) -> None:
    """Writes TensorFlow's SavedModel. (Keras's own way writes every weight twice.)"""
    function, module = _function(model)
    tf.saved_model.save(module, str(folder), {"serving_default": function})


def _function(model: keras.Model) -> tuple[Any, tf.Module]:
    """The model as a function whose inputs and output have names, and what holds its weights."""
    module = tf.Module()
    module.weights = [weight.value for weight in model.weights]
    inputs = {tensor.name: tf.TensorSpec(tensor.shape, tf.float32, tensor.name) for tensor in model.inputs}
    called = tf.function(lambda **values: {OUTPUT: model([values[name] for name in inputs])})
    return called.get_concrete_function(**inputs), module


def _weighted(layer: Any, x: Any, *weights: np.ndarray) -> Any:
    output = layer(x)
    layer.set_weights(weights)
    return output


def _padding(pads: Pads) -> str:
    return "same" if np.any(pads) else "valid"  # the pads are those of LiteRT, which knows these two
