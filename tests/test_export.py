"""Exported models: every format gives the probabilities of the saved model, calibrated, with its names beside it."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import flatbuffers
import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert import schema_py_generated as schema
from conftest import ROOT

import export_model
from ferkit import features, saved_model
from ferkit.data.dataset import open_dataset
from ferkit.errors import UserError
from ferkit.export import export, rebuilding
from ferkit.export.onnx_graph import OPSET, OnnxGraph
from ferkit.export.rebuilding import rebuild
from ferkit.learning.architecture import Architecture
from ferkit.learning.graph import TrainingGraph, inference_flatbuffer
from ferkit.learning.scaling import Scaling
from ferkit.saved_model import Calibration, SavedModel
from ferkit.settings import Hyperparams, Network

PARITY = 1e-4


@pytest.fixture(scope="module")
def faces(drawn_dataset: Path) -> tuple[np.ndarray, np.ndarray]:
    """A thousand drawn faces, some of them mirrored, and the landmarks of the faces."""
    dataset = open_dataset(drawn_dataset)
    splits = [dataset.load(name, "landmarks") for name in ("Training", "PublicTest", "PrivateTest")]
    images, vectors = (np.concatenate(parts) for parts in zip(*((s.images, s.features) for s in splits), strict=True))
    return np.concatenate([images, images[:, :, ::-1]])[:1000], np.concatenate([vectors, vectors])[:1000]


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "expressions.onnx"
    assert export_model.main(["--model_path=ferplus", "--format=onnx", f"--output={path}"]) == 0
    return path


def with_floats(model: SavedModel) -> SavedModel:
    """The same model with its 8-bit weights written as floats, which LiteRT then runs without rounding activations."""
    network = schema.ModelT.InitFromPackedBuf(model.flatbuffer)
    for tensor in network.subgraphs[0].tensors:
        if tensor.type == schema.TensorType.INT8:
            scale = np.asarray(tensor.quantization.scale, np.float32)
            assert tensor.quantization.quantizedDimension == 0 and not np.any(tensor.quantization.zeroPoint)
            weights = np.frombuffer(bytes(network.buffers[tensor.buffer].data), np.int8).reshape(len(scale), -1)
            network.buffers[tensor.buffer].data = np.frombuffer((weights * scale[:, None]).tobytes(), np.uint8)
            tensor.type, tensor.quantization = schema.TensorType.FLOAT32, None
    builder = flatbuffers.Builder()
    builder.Finish(network.Pack(builder), b"TFL3")
    return SavedModel(bytes(builder.Output()), model.facts)


def run(content: bytes | Path, images: np.ndarray, vectors: np.ndarray | None = None) -> np.ndarray:
    session = onnxruntime.InferenceSession(content if isinstance(content, bytes) else str(content))
    inputs = {"images": images[..., None].astype(np.float32)}
    if vectors is not None:
        inputs["features"] = vectors
    (probabilities,) = session.run(["probabilities"], inputs)
    return probabilities


# --- ONNX ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "count", "balance"), [("ferplus", 1000, 1.0), ("fer2013", 100, 0.5)])
def test_onnx_gives_the_probabilities_of_the_included_model(name, count, balance, faces, tmp_path):
    """Of the same network with floats; those with 8 bits are near."""
    images, model = faces[0][:count], saved_model.load(name)
    none = np.zeros((count, 0), np.float32)
    export(model, "onnx", str(tmp_path / "x.onnx"), balance=balance)
    found = run(tmp_path / "x.onnx", images)
    exact = with_floats(model).predict(images, none, balance=balance)
    assert len(found) == count and np.abs(found - exact).max() < PARITY
    rounded = model.predict(images[:100], none[:100], balance=balance)
    assert 1e-5 < np.abs(found[:100] - rounded).max() < 0.15
    assert (found[:100].argmax(axis=1) == rounded.argmax(axis=1)).mean() > 0.95


def test_onnx_of_a_model_with_landmarks(small_model, faces, tmp_path):
    model = saved_model.load(small_model)
    export(model, "onnx", str(tmp_path / "x.onnx"))
    assert np.abs(run(tmp_path / "x.onnx", *faces) - model.predict(*faces, balance=1.0)).max() < PARITY


def test_onnx_is_valid_and_says_what_it_is(exported):
    model = onnx.load(exported)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(facts["expressions"]) == list(saved_model.load("ferplus").expressions)
    assert "48×48" in facts["face"] and facts["labels"] == "ferplus" and float(facts["balance"]) == 1
    assert [entry.name for entry in model.graph.input] == ["images"]


def test_number_of_faces_is_free_or_fixed(exported, tmp_path):
    faces = np.random.default_rng(0).integers(0, 256, (5, 48, 48), dtype=np.uint8)
    together = run(exported, faces)
    alone = np.concatenate([run(exported, face[None]) for face in faces])
    np.testing.assert_allclose(alone, together, atol=1e-5)
    fixed = tmp_path / "fixed.onnx"
    assert export_model.main(["--model_path=ferplus", "--format=onnx", f"--output={fixed}", "--batch=2"]) == 0
    np.testing.assert_allclose(run(fixed, faces[:2]), together[:2], atol=1e-5)
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
        run(fixed, faces)


@pytest.mark.parametrize(
    ("flag", "fragment"),
    [
        ("--batch=99999999999999999999", "at most 4096 faces"),
        ("--output=mine.onnx", "--output=mine.onnx would overwrite the model that is read"),
    ],
)
def test_what_cannot_be_exported_is_one_line(raw_model, tmp_path, monkeypatch, capsys, flag, fragment):
    monkeypatch.chdir(tmp_path)
    content = Path(raw_model).read_bytes()
    Path("mine.onnx").write_bytes(content)
    assert export_model.main(["--model_path=mine.onnx", "--format=onnx", "--output=new.onnx", flag]) == 2
    assert fragment in capsys.readouterr().err
    assert Path("mine.onnx").read_bytes() == content and not Path("new.onnx").exists()


@pytest.mark.parametrize("temperature", [0.6, 1.7])
@pytest.mark.parametrize("factors", [None, np.float32([3, 1, 0.2, 1, 8, 0.5, 1])], ids=["plain", "balanced"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_calibration_in_the_graph_is_that_in_python(smoothing, factors, temperature, raw_model):
    model, calibration = saved_model.load(raw_model), Calibration(smoothing, factors, temperature)
    faces = np.random.default_rng(0).integers(0, 256, (20, 48, 48), dtype=np.uint8)
    plain = model._run_all(faces, np.zeros((20, 0), np.float32))
    graph = OnnxGraph(None)
    rebuild(model.flatbuffer, calibration, graph)
    np.testing.assert_allclose(run(graph.model(7, {}), faces), calibration(plain), atol=1e-5)


@pytest.mark.parametrize("quantize", [False, True])
def test_every_kind_of_layer(quantize, tmp_path):
    """Even kernels, residuals, gates, batch normalization of vectors, features beside the image."""
    from ferkit.learning.tflearn_compat import tf

    def build(layers, faces):
        faces = layers.convolution(faces, 16, 4, pooled=True)
        gates = tf.sigmoid(layers.global_average_pooling(faces))[:, None, None, :]
        return layers.dense(layers.flatten(faces + gates * layers.convolution(faces, 16, 3)), 16)

    random, size = np.random.default_rng(0), features.size("landmarks_hog")
    network = Network("x", "landmarks_hog", 3, standardize=True, batch_norm_fc=True)
    scaling = Scaling(120.0, 60.0, random.random(size, np.float32), 1 + random.random(size, np.float32))
    architecture = Architecture(build, joint=8)
    graph = TrainingGraph(network, architecture, Hyperparams(), scaling, seed=0, steps=1)
    with graph.session(False) as session:
        for weight in graph.graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES, "network/.*_norm/[a-z]*:0"):
            weight.load(0.5 + random.random(weight.shape, np.float32), session)
        graph.saver.save(session, str(tmp_path / "weights"))
    flatbuffer = inference_flatbuffer(str(tmp_path / "weights"), network, architecture, scaling, quantize=quantize)
    facts = {"expressions": ["a", "b", "c"], "features": "landmarks_hog", "feature_provenance": {}}
    model = SavedModel(flatbuffer, facts)
    export(model, "onnx", str(tmp_path / "x.onnx"))
    faces = random.integers(0, 256, (20, 48, 48), dtype=np.uint8), random.random((20, size), np.float32) * 48
    expected = with_floats(model).predict(*faces)
    assert np.ptp(expected, axis=0).max() > 0.01, "the faces matter"
    assert np.abs(run(tmp_path / "x.onnx", *faces) - expected).max() < PARITY


# --- TensorFlow's formats --------------------------------------------------------------------------------------------

OTHERS = {"keras": "expressions.keras", "saved_model": "expressions", "tflite": "expressions.tflite"}
EXPORT = """
import sys
import export_model
for format, output in {others!r}.items():
    assert export_model.main(["--model_path={model}", f"--format={{format}}", f"--output={{output}}"]) == 0
"""
RUN = """
import keras, numpy as np, tensorflow as tf
images, vectors = np.load("images.npy"), np.load("vectors.npy")
inputs = {"images": images, "features": vectors} if vectors.size else {"images": images}
np.save("keras.npy", keras.models.load_model("expressions.keras").predict(inputs, verbose=0))
run = tf.saved_model.load("expressions").signatures["serving_default"]
np.save("saved_model.npy", run(**{name: tf.constant(value) for name, value in inputs.items()})["probabilities"])
run = tf.lite.Interpreter("expressions.tflite").get_signature_runner()
faces = [run(**{name: value[row : row + 1] for name, value in inputs.items()}) for row in range(len(images))]
np.save("tflite.npy", np.concatenate([face["probabilities"] for face in faces]))
"""


def python(code: str, folder: Path, path: str = "") -> None:
    """Runs code in a process of its own: where TFLearn was imported, Keras does not work."""
    environment = {**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ferplus", "with landmarks"])
def test_formats_of_tensorflow_give_the_same_numbers_without_this_toolkit(name, small_model, faces, tmp_path):
    path = "ferplus" if name == "ferplus" else small_model
    model = saved_model.load(path)
    images, vectors = faces[0][:100], faces[1][:100, : features.size(model.features)]
    np.save(tmp_path / "images.npy", images[..., None].astype(np.float32))
    np.save(tmp_path / "vectors.npy", vectors)
    python(EXPORT.format(others=OTHERS, model=path), tmp_path, str(ROOT))
    python(RUN, tmp_path)
    expected = with_floats(model).predict(images, vectors, balance=1.0)
    for format in OTHERS:
        assert np.abs(np.load(tmp_path / f"{format}.npy") - expected).max() < PARITY, format
    places = [zipfile.ZipFile(tmp_path / OTHERS[name]).read("ferkit.json") for name in ("keras", "tflite")]
    for text in (*places, (tmp_path / "expressions" / "assets.extra" / "ferkit.json").read_bytes()):
        assert json.loads(text)["expressions"] == list(model.expressions)
    if name == "ferplus":
        cv2.imwrite(str(tmp_path / "face.png"), images[0])
        for code in examples()[1:]:
            python(code, tmp_path)


def examples() -> list[str]:
    blocks = (ROOT / "docs" / "export.md").read_text(encoding="utf-8").split("```python\n")[1:]
    return [block.split("```")[0] for block in blocks]


def test_example_in_python_names_the_expressions(exported, faces, monkeypatch, capsys):
    monkeypatch.chdir(exported.parent)
    cv2.imwrite("face.png", faces[0][0])
    exec(compile(examples()[0], "docs/export.md", "exec"), {})
    assert capsys.readouterr().out.startswith("{'Angry': ")


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format", "output", "message"),
    [
        ("onnx", "expressions.tflite", "--output=expressions.tflite must end with .onnx for --format=onnx"),
        ("keras", "expressions", "must end with .keras"),
        ("saved_model", "mine", "mine exists and is no SavedModel"),
        ("onnx", "folder.onnx", "it is a folder"),
    ],
)
def test_output_that_does_not_fit_is_refused_and_kept(format, output, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for folder in ("mine", "folder.onnx"):
        Path(folder).mkdir()
        Path(folder, "kept.txt").write_text("x")
    assert export_model.main(["--model_path=ferplus", f"--format={format}", f"--output={output}"]) == 2
    assert message in capsys.readouterr().err
    assert {path.name for path in tmp_path.rglob("*")} == {"mine", "folder.onnx", "kept.txt"}


def test_operation_that_is_not_known_is_named_and_nothing_written(monkeypatch, tmp_path):
    monkeypatch.setitem(rebuilding._KINDS, schema.BuiltinOperator.MEAN, "ELU")
    with pytest.raises(UserError, match="the operation ELU in a form that cannot be exported"):
        export(saved_model.load("ferplus"), "onnx", str(tmp_path / "x.onnx"))
    assert not list(tmp_path.iterdir())
