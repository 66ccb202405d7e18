"""The inside of a LiteRT flatbuffer: its operators, its constants, and the part of the network up to a tensor.

network = Flatbuffer(model.flatbuffer)
for operator in network.operators:
    print(network.kind(operator), [network.constant(tensor) for tensor in operator.inputs])
"""

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema


class Flatbuffer:
    """A network that is read from its flatbuffer. Tensors are numbers, as in LiteRT's schema; -1 is no tensor."""

    def __init__(self, network: bytes):
        self._size = len(network)
        self._model = schema.ModelT.InitFromPackedBuf(network)
        self._graph = self._model.subgraphs[0]
        self.operators: list[Any] = list(self._graph.operators)  # in the order of their computation
        self.inputs: list[int] = list(self._graph.inputs)
        self.output: int = self._graph.outputs[0]

    def kind(self, operator: Any) -> int:
        """What the operator does: a number of schema.BuiltinOperator."""
        code = self._model.operatorCodes[operator.opcodeIndex]
        return max(code.builtinCode, code.deprecatedBuiltinCode)

    def maker(self, tensor: int, kind: int) -> Any | None:
        """The operator of this kind that computes the tensor; None if there is none."""
        made = (operator for operator in self.operators if tensor in operator.outputs)
        return next((operator for operator in made if self.kind(operator) == kind), None)

    def name(self, tensor: int) -> str:
        """The names of TensorFlow's operators that became the tensor."""
        return self._graph.tensors[tensor].name.decode()

    def shape(self, tensor: int) -> tuple[int, ...]:
        """The shape of a tensor, with a batch of 1."""
        return tuple(map(int, self._graph.tensors[tensor].shape))

    def constant(self, tensor: int) -> np.ndarray | None:
        """The values of a constant, 8-bit weights as float32; None for a tensor that is computed."""
        if tensor < 0:
            return None
        details = self._graph.tensors[tensor]
        data = self._model.buffers[details.buffer].data
        if data is None or len(data) == 0:
            return None
        types = {schema.TensorType.FLOAT32: "<f4", schema.TensorType.INT32: "<i4", schema.TensorType.INT8: "i1"}
        values = np.frombuffer(bytes(data), types[details.type]).reshape(() if details.shape is None else details.shape)
        if details.type != schema.TensorType.INT8:
            return values
        shape = np.ones(values.ndim, int)
        shape[details.quantization.quantizedDimension] = -1  # a scale for each filter, or one for all
        return values * np.reshape(np.asarray(details.quantization.scale, np.float32), shape)

    def up_to(self, tensor: int) -> bytes:
        """The network that ends with this tensor, as a flatbuffer. This object must not be used any more."""
        last = next(place for place, operator in enumerate(self.operators) if tensor in operator.outputs)
        self._graph.outputs, self._graph.operators = [tensor], self.operators[: last + 1]
        self._model.signatureDefs = None
        builder = flatbuffers.Builder(self._size)
        builder.Finish(self._model.Pack(builder), b"TFL3")
        return bytes(builder.Output())
