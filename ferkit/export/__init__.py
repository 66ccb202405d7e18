"""A saved model as a file for other programs: ONNX, LiteRT, Keras, TensorFlow's SavedModel.

    export(saved_model.load("ferplus"), "onnx", "expressions.onnx", batch=None, balance=1.0)

All take the same inputs as the saved model, and give its calibrated probabilities (N, K): `images` (N, 48, 48, 1)
float32, the grey values of the faces from 0 to 255, and `features` (N, size) float32 if the model has features.
"""

import contextlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ferkit.constants import IMAGE_SIZE
from ferkit.errors import UserError
from ferkit.files import real_path, whole_file, whole_folder
from ferkit.processes import quiet
from ferkit.saved_model import SavedModel, labels_of

FACTS = "ferkit.json"  # beside the network, where a format is an archive or a folder
FACE = (
    f"one face of {IMAGE_SIZE}×{IMAGE_SIZE} pixels: a square around the face, from the forehead to the chin, in grey "
    "values from 0 to 255, which are scaled inside the network"
)


class Format(NamedTuple):
    """write: (temporary path, model, batch, balance). suffix: of the files; empty for a folder."""

    write: Callable[[Path, SavedModel, int | None, float], None]
    suffix: str
    batch: int | None  # number of faces, if none is asked for; None for any


def export(model: SavedModel, format: str, output: str, batch: int | None = None, balance: float = 1.0) -> None:
    """Writes the model in one of FORMATS to `output`.

    batch: number of faces in one run; by default any, and 1 for LiteRT. balance: see VideoPredictor.balance. Weights of
    8 bits become floats. Raises UserError for an output that does not fit the format, a network with operations that
    are not known here, and a file that cannot be written.
    """
    chosen = FORMATS[format]
    check_output(format, output)
    with whole_file(output) if chosen.suffix else whole_folder(output) as temporary:
        chosen.write(temporary, model, batch or chosen.batch, balance)


def check_output(format: str, output: str) -> None:
    """Raises UserError when `output` has another suffix than the format, or is a folder with something else."""
    suffix, path = FORMATS[format].suffix, real_path(output)
    if suffix and Path(output).suffix != suffix:
        raise UserError(f"--output={output} must end with {suffix} for --format={format}")
    if not suffix and path.exists() and not (path / "saved_model.pb").is_file():
        raise UserError(f"{output} exists and is no SavedModel: name another --output, or delete it")


def facts_of(model: SavedModel, balance: float) -> dict[str, Any]:
    """What a program needs to know of an exported model, and where it comes from."""
    calibration = model.calibration(balance)
    return {
        "expressions": list(model.expressions),
        "face": FACE,
        "features": model.features,
        "labels": labels_of(model.facts),
        "balance": balance,
        "temperature": calibration.temperature,
        "label_smoothing": calibration.smoothing,
        "network_sha256": model.facts.get("network_sha256"),
        "commit": model.facts.get("commit"),
    }


def _write_onnx(path: Path, model: SavedModel, batch: int | None, balance: float) -> None:
    from ferkit.export.onnx_graph import OnnxGraph
    from ferkit.export.rebuilding import rebuild

    graph = OnnxGraph(batch)
    rebuild(model.flatbuffer, model.calibration(balance), graph)
    facts = {name: _text(value) for name, value in facts_of(model, balance).items()}
    path.write_bytes(graph.model(len(model.expressions), facts))


def _write_keras(path: Path, model: SavedModel, batch: int | None, balance: float) -> None:
    with _keras_model(model, batch, balance) as network:
        network.save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(FACTS, _text(facts_of(model, balance)))


def _write_saved_model(path: Path, model: SavedModel, batch: int | None, balance: float) -> None:
    with _keras_model(model, batch, balance) as network:
        from ferkit.export.keras_graph import write_saved_model

        write_saved_model(network, path)
    (path / "assets.extra").mkdir()
    (path / "assets.extra" / FACTS).write_text(_text(facts_of(model, balance)), encoding="utf-8")


def _write_litert(path: Path, model: SavedModel, batch: int | None, balance: float) -> None:
    with _keras_model(model, batch, balance) as network:
        from ferkit.export.keras_graph import flatbuffer

        path.write_bytes(flatbuffer(network))
    with zipfile.ZipFile(path, "a") as archive:  # behind the network, as LiteRT's own metadata
        archive.writestr(FACTS, _text(facts_of(model, balance)))


@contextlib.contextmanager
def _keras_model(model: SavedModel, batch: int | None, balance: float) -> Iterator[Any]:
    """The model in Keras; what TensorFlow prints inside the block is dropped."""
    from ferkit.export.keras_graph import KerasGraph
    from ferkit.export.rebuilding import rebuild

    with quiet(), contextlib.redirect_stdout(io.StringIO()):
        graph = KerasGraph(batch)
        yield graph.model(rebuild(model.flatbuffer, model.calibration(balance), graph))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


FORMATS = {
    "onnx": Format(_write_onnx, ".onnx", batch=None),
    "tflite": Format(_write_litert, ".tflite", batch=1),  # LiteRT.js refuses a network for any number
    "keras": Format(_write_keras, ".keras", batch=None),
    "saved_model": Format(_write_saved_model, "", batch=None),
}
