"""Measures the time of a training step, and compares it with unmodified TFLearn and with PyTorch.

    pip install -r benchmarks/requirements.txt
    python benchmarks/benchmark_training.py --model=B --features=landmarks_hog_windows
    python benchmarks/benchmark_training.py --profile

All variants train the same network on random faces. They take turns, each in a process of its own, and the time is the
median of the steps. The last column is the important one: the ratio to PyTorch's best bf16 time in the same run.
"""

import argparse
import collections
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ferkit import features
from ferkit.flags import add_flags, override
from ferkit.settings import Hyperparams, Network, Training
from model import ARCHITECTURES
from parameters import HYPERPARAMS, NETWORK

if TYPE_CHECKING:
    from ferkit.learning.pytorch import TorchTraining

STEPS, WARM_UP = 15, 4


def main() -> int:
    parser = argparse.ArgumentParser(description="Time a training step.")
    add_flags(parser, NETWORK, "model", "features", choices={"model": ARCHITECTURES})
    add_flags(parser, HYPERPARAMS, "batch_size")
    parser.add_argument("--rounds", type=int, default=3, help="processes started for each variant")
    parser.add_argument("--profile", action="store_true", help="print where a step of ours spends its time, instead")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    network, hyperparams = override(NETWORK, arguments), override(HYPERPARAMS, arguments)
    if arguments.variant:
        print(median_step(VARIANTS[arguments.variant](network, hyperparams)) / hyperparams.batch_size * 1000)
        return 0
    if arguments.profile:
        profile(network, hyperparams)
        return 0
    times: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for _ in range(arguments.rounds):
        for variant in VARIANTS:
            command = [sys.executable, __file__, "--variant", variant, "--model", network.model]
            command += ["--features", network.features, "--batch_size", str(hyperparams.batch_size)]
            run = subprocess.run(command, capture_output=True, text=True)
            if run.returncode == 0:
                times[variant].append(float(run.stdout.split()[-1]))
            elif not run.stderr.strip().endswith("No module named 'torch'"):
                sys.exit(f"{variant} failed:\n{run.stderr}")
    print(f"Model {network.model}, features {network.features}, batch {hyperparams.batch_size}")
    print_table({variant: statistics.median(values) for variant, values in times.items() if values})
    return 0


def print_table(times: dict[str, float]) -> None:
    yardsticks = [milliseconds for variant, milliseconds in times.items() if variant.startswith("PyTorch bf16")]
    print(f"{'':32}ms/image   ratio")
    for variant, milliseconds in times.items():
        ratio = f"{milliseconds / min(yardsticks):7.2f}" if yardsticks else "      –"
        print(f"{variant:32}{milliseconds:8.2f} {ratio}")
    if not yardsticks:
        print("PyTorch is not installed: pip install -r benchmarks/requirements.txt")


def median_step(step: Callable[[], object]) -> float:
    """The median time of a step, in seconds."""
    times = []
    for _ in range(WARM_UP + STEPS):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return statistics.median(times[WARM_UP:])


def random_faces(network: Network, batch_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (batch_size, 48, 48), dtype=np.uint8)
    vectors = random.random((batch_size, features.size(network.features)), np.float32)
    return images, vectors, random.integers(0, network.output_size, batch_size)


def start(network: Network, hyperparams: Hyperparams, bfloat16: bool) -> tuple:
    """The toolkit's graph, a session on it, and a function that runs a training step."""
    from ferkit.learning.graph import TrainingGraph
    from ferkit.learning.scaling import Scaling

    images, vectors, labels = random_faces(network, hyperparams.batch_size)
    architecture = ARCHITECTURES[network.model]
    graph = TrainingGraph(network, architecture, hyperparams, Scaling.of(images, vectors), seed=0, steps=1000)
    session = graph.session(bfloat16)
    feed = {graph.images: images, graph.features: vectors, graph.labels: labels}
    return graph, session, lambda: session.run([graph.train, graph.loss, graph.accuracy], feed)


def ours(bfloat16: bool) -> Callable:
    return lambda network, hyperparams: start(network, hyperparams, bfloat16)[2]


def profile(network: Network, hyperparams: Hyperparams) -> None:
    """Prints the time that each kind of operation takes in a bf16 step of the toolkit."""
    from ferkit.learning.tflearn_compat import tf

    graph, session, step = start(network, hyperparams, bfloat16=True)
    for _ in range(WARM_UP):
        step()
    options, traced = tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE), tf.RunMetadata()
    images, vectors, labels = random_faces(network, hyperparams.batch_size)
    feed = {graph.images: images, graph.features: vectors, graph.labels: labels}
    session.run(graph.train, feed, options=options, run_metadata=traced)
    times: collections.Counter[str] = collections.Counter()
    for device in traced.step_stats.dev_stats:
        for node in device.node_stats:
            operation = re.search(r" = (\w+)\(", node.timeline_label)
            times[operation[1] if operation else node.node_name] += node.all_end_rel_micros
    for operation, spent in times.most_common(15):
        print(f"{operation:40}{spent / 1000:8.1f} ms {spent / times.total():6.1%}")


def plain_tflearn(network: Network, hyperparams: Hyperparams) -> Callable[[], object]:
    """The same graph with TFLearn's own batch normalization, in fp32."""
    from ferkit.learning.tflearn_compat import tflearn

    def norm(layer: object, training: bool, scope: str) -> object:
        return tflearn.batch_normalization(layer, scope=scope)

    with mock.patch("ferkit.learning.layers.batch_norm", norm):
        graph, session, step = start(network, hyperparams, bfloat16=False)
    session.run(graph.graph.get_collection("is_training_ops")[0])  # TFLearn switches to training inside the graph
    return step


def pytorch(bfloat16: bool, channels_last: bool) -> Callable:
    """The same network in PyTorch, with its own optimizer and nothing else: the yardstick."""

    def build(network: Network, hyperparams: Hyperparams) -> Callable[[], object]:
        import torch

        module = torch_training(network, hyperparams).network
        module.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        images, vectors, labels = map(torch.from_numpy, random_faces(network, hyperparams.batch_size))
        optimizer = torch.optim.SGD(module.parameters(), hyperparams.learning_rate, hyperparams.optimizer_param)

        def step() -> None:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
                loss = torch.nn.functional.cross_entropy(module(images, vectors), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return step

    return build


def torch_training(network: Network, hyperparams: Hyperparams) -> "TorchTraining":
    """A training of the toolkit with engine=pytorch, on random faces."""
    from ferkit.data.dataset import Split
    from ferkit.learning.pytorch import TorchTraining
    from ferkit.learning.run import Run

    run = Run(RandomFaces(), ARCHITECTURES[network.model], network, hyperparams, Training(engine="pytorch"))
    return TorchTraining(run, Split(*random_faces(network, hyperparams.batch_size)), None, Path("never written"))


class RandomFaces:
    """As much of a dataset as a training of a few steps needs."""

    counts: ClassVar = {"Training": 1}
    label_source = fingerprint = "random"

    def feature_provenance(self, feature: str) -> dict[str, object]:
        return {}


def with_pytorch(network: Network, hyperparams: Hyperparams) -> Callable[[], object]:
    """A step with engine=pytorch."""
    import torch

    training = torch_training(network, hyperparams)
    images, vectors, labels = random_faces(network, hyperparams.batch_size)
    targets = np.eye(network.output_size, dtype=np.float32)[labels]
    batch = [torch.from_numpy(part) for part in (images, vectors, targets, targets)]
    return lambda: training._step(0, *batch)


VARIANTS = {
    "TFLearn as it comes": plain_tflearn,
    "ours, fp32": ours(bfloat16=False),
    "ours, bf16": ours(bfloat16=True),
    "ours, engine=pytorch": with_pytorch,
    "PyTorch fp32": pytorch(bfloat16=False, channels_last=False),
    "PyTorch bf16": pytorch(bfloat16=True, channels_last=False),
    "PyTorch bf16, channels last": pytorch(bfloat16=True, channels_last=True),
}

if __name__ == "__main__":
    sys.exit(main())
