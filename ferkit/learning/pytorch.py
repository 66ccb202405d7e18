"""Training in PyTorch, on a GPU or a CPU: model.py's architectures, with the recipe and the random faces of train.py.

    training = TorchTraining(run, learn, validation, Path("checkpoints/checkpoint.pt"))
    training.fit()
    weights_of(training.best)["network/logits/W"]

PyTorch is optional. The weights have the names and the layout of the TensorFlow graph (`ferkit.learning.graph`), which
converts them to a saved model. Random initial weights and dropout differ from TensorFlow's; all else is the same.
"""

import contextlib
import copy
import dataclasses
import functools
import io
import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from ferkit import features
from ferkit.constants import IMAGE_SIZE
from ferkit.data.dataset import Split
from ferkit.errors import UserError
from ferkit.files import whole_file
from ferkit.learning.architecture import BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM, FEATURE_UNITS
from ferkit.learning.checkpoints import ANEW, check_same, damage_told
from ferkit.learning.run import Diverged, Run, State, log_name, uses_bfloat16
from ferkit.learning.sampling import changed_batch, frequencies, is_degraded, shuffled_batches
from ferkit.learning.scaling import Scaling
from ferkit.processes import available_cores
from ferkit.saved_model import LEAST_PROBABILITY
from ferkit.settings import Hyperparams

VALIDATION_BATCH = 512
WORKERS = 14  # processes that change faces, at most
PARTS = ("network", "averaged", "best", "optimizer")  # of a checkpoint
CHECKPOINT_SECONDS = 60.0  # between two checkpoints, at least


class Layers(nn.Module):
    """The layers of `ferkit.learning.layers` in PyTorch: (N, C, H, W) tensors, channels last in memory.

    The first call of a layer makes its weights; later calls use them again. `start` begins a pass.
    """

    def __init__(self, batch_norm_conv: bool, batch_norm_fc: bool, keep_prob: float) -> None:
        super().__init__()
        self._batch_norm_conv, self._batch_norm_fc, self._drop = batch_norm_conv, batch_norm_fc, 1 - keep_prob
        self.parts = nn.ModuleDict()  # by the variable scope of the TensorFlow graph
        self.start()

    def start(self) -> None:
        self._convolutions = self._dense = 0

    def convolution(self, layer: torch.Tensor, filters: int, side: int, pooled: bool = False) -> torch.Tensor:
        self._convolutions += 1
        scope = f"convolution_{self._convolutions}"
        layer = functional.relu(self._part(scope, nn.Conv2d, layer.shape[1], filters, side, padding="same")(layer))
        if self._batch_norm_conv:
            layer = self._norm(f"{scope}_norm", nn.BatchNorm2d, filters)(layer)
        return self.max_pooling(layer) if pooled else layer

    def max_pooling(self, layer: torch.Tensor) -> torch.Tensor:
        if layer.shape[2] % 2:  # TensorFlow pads an odd side on both ends, an even one at its end
            return functional.max_pool2d(layer, 3, 2, padding=1)
        return functional.max_pool2d(layer, 3, 2, ceil_mode=True)

    def global_average_pooling(self, layer: torch.Tensor) -> torch.Tensor:
        return layer.mean(dim=(2, 3))

    def flatten(self, layer: torch.Tensor) -> torch.Tensor:
        return (layer.permute(0, 2, 3, 1) if layer.ndim == 4 else layer).flatten(1)

    def dropout(self, layer: torch.Tensor) -> torch.Tensor:
        return functional.dropout(layer, self._drop, self.training)

    def dense(self, layer: torch.Tensor, units: int) -> torch.Tensor:
        self._dense += 1
        return self.fully_connected(self.dropout(layer), units, f"dense_{self._dense}")

    def fully_connected(self, layer: torch.Tensor, units: int, scope: str) -> torch.Tensor:
        layer = functional.relu(self._part(scope, nn.Linear, layer.shape[1], units)(layer))
        return self._norm(f"{scope}_norm", nn.BatchNorm1d, units)(layer) if self._batch_norm_fc else layer

    def logits(self, layer: torch.Tensor, classes: int) -> torch.Tensor:
        return self._part("logits", nn.Linear, layer.shape[1], classes)(layer)

    def _norm(self, scope: str, kind: type[nn.Module], filters: int) -> nn.Module:
        return self._part(scope, kind, filters, eps=BATCH_NORM_EPSILON, momentum=1 - BATCH_NORM_MOMENTUM)

    def _part(self, scope: str, kind: type[nn.Module], *sizes: int, **options: Any) -> nn.Module:
        if scope not in self.parts:
            self.parts[scope] = part = kind(*sizes, **options).train(self.training)
            if isinstance(part, nn.Conv2d | nn.Linear):  # He et al., ICCV 2015
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu" if scope != "logits" else "linear")
                nn.init.zeros_(part.bias)
        return self.parts[scope]


class TorchNetwork(nn.Module):
    """The network of a run: raw faces (N, 48, 48) uint8 and features (N, size) float32 -> logits (N, K).

    smoothing: the share of label smoothing in what it learns, and so in what it answers.
    """

    def __init__(self, run: Run, scaling: Scaling | None) -> None:
        super().__init__()
        self._network, self._architecture = run.network, run.architecture
        self.smoothing = run.smoothing
        self.layers = Layers(run.network.batch_norm_conv, run.network.batch_norm_fc, run.hyperparams.keep_prob)
        size = features.size(run.network.features)
        mean, deviation = (scaling.pixel_mean, scaling.pixel_deviation) if scaling else (0.0, 1.0)
        means = scaling.feature_means if scaling else np.zeros(size, np.float32)
        deviations = scaling.feature_deviations if scaling else np.ones(size, np.float32)
        for name, values in (("pixels", (mean, deviation)), ("means", means), ("deviations", deviations)):
            self.register_buffer(name, torch.tensor(np.asarray(values), dtype=torch.float32), persistent=False)
        with torch.no_grad():  # makes the weights
            self.eval()(torch.zeros(1, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8), torch.zeros(1, size))
        self.to(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        layers = self.layers
        layers.start()
        faces = (images[:, None].float() - self.pixels[0]) / self.pixels[1]
        layer = self._architecture.build(layers, faces.contiguous(memory_format=torch.channels_last))
        if self._network.features != "none":
            vectors = (vectors - self.means) / self.deviations
            layer = layers.fully_connected(layer, self._architecture.joint, "image_joint")
            vectors = layers.fully_connected(vectors, FEATURE_UNITS, "feature_dense")
            vectors = layers.fully_connected(vectors, self._architecture.joint, "feature_joint")
            layer = torch.cat([layer, vectors], dim=1)
        return layers.logits(layer, self._network.output_size).float()


class TorchTraining:
    """A training in PyTorch: `fit` runs the epochs that are left, `best` is the network of the best epoch so far.

    teachers: their mean probabilities of the same moved faces make up the share `teacher_share` of what is learned,
    like those of the run's own teachers: see distillation. The label smoothing that they learned is taken out of their
    answers. checkpoint: the file that a stopped training goes on from,
    with `resume`. Raises CannotResume when that is missing, damaged or of another training. cure: how to begin anew.
    """

    def __init__(
        self,
        run: Run,
        learn: Split,
        validation: Split | None,
        checkpoint: Path,
        resume: bool = False,
        teachers: Sequence[TorchNetwork] = (),
        cure: str = ANEW,
    ) -> None:
        self.run, self.learn, self.validation, self.checkpoint = run, learn, validation, checkpoint
        self.teachers = teachers
        self.device = best_device()
        torch.backends.cudnn.benchmark = True
        torch.manual_seed(run.training.seed)
        self.scaling = Scaling.of(learn.images, learn.features) if run.network.standardize else None
        self.network = TorchNetwork(run, self.scaling).to(self.device).train()
        self.averaged = self.network
        if run.hyperparams.ema_decay:
            self.averaged = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.optimizer = _optimizer(self.network, run.hyperparams)
        self.state = State(run.resumable(), log_name(run.network))
        self.best = copy.deepcopy(self.averaged).eval()
        self.frequencies = frequencies(learn, run.network.output_size)
        self._pairs = [
            [tensor for tensor in module.state_dict().values() if tensor.is_floating_point()]
            for module in (self.averaged, self.network)
        ]
        if resume:
            self._restore(cure)

    def fit(self, after_epoch: Callable[[State], None] | None = None) -> State:
        """Trains the epochs that are left. after_epoch: called after each. Raises Diverged, and see `failures_told`.

        A checkpoint is written after the first epoch, so that none of an earlier training is left, then after an epoch
        that ends a minute or more after the last one, and at the end.
        """
        run, done = self.run, len(self.state.history)
        loader = torch.utils.data.DataLoader(
            _Steps(run, self.learn, taught=bool(self.teachers) or run.teacher is not None),
            batch_size=None,
            sampler=range(done * run.steps_per_epoch, run.steps),
            num_workers=1 if self.device.type == "cpu" else min(WORKERS, available_cores()),
            prefetch_factor=8,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # otherwise it would draw from the random numbers of the training
        )
        with failures_told():
            batches, written = iter(loader), time.perf_counter() if done else -math.inf
            for epoch in range(done + 1, run.training.epochs + 1):
                row = self._epoch(epoch, batches)
                self.state.history.append(row)
                if self.state.best is row:
                    self.best.load_state_dict(self.averaged.state_dict())
                if time.perf_counter() - written > CHECKPOINT_SECONDS or epoch == run.training.epochs:
                    self._write()
                    written = time.perf_counter()
                if after_epoch is not None:
                    after_epoch(self.state)
        return self.state

    def _epoch(self, epoch: int, batches: Iterator[Sequence[torch.Tensor]]) -> dict[str, float]:
        """Trains one epoch and validates it; returns its row of the history."""
        started, run = time.perf_counter(), self.run
        torch.manual_seed(run.training.seed * 100_000 + epoch)  # a training that goes on drops out what it would have
        loss = right = torch.zeros((), device=self.device)
        name = f"Epoch {epoch}/{run.training.epochs}"
        for place in tqdm(range(run.steps_per_epoch), desc=name, unit="step", leave=False):
            images, vectors, targets, labels, *clear = next(batches)
            if run.teacher:
                faces, values = (part.numpy() for part in clear)
                taught = torch.from_numpy(run.teacher.probabilities(faces, values, self.frequencies))
                targets = targets + run.hyperparams.teacher_share * (taught - targets)
            batch = (part.to(self.device, non_blocking=True) for part in (images, vectors, targets, labels, *clear))
            one, hits = self._step((epoch - 1) * run.steps_per_epoch + place, *batch)
            loss, right = loss + one, right + hits
        row = {"epoch": epoch, "loss": float(loss) / run.steps_per_epoch}
        if not math.isfinite(row["loss"]):
            raise Diverged(f"the loss became {row['loss']} in epoch {epoch}: try a lower --learning_rate")
        if not all(torch.isfinite(weight).all() for weight in self.averaged.parameters()):
            raise Diverged(f"the weights are no numbers after epoch {epoch}: try a lower --learning_rate")
        row["accuracy"] = float(right) / run.steps_per_epoch
        row["validation_accuracy"] = math.nan
        if self.validation is not None:
            row |= validated(self.averaged, self.validation)
            print(f"Epoch {epoch}: validation accuracy {row['validation_accuracy']:.1%}", flush=True)
        return {**row, "seconds": time.perf_counter() - started}

    def _step(
        self,
        step: int,
        images: torch.Tensor,
        vectors: torch.Tensor,
        targets: torch.Tensor,
        labels: torch.Tensor,
        *clear: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One step of the optimizer; returns the loss and the accuracy. clear: images and vectors for the teachers."""
        hyperparams = self.run.hyperparams
        for group in self.optimizer.param_groups:
            group["lr"] = rate(hyperparams, step, self.run.steps)
        automatic = self.device.type == "cuda" and self.run.training.bfloat16 == "auto"
        bfloat16 = automatic or uses_bfloat16(self.run.training)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16):
            if self.teachers:
                with torch.no_grad():
                    answers = [without_smoothing(one(*clear).softmax(1), one.smoothing) for one in self.teachers]
                    taught = torch.stack(answers).mean(0)
                targets = targets + hyperparams.teacher_share * (taught - targets)
            if hyperparams.mixup:
                random = np.random.default_rng((self.run.training.seed, step, 999))
                share = float(random.beta(hyperparams.mixup, hyperparams.mixup))
                images, vectors, targets, labels = (
                    share * part + (1 - share) * part.flip(0) for part in (images.float(), vectors, targets, labels)
                )
            logits = learned = self.network(images, vectors)
            if hyperparams.logit_adjustment:
                logarithms = np.log(np.maximum(self.frequencies, 1e-6)).astype(np.float32)
                learned = logits + hyperparams.logit_adjustment * torch.from_numpy(logarithms).to(self.device)
            loss = functional.cross_entropy(learned, targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            if self.averaged is not self.network:
                decay = min(hyperparams.ema_decay, (2 + step) / (11 + step))  # as TensorFlow's
                torch._foreach_lerp_(*self._pairs, 1 - decay)
            accuracy = labels.gather(1, logits.argmax(1, keepdim=True)).mean()
        return loss.detach(), accuracy

    def _write(self) -> None:
        parts = {name: getattr(self, name).state_dict() for name in PARTS}
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()  # PyTorch's own error does not say that the disk is full
        torch.save({"state": json.dumps(dataclasses.asdict(self.state)), **parts}, content)
        with whole_file(self.checkpoint) as temporary:
            temporary.write_bytes(content.getbuffer())

    def _restore(self, cure: str) -> None:
        with damage_told(self.checkpoint, cure):
            saved = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
            state = State(**json.loads(saved["state"]))
            check_same(self.run, state, self.checkpoint, cure)
            for name in PARTS:
                getattr(self, name).load_state_dict(saved[name])
        self.state = state


class _Steps(torch.utils.data.Dataset):
    """The batches of a training by their step: changed faces, their features, and what is to be learned of them.

    taught: also the clear faces and their features, for a teacher.
    """

    def __init__(self, run: Run, learn: Split, taught: bool) -> None:
        self.run, self.learn, self.taught = run, learn, taught
        self.rows = functools.lru_cache(2)(
            lambda epoch: shuffled_batches(len(learn), run.hyperparams.batch_size, run.training.seed, epoch)
        )

    def __len__(self) -> int:
        return self.run.steps

    def __getitem__(self, step: int) -> tuple[torch.Tensor, ...]:
        import cv2

        cv2.setNumThreads(0)  # there is a process for each core already
        epoch, place = step // self.run.steps_per_epoch + 1, step % self.run.steps_per_epoch
        chosen = self.learn.take(self.rows(epoch)[place])
        faces = changed_batch(self.run, chosen, epoch, place)
        classes, smoothing = self.run.network.output_size, self.run.hyperparams.label_smoothing
        labels = np.eye(classes, dtype=np.float32)[faces.labels]
        targets = (labels if faces.targets is None else faces.targets) * (1 - smoothing) + smoothing / classes
        arrays = [faces.images, faces.features, targets.astype(np.float32), labels]
        if self.taught:
            clear = changed_batch(self.run, chosen, epoch, place, clear=True) if is_degraded(self.run) else faces
            arrays += [clear.images, clear.features]
        return tuple(torch.from_numpy(array) for array in arrays)


@contextlib.contextmanager
def failures_told() -> Iterator[None]:
    """Raises UserError when the memory is too small, or when a process that changes faces was ended."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # PyTorch has types for some of these alone
        text = str(error)
        if "shared memory" in text or "/torch_" in text:
            reason = "there is too little shared memory (/dev/shm; of a container: docker run --shm-size=8g)"
        elif "DataLoader worker (pid" in text:
            reason = "a process that changes faces was ended, perhaps because there is too little memory"
        elif isinstance(error, MemoryError) or re.search("out of memory|allocate memory|not enough memory", text):
            reason = "there is too little memory"
        else:
            raise
        raise UserError(f"the training stopped, {reason}: use a smaller --batch_size, or end other programs") from error


def best_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name() -> str:
    """The GPU's name, or "CPU"."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def rate(hyperparams: Hyperparams, step: int, steps: int) -> float:
    """The learning rate at `step` of `steps`: the schedule of `ferkit.learning.graph.learning_rate`."""
    warmup = hyperparams.warmup_steps
    after = max(step - warmup, 0)
    if hyperparams.schedule == "cosine":
        share = hyperparams.learning_rate * (1 + math.cos(math.pi * min(after / max(1, steps - warmup), 1))) / 2
    else:
        share = hyperparams.learning_rate * hyperparams.learning_rate_decay ** (after // hyperparams.decay_step)
    return share * min((step + 1) / warmup, 1) if warmup else share


def _optimizer(network: nn.Module, hyperparams: Hyperparams) -> torch.optim.Optimizer:
    if hyperparams.body_rate != 1:
        raise UserError("PyTorch trains all layers at the same rate: use --body_rate=1, or --engine=tensorflow")
    kernels = [weight for weight in network.parameters() if weight.ndim > 1]
    others = [weight for weight in network.parameters() if weight.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": kernels, "weight_decay": hyperparams.weight_decay}, {"params": others}]
    parameter, highest = hyperparams.optimizer_param, hyperparams.learning_rate
    if hyperparams.optimizer in ("momentum", "nesterov"):
        nesterov = hyperparams.optimizer == "nesterov"
        return torch.optim.SGD(groups, highest, momentum=parameter, nesterov=nesterov)
    if hyperparams.optimizer == "adam":
        return torch.optim.Adam(groups, highest, betas=(parameter, 0.999))
    raise UserError(f"PyTorch trains with momentum, nesterov or adam, not {hyperparams.optimizer}")


def without_smoothing(probabilities: torch.Tensor, share: float) -> torch.Tensor:
    """As saved_model.without_smoothing."""
    if share == 0:
        return probabilities
    hard = ((probabilities - share / probabilities.shape[1]) / (1 - share)).clamp(min=LEAST_PROBABILITY)
    return hard / hard.sum(1, keepdim=True)


@torch.no_grad()
def probabilities(network: nn.Module, images: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """What the network answers: (N, 48, 48) uint8, (N, size) float32 -> (N, K) float32."""
    device = next(network.parameters()).device
    answers = [np.zeros((0,), np.float32)]
    for start in range(0, len(images), VALIDATION_BATCH):
        batch = (torch.from_numpy(part[start : start + VALIDATION_BATCH]).to(device) for part in (images, vectors))
        answers.append(network(*batch).softmax(1).cpu().numpy())
    return np.concatenate(answers[1:])


def validated(network: nn.Module, split: Split) -> dict[str, float]:
    """Accuracy, 0 to 1, and mean negative log-likelihood, in nats, of the labels of `split`."""
    was = network.training
    answers = probabilities(network.eval(), split.images, split.features)
    network.train(was)
    right = answers.argmax(1) == split.labels
    likelihood = np.maximum(answers[np.arange(len(answers)), split.labels], 1e-9)
    return {"validation_accuracy": float(right.mean()), "validation_loss": float(-np.log(likelihood).mean())}


# Names of weights here and in the TensorFlow graph.
WEIGHTS = {"weight": "W", "bias": "b"}
NORMS = {"weight": "scale", "bias": "offset", "running_mean": "mean", "running_var": "variance"}


def weights_of(network: TorchNetwork) -> dict[str, np.ndarray]:
    """The weights under the names and in the layout of the TensorFlow graph."""
    weights = {}
    for scope, part in network.layers.parts.items():
        norm = isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)
        for name, other in (NORMS if norm else WEIGHTS).items():
            array = getattr(part, name).detach().float().cpu().numpy()
            if array.ndim == 4:
                array = array.transpose(2, 3, 1, 0)
            weights[f"network/{scope}/{other}"] = np.ascontiguousarray(array.T if array.ndim == 2 else array)
    return weights


def set_weights(network: TorchNetwork, weights: Mapping[str, np.ndarray]) -> None:
    """The reverse of `weights_of`. Raises KeyError for a weight that is missing."""
    for scope, part in network.layers.parts.items():
        norm = isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)
        for name, other in (NORMS if norm else WEIGHTS).items():
            array = np.asarray(weights[f"network/{scope}/{other}"], np.float32)
            if array.ndim == 4:
                array = array.transpose(3, 2, 0, 1)
            tensor = torch.from_numpy(np.ascontiguousarray(array.T if array.ndim == 2 else array))
            with torch.no_grad():
                getattr(part, name).copy_(tensor)
