"""The definition of an architecture, and the search for one by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ferkit.errors import UserError

if TYPE_CHECKING:  # TensorFlow is slow to import
    from ferkit.learning.layers import Layers, Tensor

BATCH_NORM_MOMENTUM = 0.9  # of the moving averages that inference uses
BATCH_NORM_EPSILON = 1e-5
FEATURE_UNITS = 1024  # units of the fully connected layer for landmarks and HOG


@dataclass(frozen=True)
class Architecture:
    """The image branch of a network.

    build: (layers, faces (N, 48, 48, 1)) -> (N, units).
    joint: number of units that the image branch and the features are each reduced to before concatenation.
    published: whether it can be trained with the settings of the published experiments. Other architectures have only
    their own settings.
    """

    build: "Callable[[Layers, Tensor], Tensor]"
    joint: int
    published: bool = False


def find_architecture(architectures: Mapping[str, Architecture], name: str) -> Architecture:
    """The architecture with this name. Raises UserError when there is none."""
    if name not in architectures:
        raise UserError(f"there is no Model {name}: model.py has {', '.join(architectures)}")
    return architectures[name]
