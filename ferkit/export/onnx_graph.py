"""A network as an ONNX graph. Images are (N, H, W, C) at its inputs, and (N, C, H, W) inside, as ONNX has them."""

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ferkit.export.rebuilding import OUTPUT, Pads

OPSET = 13  # of 2020: all later programs can read it
_IR_VERSION = 7  # the one that came with it
_ACTIVATIONS = {"relu": "Relu", "sigmoid": "Sigmoid"}


class OnnxGraph:
    """See rebuilding.Graph. batch: number of faces; None for any."""

    def __init__(self, batch: int | None):
        self._batch: int | str = batch or "N"
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._inputs: list[Any] = []

    def model(self, classes: int, metadata: dict[str, str]) -> bytes:
        """The finished model. Raises onnx.checker.ValidationError if it is not valid."""
        output = helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, (self._batch, classes))
        graph = helper.make_graph(self._nodes, "ferkit", self._inputs, [output], self._constants)
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION, producer_name="ferkit")
        helper.set_model_props(model, metadata)
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString()

    def input(self, name: str, shape: tuple[int, ...]) -> str:
        self._inputs.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (self._batch, *shape)))
        return self._channels_first(name, shape)

    def convolution(self, x: str, kernel: np.ndarray, bias: np.ndarray, strides: tuple[int, int], pads: Pads) -> str:
        weights = self._constant(kernel.transpose(0, 3, 1, 2))
        return self._node("Conv", x, weights, self._constant(bias), strides=strides, pads=_begins_and_ends(pads))

    def max_pooling(self, x: str, sides: tuple[int, int], strides: tuple[int, int], pads: Pads) -> str:
        return self._node("MaxPool", x, kernel_shape=sides, strides=strides, pads=_begins_and_ends(pads))

    def mean(self, x: str) -> str:
        return self._node("ReduceMean", x, axes=(2, 3), keepdims=0)

    def dense(self, x: str, weights: np.ndarray, bias: np.ndarray) -> str:
        return self._node("Gemm", x, self._constant(weights), self._constant(bias), transB=1)

    def affine(self, x: str, scale: np.ndarray, offset: np.ndarray, shape: tuple[int, ...]) -> str:
        over = (-1, 1, 1) if len(shape) == 3 else (-1,)
        if (scale != 1).any():
            x = self._node("Mul", x, self._constant(scale.reshape(over)))
        if (offset != 0).any():
            x = self._node("Add", x, self._constant(offset.reshape(over)))
        return x

    def activation(self, x: str, name: str) -> str:
        if name == "relu6":
            return self._node("Clip", x, self._constant(np.float32(0)), self._constant(np.float32(6)))
        return self._node(_ACTIVATIONS[name], x)

    def reshape(self, x: str, before: tuple[int, ...], after: tuple[int, ...]) -> str:
        if len(before) == 3 and before[:2] != (1, 1):
            x = self._node("Transpose", x, perm=(0, 2, 3, 1))
        if len(after) == 1:
            return self._node("Flatten", x)
        if after[:2] == (1, 1):
            return self._node("Reshape", x, self._constant(np.array([-1, after[2], 1, 1])))
        return self._channels_first(self._node("Reshape", x, self._constant(np.array([-1, *after]))), after)

    def concatenate(self, xs: list[str]) -> str:
        return self._node("Concat", *xs, axis=1)

    def add(self, x: str, y: str) -> str:
        return self._node("Add", x, y)

    def multiply(self, x: str, y: str) -> str:
        return self._node("Mul", x, y)

    def logarithm(self, x: str, least: float) -> str:
        return self._node("Log", self._node("Max", x, self._constant(np.float32(least))))

    def softmax(self, x: str, name: str) -> str:
        return self._node("Softmax", x, axis=1, output=name)

    def _channels_first(self, x: str, shape: tuple[int, ...]) -> str:
        return self._node("Transpose", x, perm=(0, 3, 1, 2)) if len(shape) == 3 else x

    def _node(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        output = output or f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def _constant(self, values: np.ndarray) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name


def _begins_and_ends(pads: Pads) -> tuple[int, ...]:
    """ONNX's order: all beginnings, then all ends."""
    (top, bottom), (left, right) = pads
    return top, left, bottom, right
