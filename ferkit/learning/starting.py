"""Fine-tuning: a training that goes on from a saved model, on other faces, perhaps with other classes.

    start = Start("ferplus")
    start.network, start.expressions
    start.fill(graph, session, dataset.expressions, start.scaling(own), faces)

All that is needed is in the saved model itself, so that every saved model can be started from. Its network says the
same as the one in training, in another form: batch normalization is only a factor and an offset, and the division by
the standard deviation of the inputs is part of the first layer's weights.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ferkit import ensemble, saved_model
from ferkit.data.dataset import Dataset, Split
from ferkit.errors import UserError
from ferkit.learning.scaling import Scaling
from ferkit.settings import Network, with_values

if TYPE_CHECKING:  # TensorFlow is slow to import
    from ferkit.learning.graph import TrainingGraph

_LAYER = re.compile(r"(network/\w+)/(?:Conv2D|MatMul)")
_LAST = "network/logits"
_FACES = 256  # at most, whose averages batch normalization gets


class Start:
    """The saved model at `path`, or with a short name such as "ferplus", as the start of a training.

    Raises UserError when the model cannot be read, or does not say what network it has.
    """

    def __init__(self, path: str):
        if len(ensemble.weights_of(path)) > 1:
            raise UserError(f"{path} are several models: name one with --start_from")
        self.path = saved_model.find(path)
        model = saved_model.load(self.path, flag="--start_from")
        if "network" not in model.facts:
            raise UserError(f"{self.path} does not say what network it has: name another --start_from")
        self.expressions = model.expressions
        self.network: Network = with_values(Network(), model.facts["network"], str(self.path))
        self._feature_provenance = model.feature_provenance
        self.facts: dict[str, dict[str, Any]] = {
            "start": {"network_sha256": model.facts["network_sha256"], "expressions": list(model.expressions)}
        }
        self._weights = _Weights(model.flatbuffer)

    def check(self, dataset: Dataset) -> None:
        """Raises UserError when the features of the dataset were computed otherwise than those of the saved model."""
        dataset.check_computed(self._feature_provenance, f"those of {self.path}", "name another --start_from")

    def scaling(self, own: Scaling | None) -> Scaling | None:
        """The scaling with which the network gives the same answers. own: that of the new training set.

        The means are those of the saved model. The deviations may be any, as `fill` makes up for them.
        """
        means = self._weights.means
        if own is None:
            return None
        return dataclasses.replace(
            own,
            pixel_mean=float(means.get("images", 0.0)),
            feature_means=np.asarray(means.get("features", np.zeros_like(own.feature_means)), np.float32),
        )

    def fill(
        self, graph: "TrainingGraph", session: Any, expressions: Sequence[str], scaling: Scaling | None, faces: Split
    ) -> None:
        """Gives the network in training the weights of the saved model.

        In the last layer, expressions that the saved model has under the same name keep their weights, and the others
        keep their random ones. The averages of batch normalization, which a saved model does not have, are those of
        `faces`; its scales and offsets make up for them, so that the answers are the same. Raises UserError when the
        network has other layers than the saved model.
        """
        from ferkit.learning.layers import BATCH_NORM_EPSILON

        neutral = {"scale": 1.0, "offset": 0.0, "mean": 0.0, "variance": 1 - BATCH_NORM_EPSILON}
        values = dict(self._weights.values)
        if scaling is not None:
            for layer in self._weights.first["images"]:
                values[f"{layer}/W"] = values[f"{layer}/W"] * np.float32(scaling.pixel_deviation)
            for layer in self._weights.first["features"]:
                values[f"{layer}/W"] = values[f"{layer}/W"] * scaling.feature_deviations[:, None]
        kept = [self.expressions.index(name) if name in self.expressions else -1 for name in expressions]
        filled = {}
        for name, value in graph.weights_in(session).items():
            layer, _, kind = name.rpartition("/")
            if layer == _LAST and name in values:
                rows = np.where(np.array(kept) >= 0, values[name][..., kept], value)
                filled[name] = rows.astype(np.float32)
                continue
            if layer.endswith("_norm"):  # where the converter left one out, or merged it with a layer, it does nothing
                values.setdefault(name, np.full_like(value, neutral[kind]))
            if name not in values or values[name].shape != value.shape:
                raise UserError(
                    f"{self.path} has other layers than Model {self.network.model} of model.py: name another "
                    "--start_from, or use the model.py that it was trained with"
                )
            filled[name] = values[name]
        graph.assign(session, filled)
        feed = {graph.images: faces.images[:_FACES], graph.features: faces.features[:_FACES]}
        for scope, given in session.run(graph.norm_inputs(), feed).items():
            axes = tuple(range(given.ndim - 1))
            mean, variance = given.mean(axis=axes), given.var(axis=axes)
            scale, offset = filled[f"{scope}/scale"], filled[f"{scope}/offset"]
            renewed = scale * np.sqrt(variance + BATCH_NORM_EPSILON), offset + mean * scale, mean, variance
            filled |= zip((f"{scope}/{name}" for name in ("scale", "offset", "mean", "variance")), renewed, strict=True)
        graph.assign(session, filled)


class _Weights:
    """What a saved network holds: `values` by the names of TensorFlow's variables, and how its inputs are scaled.

    means: of "images" and "features", which are subtracted; missing without standardization. first: the layers that the
    inputs go into.
    """

    def __init__(self, network: bytes):
        from ai_edge_litert.schema_py_generated import BuiltinOperator as kinds

        from ferkit.flatbuffer import Flatbuffer

        graph = Flatbuffer(network)
        self.values: dict[str, np.ndarray] = {}
        self.means: dict[str, np.ndarray] = {}
        self.first: dict[str, list[str]] = {"images": [], "features": []}
        source = {tensor: graph.name(tensor) for tensor in graph.inputs}
        layers: dict[int, str] = {}  # by the tensors that a layer computes, until its batch normalization is done
        for operator in graph.operators:
            kind, result = graph.kind(operator), operator.outputs[0]
            constant = graph.constant(operator.inputs[1]) if len(operator.inputs) > 1 else None
            origin, layer = source.get(operator.inputs[0]), layers.get(operator.inputs[0])
            if kind in (kinds.CONV_2D, kinds.FULLY_CONNECTED) and constant is not None:
                bias = graph.constant(operator.inputs[2])
                names = f"{graph.name(operator.inputs[1])};{graph.name(result)}"
                layers[result] = layer = next(iter(_LAYER.findall(names)), "")
                self.values[f"{layer}/W"] = np.moveaxis(constant, 0, -1)  # outputs last
                self.values[f"{layer}/b"] = np.zeros(len(constant), np.float32) if bias is None else bias
                if origin is not None:
                    self.first[origin].append(layer)
            elif kind == kinds.SUB and origin is not None and constant is not None:
                self.means[origin] = constant
                source[result] = origin
            elif kind in (kinds.RESHAPE, kinds.STRIDED_SLICE) and layer is not None:
                layers[result] = layer
            elif kind in (kinds.MUL, kinds.ADD) and layer is not None and constant is not None:
                self.values[f"{layer}_norm/{'scale' if kind == kinds.MUL else 'offset'}"] = constant
                layers[result] = layer
