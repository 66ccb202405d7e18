"""What files from outside must hold: the facts of a saved model, and the manifest of a converted dataset.

    check_shape(json.loads(text), Manifest)  # raises ValueError: Expected `int`, got `float` - at `$.splits[...].count`

Only what is used is listed. Everything else may be there too.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta
from typing_extensions import NotRequired, TypedDict

Name = Annotated[str, Meta(min_length=1, max_length=100)]
Names = Annotated[list[Name], Meta(min_length=2, max_length=20)]
Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0)]
Temperature = Annotated[float, Meta(ge=0.01, le=100)]


class TrainingFacts(TypedDict):
    labels: NotRequired[str]
    balance: NotRequired[Share]


class HyperparamsFacts(TypedDict):
    logit_adjustment: NotRequired[Annotated[float, Meta(ge=0, le=2)]]


class DatasetFacts(TypedDict):
    counts: dict[str, Count]


class Facts(TypedDict):
    """Of a saved model."""

    format: int
    expressions: Names
    features: str
    feature_provenance: dict[str, dict[str, Any]]
    network_sha256: str
    label_smoothing: NotRequired[Annotated[float, Meta(ge=0, lt=1)]]
    temperature: NotRequired[Temperature]
    temperature_augmented: NotRequired[Temperature]
    balance: NotRequired[list[Annotated[float, Meta(gt=0, lt=1e7)]]]
    frequencies: NotRequired[list[Share]]
    network: NotRequired[dict[str, Any]]
    training: NotRequired[TrainingFacts]
    hyperparams: NotRequired[HyperparamsFacts]
    dataset: NotRequired[DatasetFacts]


class Source(TypedDict):
    name: str
    sha256: str


class SplitFacts(TypedDict):
    count: Annotated[int, Meta(ge=1)]
    expressions: dict[Name, Count]
    sha256: str


class VotesOfSplit(TypedDict):
    sha256: str


class VotesFacts(TypedDict):
    splits: dict[str, VotesOfSplit]
    alone: NotRequired[bool]


class Manifest(TypedDict):
    """Of a converted dataset."""

    format: int
    source: Source
    expressions: Names
    one_hot: bool
    arrays: list[str]
    feature_provenance: dict[str, dict[str, Any]]
    splits: dict[str, SplitFacts]
    ferplus: NotRequired[VotesFacts]


def check_shape(value: Any, kind: Any) -> None:
    """Raises ValueError, in one line, when a value read from JSON is not of this kind."""
    try:
        msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ValueError(str(error)) from error
    names = value.get("expressions", ())
    if len({*names}) < len(names):
        raise ValueError("an expression occurs twice")
