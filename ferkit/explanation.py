"""Why a network sees an expression in a face: which parts of the face speak for it, and which against it.

    explainer = Explainer(recognizer.model, recognizer.features_of)
    evidence = explainer.activation_map(crop, "Happy")  # None for a network that has none
    evidence = explainer.occlusion_map(crop, "Happy")

Evidence is measured in logarithms: of activation maps, how much the expression's logit exceeds the mean over all
expressions; of occlusion, of the odds of the expression, p / (1 - p).
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from ferkit.constants import IMAGE_SIZE
from ferkit.ensemble import Ensemble
from ferkit.interpreter import SharedInterpreter
from ferkit.recognition import Face, Recognizer
from ferkit.saved_model import SavedModel
from ferkit.vision.albums import explanation_of
from ferkit.vision.drawing import draw_text
from ferkit.vision.pictures import write_image

_PATCH, _STEP = 12, 4  # side and distance of the squares that are covered one after another, in pixels
_LOWEST = 1e-6  # least distance of a probability from 0 and 1, before its logarithm is taken
_SIDE, _GAP, _TEXT = 288, 16, 30  # of the panels of a sheet, in pixels
_FOR, _AGAINST = np.array([40.0, 40.0, 220.0]), np.array([220.0, 90.0, 30.0])  # BGR: red, blue


class Explainer:
    """Maps of evidence for one model, or for several that answer together.

    features_of: crops (N, 48, 48) uint8 -> the vectors that the model also needs.
    """

    def __init__(self, model: SavedModel | Ensemble, features_of: Callable[[np.ndarray], np.ndarray]):
        self.model = model
        self.features_of = features_of
        self._models = model.models if isinstance(model, Ensemble) else (model,)
        self._weights = model.weights if isinstance(model, Ensemble) else (1,)
        self._activations = [ActivationMaps(one) for one in self._models]

    def activation_map(self, crop: np.ndarray, expression: str) -> np.ndarray | None:
        """The class activation map (h, w): evidence of each cell; of several models, their weighted mean, (48, 48).

        With the bias, it adds up to the network's own. crop: (48, 48) uint8. None: see ActivationMaps.logits.
        """
        maps = [maps.of(crop, expression) for maps in self._activations]
        found = [one for one in maps if one is not None]
        if len(found) < len(maps):
            return None
        if len(found) == 1:
            return found[0]
        return np.average([_spread(one) for one in found], axis=0, weights=self._weights)

    def occlusion_map(self, crop: np.ndarray, expression: str) -> np.ndarray:
        """How much evidence is lost where the crop is covered (Zeiler and Fergus, ECCV 2014): (48, 48).

        Grey squares of 12 pixels are laid over the crop every 4 pixels. A pixel's value is the mean over the squares
        that cover it. Works with every network, and includes what landmarks and HOG see. Of several models, it is the
        weighted mean.
        """
        corners = [
            (y, x) for y in range(0, IMAGE_SIZE - _PATCH + 1, _STEP) for x in range(0, IMAGE_SIZE - _PATCH + 1, _STEP)
        ]
        covered = np.repeat(crop[None], len(corners) + 1, axis=0)  # the last one stays as it is
        for image, (y, x) in zip(covered, corners, strict=False):
            image[y : y + _PATCH, x : x + _PATCH] = round(float(crop.mean()))
        vectors = self.features_of(covered)
        found = [_log_odds(model, covered, vectors, expression) for model in self._models]
        evidence = np.average(found, axis=0, weights=self._weights)
        sums, counts = np.zeros((2, IMAGE_SIZE, IMAGE_SIZE))
        for (y, x), value in zip(corners, evidence[:-1], strict=True):
            sums[y : y + _PATCH, x : x + _PATCH] += evidence[-1] - value
            counts[y : y + _PATCH, x : x + _PATCH] += 1
        return sums / counts


class ActivationMaps:
    """The class activation maps of one network."""

    def __init__(self, model: SavedModel):
        self._expressions = model.expressions
        parts = split_at_pooling(model.flatbuffer)
        self._before_pooling = None if parts is None else SharedInterpreter(parts[0])
        self._last_layer = None if parts is None else parts[1:]

    def logits(self, crop: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """What each cell of the last feature map adds to the logits, (h, w, K), and the bias, (K,).

        The logits are the sum over all cells plus the bias (Zhou et al., CVPR 2016). None for a network that does not
        end in global average pooling and one fully connected layer.
        """
        if self._before_pooling is None or self._last_layer is None:
            return None
        weights, bias = self._last_layer
        maps = self._before_pooling.run([crop[None, ..., None].astype(np.float32)])[0][0]
        return maps @ weights.T / (maps.shape[0] * maps.shape[1]), bias

    def of(self, crop: np.ndarray, expression: str) -> np.ndarray | None:
        """The map of an expression (h, w). crop: (48, 48) uint8. None: see `logits`."""
        found = self.logits(crop)
        if found is None:
            return None
        cells = found[0]
        return cells[..., self._expressions.index(expression)] - cells.mean(axis=-1)


def _log_odds(model: SavedModel, crops: np.ndarray, vectors: np.ndarray, expression: str) -> np.ndarray:
    """The logarithm of p / (1 - p), where p is the probability of the expression (N,)."""
    answers = model.predict(crops, vectors if model.features != "none" else vectors[:, :0])
    share = np.clip(answers[:, model.expressions.index(expression)], _LOWEST, 1 - _LOWEST)
    return np.log(share / (1 - share))


def _spread(cells: np.ndarray) -> np.ndarray:
    """A map (h, w) over the whole crop (48, 48), with the same sum."""
    share = cells.size / IMAGE_SIZE**2
    return cv2.resize(cells.astype(np.float32), (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_CUBIC) * share


def split_at_pooling(network: bytes) -> tuple[bytes, np.ndarray, np.ndarray] | None:
    """The layers up to global average pooling, as a network, and the weights (K, C) and bias (K,) of the last layer.

    network: a LiteRT flatbuffer. None if it does not end in pooling, one fully connected layer, and softmax.
    """
    from ai_edge_litert.schema_py_generated import BuiltinOperator as kinds  # here: only explanations need these

    from ferkit.flatbuffer import Flatbuffer

    graph = Flatbuffer(network)
    softmax = graph.maker(graph.output, kinds.SOFTMAX)
    last = softmax and graph.maker(softmax.inputs[0], kinds.FULLY_CONNECTED)
    if last is None or len(graph.inputs) != 1:
        return None
    pooled, weights, bias = last.inputs
    flattened = graph.maker(pooled, kinds.RESHAPE)
    mean = graph.maker(flattened.inputs[0] if flattened else pooled, kinds.MEAN)
    axes = mean and graph.constant(mean.inputs[1])
    matrix, offset = graph.constant(weights), graph.constant(bias)
    if mean is None or axes is None or axes.tolist() != [1, 2] or matrix is None or offset is None:
        return None
    return graph.up_to(mean.inputs[0]), matrix, offset


def write_explanations(stem: Path, recognizer: Recognizer, faces: Sequence[Face], crops: Sequence[np.ndarray]) -> None:
    """Writes `<stem>_1.png`, a sheet about the first face, and `<stem>_1_crop.png`, what the network saw; and so on."""
    explainer = _explainer_of(recognizer)
    for number, (face, crop) in enumerate(zip(faces, crops, strict=True), 1):
        write_image(f"{stem}_{number}_crop.png", crop)
        write_image(explanation_of(stem, number), sheet(explainer, face, crop))


@functools.lru_cache(maxsize=1)
def _explainer_of(recognizer: Recognizer) -> Explainer:
    return Explainer(recognizer.model, recognizer.features_of)


def sheet(explainer: Explainer, face: Face, crop: np.ndarray) -> np.ndarray:
    """The crop, the maps over it, and the probabilities, side by side: BGR."""
    panels = [(cv2.cvtColor(_enlarged(crop), cv2.COLOR_GRAY2BGR), "what the network sees")]
    own = explainer.model.expressions[[*face.probabilities].index(face.expression)]  # the settings may rename it
    activation = explainer.activation_map(crop, own)
    if activation is not None:
        panels.append((_over(crop, activation), f"class activation map: {face.expression}"))
    panels.append((_over(crop, explainer.occlusion_map(crop, own)), f"occlusion: {face.expression}"))
    panels.append((_bars(face), "probabilities"))
    width = len(panels) * (_SIDE + _GAP) + _GAP
    drawn = np.full((_SIDE + _TEXT + 2 * _GAP, width, 3), 255, np.uint8)
    for index, (panel, title) in enumerate(panels):
        left = _GAP + index * (_SIDE + _GAP)
        _write(drawn, title, left, _GAP + 12)
        drawn[_GAP + _TEXT :, left : left + _SIDE][:_SIDE] = panel
    return drawn


def _enlarged(crop: np.ndarray) -> np.ndarray:
    return cv2.resize(crop, (_SIDE, _SIDE), interpolation=cv2.INTER_CUBIC)


def _over(crop: np.ndarray, evidence: np.ndarray) -> np.ndarray:
    """The crop, in red where the evidence speaks for the expression, in blue where it speaks against it."""
    large = cv2.resize(evidence.astype(np.float32), (_SIDE, _SIDE), interpolation=cv2.INTER_CUBIC)
    strength = np.clip(large / max(float(np.abs(evidence).max()), 1e-9), -1, 1)[..., None]
    color = np.where(strength > 0, _FOR, _AGAINST)
    grey = cv2.cvtColor(_enlarged(crop), cv2.COLOR_GRAY2BGR)
    share = 0.65 * np.abs(strength)
    return np.rint(grey * (1 - share) + color * share).astype(np.uint8)


def _bars(face: Face) -> np.ndarray:
    """A bar for the probability of each expression."""
    drawn = np.full((_SIDE, _SIDE, 3), 255, np.uint8)
    row = min(36, _SIDE // len(face.probabilities))
    for index, (name, probability) in enumerate(face.probabilities.items()):
        top = index * row
        color = _FOR.tolist() if name == face.expression else (170, 170, 170)
        cv2.rectangle(drawn, (84, top + 4), (84 + round(140 * probability), top + row - 8), color, cv2.FILLED)
        _write(drawn, name, 0, top + row // 2 + 4)
        _write(drawn, f"{probability:.1%}", 92 + round(140 * probability), top + row // 2 + 4)
    return drawn


def _write(drawn: np.ndarray, text: str, x: int, y: int) -> None:
    draw_text(drawn, text, (x, y), 0.45, (0, 0, 0))
