"""The settings of a training, collected from parameters.py, a file of hyperparameters, and the flags.

Later sources override earlier ones: the general settings of parameters.py, then its OWN_SETTINGS (and TAUGHT_SETTINGS)
where they apply, then the file given with --hyperparams, then the flags.
"""

import argparse
import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from ferkit.constants import SHIPPED_MODELS
from ferkit.errors import UserError
from ferkit.flags import Parser, add_flags, add_yes_no, check_asked, either, local_path, override
from ferkit.learning.architecture import Architecture, find_architecture
from ferkit.learning.starting import Start
from ferkit.settings import (
    Augmentation,
    Hyperparams,
    Network,
    Parameters,
    Training,
    check,
    read_settings,
    renamed,
    with_values,
)

START_DECIDES = ("model", "features", "standardize", "batch_norm_conv", "batch_norm_fc")  # the fields of Network


class TrainingSettings(NamedTuple):
    """The four groups of settings of a training."""

    network: Network
    hyperparams: Hyperparams
    training: Training
    augmentation: Augmentation

    def check(self) -> None:
        """Raises UserError for a value outside its range."""
        check(*self)

    def for_expressions(self, count: int) -> "TrainingSettings":
        """The same settings for a network with so many outputs."""
        return self._replace(network=dataclasses.replace(self.network, output_size=count))


def training_parser(parameters: Parameters, architectures: Mapping[str, Architecture]) -> argparse.ArgumentParser:
    """The command line of train.py."""
    parser = Parser(
        description="Train a network on the converted dataset; evaluate the saved model.",
        epilog="Of a setting, the last of these applies: its value at the top of parameters.py, shown above as the "
        "default; OWN_SETTINGS there, always for models C and D, for A and B with --settings=ours or taught; "
        "TAUGHT_SETTINGS; FINE_TUNING, with --start_from; the file of --hyperparams; the flag. A training begins by "
        "printing those that apply.",
    )
    add_yes_no(parser, "--train", default=False, help="train")
    add_yes_no(parser, "--evaluate", default=False, help="evaluate the saved model")
    add_yes_no(parser, "--resume", default=False, help="continue from the last finished epoch")
    parser.add_argument(
        "--start_from",
        type=local_path,
        metavar="PATH",
        help="fine-tuning: go on from the weights of a saved model, with the network and the classes that it shares; "
        f"{either(SHIPPED_MODELS)} for an included model",
    )
    parser.add_argument(
        "--hyperparams", type=local_path, metavar="FILE", help="hyperparameters as optimize_hyperparams.py writes them"
    )
    for settings in (parameters.NETWORK, parameters.HYPERPARAMS, parameters.AUGMENTATION, parameters.TRAINING):
        group = parser.add_argument_group(type(settings).__name__.lower())
        names = [field.name for field in dataclasses.fields(settings)]
        add_flags(group, settings, *names, choices={"model": architectures})
    add_flags(parser.add_argument_group("dataset"), parameters.DATASET, "folder")
    group = parser.add_argument_group("evaluation")
    help = "average over six views of each face, enlarged, shrunk, mirrored; slower"
    add_yes_no(group, "--test_time_augmentation", default=False, help=help)
    return parser


def training_settings(
    arguments: argparse.Namespace,
    parameters: Parameters,
    architectures: Mapping[str, Architecture],
    start: Start | None = None,
) -> TrainingSettings:
    """The settings that the flags select. `arguments` must have `model`; every other flag may be missing.

    start: the saved model to go on from. The network is then the same, and the settings of FINE_TUNING apply.
    Raises UserError for settings that the architecture does not have, and for values that do not fit.
    """
    if start is not None:
        check_asked(start.path, dataclasses.asdict(start.network), arguments, *START_DECIDES, other="--start_from")
    model = arguments.model or (start.network if start else parameters.NETWORK).model
    file = getattr(arguments, "hyperparams", None)
    own = own_settings(model, getattr(arguments, "settings", None), parameters, architectures)
    if start is not None:
        own["FINE_TUNING"] = renamed(parameters.FINE_TUNING)
    groups: list[Any] = [parameters.NETWORK, parameters.HYPERPARAMS, parameters.TRAINING, parameters.AUGMENTATION]
    known = {field.name for group in groups for field in dataclasses.fields(group)}
    for source, values in own.items():
        if unknown := values.keys() - known:
            raise UserError(f"{source} has '{min(unknown)}', which is no setting of a training")
    for place, group in enumerate(groups):
        names = {field.name for field in dataclasses.fields(group)}
        for source, values in own.items():
            group = with_values(group, {name: values[name] for name in names & values.keys()}, source)
        if file is not None and isinstance(group, Hyperparams):
            group = read_settings(group, file)
        groups[place] = override(group if start is None or place else start.network, arguments)
    return TrainingSettings(*groups)


def own_settings(
    model: str, wanted: str | None, parameters: Parameters, architectures: Mapping[str, Architecture]
) -> dict[str, dict[str, Any]]:
    """The settings that replace the general ones of parameters.py for this architecture, by the name of their source.

    wanted: the value of --settings. Raises UserError when the architecture does not have them.
    """
    published = find_architecture(architectures, model).published
    if wanted not in (None, "ours") and not published:
        raise UserError(f"Model {model} has no {wanted} settings: leave out --settings={wanted}")
    whose = wanted or parameters.TRAINING.settings if published else "ours"
    if whose == "published":
        return {}
    if not isinstance(parameters.OWN_SETTINGS, dict):
        raise UserError('OWN_SETTINGS in parameters.py must look like {"A": {"learning_rate": 0.01}}')
    if model not in parameters.OWN_SETTINGS:
        raise UserError(f"Model {model} has no settings of its own: add '{model}' to OWN_SETTINGS in parameters.py")
    own = {f"OWN_SETTINGS of Model {model}": parameters.OWN_SETTINGS[model]}
    if whose == "taught":
        own["TAUGHT_SETTINGS"] = parameters.TAUGHT_SETTINGS
    for source, values in own.items():
        if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
            raise UserError(f'{source} in parameters.py must look like {{"learning_rate": 0.01}}')
    return {source: renamed(values) for source, values in own.items()}
