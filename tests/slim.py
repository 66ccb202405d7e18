"""A network so small that an epoch on the drawn faces takes a second: for tests of anything but the networks.

    python tests/slim.py train.py --train=yes --model=slim

runs a script of the toolkit with `slim` among the architectures, in the trials of a search too.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]


def load_script(name: str) -> ModuleType:
    """A script of the toolkit as a module, also where its name keeps it from being imported."""
    spec = importlib.util.spec_from_file_location(Path(name).stem.replace("-", "_"), ROOT / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def slim(layers, faces):
    """Two convolutions of few filters and a small fully connected layer."""
    for filters in (8, 16):
        faces = layers.convolution(faces, filters, 3, pooled=True)
    return layers.dense(layers.flatten(faces), 32)


def register() -> None:
    """Makes `slim` an architecture that has the published settings, and some of its own."""
    import parameters
    from ferkit.learning.architecture import Architecture
    from model import ARCHITECTURES

    ARCHITECTURES["slim"] = Architecture(slim, joint=8, published=True)
    parameters.OWN_SETTINGS["slim"] = {
        "standardize": True,
        "optimizer": "adam",
        "optimizer_param": 0.9,
        "learning_rate": 0.002,
        "batch_size": 32,
        "epochs": 3,
    }


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from ferkit.startup import begin

    begin()
    register()
    script = load_script(sys.argv[1])
    if hasattr(script, "TRIAL_COMMAND"):
        script.TRIAL_COMMAND = (sys.executable, __file__, sys.argv[1], script.TRIAL)
    sys.argv = sys.argv[1:]
    sys.exit(script.main())
