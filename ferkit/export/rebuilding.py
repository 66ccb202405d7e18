"""Builds a saved network anew in another library, with floats for weights, and with calibration behind it.

    graph = OnnxGraph()
    rebuild(model.flatbuffer, model.calibration(balance=1.0), graph)
    content = graph.model(...)

The architecture is read from the LiteRT flatbuffer, so that every saved model can be exported, whatever model.py says
today. A library is a class with the operations of `Graph`.
"""

from typing import Any, Protocol

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from ferkit.errors import UserError
from ferkit.flatbuffer import Flatbuffer
from ferkit.saved_model import LEAST_PROBABILITY, Calibration

OUTPUT = "probabilities"
_KINDS = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
_ACTIVATIONS = {schema.ActivationFunctionType.RELU: "relu", schema.ActivationFunctionType.RELU6: "relu6"}
_NO_ACTIVATION = schema.ActivationFunctionType.NONE


class Graph(Protocol):
    """The operations of a library. Shapes are LiteRT's, without the batch: (H, W, C) for images, (C,) for vectors."""

    def input(self, name: str, shape: tuple[int, ...]) -> Any: ...

    def convolution(self, x: Any, kernel: np.ndarray, bias: np.ndarray, strides: tuple[int, int], pads: "Pads") -> Any:
        """kernel: (filters, height, width, channels). bias: (filters,)."""

    def max_pooling(self, x: Any, sides: tuple[int, int], strides: tuple[int, int], pads: "Pads") -> Any: ...

    def mean(self, x: Any) -> Any:
        """Global average pooling: (H, W, C) -> (C,)."""

    def dense(self, x: Any, weights: np.ndarray, bias: np.ndarray) -> Any:
        """weights: (units, inputs). bias: (units,)."""

    def affine(self, x: Any, scale: np.ndarray, offset: np.ndarray, shape: tuple[int, ...]) -> Any:
        """scale, offset: (C,), for the last axis of an input with this shape."""

    def activation(self, x: Any, name: str) -> Any:
        """name: relu, relu6 or sigmoid."""

    def reshape(self, x: Any, before: tuple[int, ...], after: tuple[int, ...]) -> Any: ...

    def concatenate(self, xs: list[Any]) -> Any:
        """Vectors, one behind the other."""

    def add(self, x: Any, y: Any) -> Any: ...

    def multiply(self, x: Any, y: Any) -> Any: ...

    def logarithm(self, x: Any, least: float) -> Any:
        """The logarithm of what is raised to `least` first."""

    def softmax(self, x: Any, name: str) -> Any: ...


Pads = tuple[tuple[int, int], tuple[int, int]]  # rows above and below, columns left and right


def rebuild(network: bytes, calibration: Calibration, graph: Graph) -> Any:
    """Builds the flatbuffer `network` in `graph`; returns the calibrated probabilities (N, K) there.

    Raises UserError for an operation that is not known here.
    """
    return _Rebuilding(Flatbuffer(network), graph).result(calibration)


class _Rebuilding:
    """The values of the tensors so far.

    What only scales and moves each channel is not computed at once but noted, so that a scaling and the offset that
    follows it, as of batch normalization, become one operation.
    """

    def __init__(self, network: Flatbuffer, graph: Graph):
        self.network, self.graph = network, graph
        self._values: dict[int, Any] = {}
        self._affine: dict[int, tuple[int, np.ndarray, np.ndarray]] = {}  # tensor: its source, scale, offset

    def result(self, calibration: Calibration) -> Any:
        for tensor in self.network.inputs:
            self._values[tensor] = self.graph.input(self.network.name(tensor), self.shape(tensor))
        *operators, last = self.network.operators
        if _KINDS[self.network.kind(last)] != "SOFTMAX":
            raise UserError("the network does not end with a softmax: it cannot be exported")
        for operator in operators:
            self.run(operator)
        return self.calibrated(self.value(last.inputs[0]), calibration, self.shape(last.inputs[0]))

    def calibrated(self, logits: Any, calibration: Calibration, shape: tuple[int, ...]) -> Any:
        """What Calibration computes, from logits. Its normalizations are all left to the softmax at the end."""
        graph, ones = self.graph, np.ones(shape, np.float32)
        if calibration.smoothing:
            scale = ones / (1 - calibration.smoothing)
            offset = -scale * calibration.smoothing / len(ones)
            probabilities = graph.affine(graph.softmax(logits, "uncalibrated"), scale, offset, shape)
            logits = graph.logarithm(probabilities, LEAST_PROBABILITY)
        factors = ones if calibration.factors is None else calibration.factors
        scale, offset = ones / calibration.temperature, np.log(factors) / calibration.temperature
        return graph.softmax(self.affine(logits, scale, offset, shape), OUTPUT)

    def shape(self, tensor: int) -> tuple[int, ...]:
        return self.network.shape(tensor)[1:]

    def value(self, tensor: int) -> Any:
        if tensor not in self._values:
            source, scale, offset = self._affine[tensor]
            self._values[tensor] = self.affine(self._values[source], scale, offset, self.shape(source))
        return self._values[tensor]

    def affine(self, x: Any, scale: np.ndarray, offset: np.ndarray, shape: tuple[int, ...]) -> Any:
        if (scale == 1).all() and (offset == 0).all():
            return x
        wide = np.zeros(shape[-1], np.float32)
        return self.graph.affine(x, np.float32(scale + wide), np.float32(offset + wide), shape)

    def run(self, operator: Any) -> None:
        kind, options, output = _KINDS[self.network.kind(operator)], operator.builtinOptions, operator.outputs[0]
        first = operator.inputs[0]
        constants: list[Any] = [self.network.constant(tensor) for tensor in operator.inputs]
        activation = getattr(options, "fusedActivationFunction", _NO_ACTIVATION)
        if kind in ("ADD", "SUB", "MUL", "DIV") and any(constant is not None for constant in constants):
            self._affine[output] = self.scaled(kind, operator.inputs, constants)
            if activation == _NO_ACTIVATION:
                return
            made = self.value(output)
        elif kind == "CONV_2D" and (options.dilationHFactor, options.dilationWFactor) == (1, 1):
            kernel, bias = constants[1], constants[2]
            strides = options.strideH, options.strideW
            pads = self.pads(options, first, output, kernel.shape[1:3])
            made = self.graph.convolution(self.value(first), kernel, _bias(bias, len(kernel)), strides, pads)
        elif kind == "MAX_POOL_2D":
            sides, strides = (options.filterHeight, options.filterWidth), (options.strideH, options.strideW)
            made = self.graph.max_pooling(self.value(first), sides, strides, self.pads(options, first, output, sides))
        elif kind == "MEAN" and len(self.shape(first)) == 3 and sorted(constants[1].tolist()) == [1, 2]:
            made = self.graph.mean(self.value(first))
            if options.keepDims:
                made = self.graph.reshape(made, self.shape(first)[-1:], self.shape(output))
        elif kind == "FULLY_CONNECTED":
            weights, bias = constants[1], constants[2] if len(constants) > 2 else None
            made = self.graph.dense(self.value(first), weights, _bias(bias, len(weights)))
        elif kind in ("RESHAPE", "STRIDED_SLICE") and np.prod(self.shape(first)) == np.prod(self.shape(output)):
            before, after = self.shape(first), self.shape(output)
            made = self.value(first) if before == after else self.graph.reshape(self.value(first), before, after)
        elif kind == "CONCATENATION" and len(self.shape(output)) == 1:
            made = self.graph.concatenate([self.value(tensor) for tensor in operator.inputs])
        elif kind in ("ADD", "MUL"):
            combine = self.graph.add if kind == "ADD" else self.graph.multiply
            made = combine(self.value(first), self.value(operator.inputs[1]))
        elif kind == "LOGISTIC":
            made = self.graph.activation(self.value(first), "sigmoid")
        else:
            raise UserError(f"the network has the operation {kind} in a form that cannot be exported")
        if activation != _NO_ACTIVATION:
            if activation not in _ACTIVATIONS:
                raise UserError(f"the network has an activation of {kind} that cannot be exported")
            made = self.graph.activation(made, _ACTIVATIONS[activation])
        self._values[output] = made

    def scaled(self, kind: str, inputs: Any, constants: list[Any]) -> tuple[int, np.ndarray, np.ndarray]:
        """The source, scale and offset of a tensor and a constant that are added, subtracted, multiplied or divided."""
        constant = next(constant for constant in constants if constant is not None)
        source = next(tensor for tensor, known in zip(inputs, constants, strict=True) if known is None)
        if constant.size not in (1, self.shape(source)[-1]) or (kind in ("SUB", "DIV") and constants[0] is not None):
            raise UserError(f"the network has the operation {kind} in a form that cannot be exported")
        before = source, np.ones(1, np.float32), np.zeros(1, np.float32)
        source, scale, offset = self._affine.get(source, before) if source not in self._values else before
        constant = constant.reshape(-1)
        if kind in ("MUL", "DIV"):
            factor = constant if kind == "MUL" else 1 / constant
            return source, scale * factor, offset * factor
        return source, scale, offset + (constant if kind == "ADD" else -constant)

    def pads(self, options: Any, source: int, output: int, sides: tuple[int, ...]) -> Pads:
        """The rows and columns that are added around an image for a convolution or pooling."""
        if options.padding == schema.Padding.VALID:
            return (0, 0), (0, 0)
        before, after, strides = self.shape(source), self.shape(output), (options.strideH, options.strideW)
        totals = [max(0, (after[axis] - 1) * strides[axis] + sides[axis] - before[axis]) for axis in (0, 1)]
        high, wide = ((total // 2, total - total // 2) for total in totals)
        return high, wide


def _bias(bias: np.ndarray | None, units: int) -> np.ndarray:
    return np.zeros(units, np.float32) if bias is None else bias
