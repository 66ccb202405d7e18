"""What an architecture is, and how one is found by its name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ferkit.errors import UserError

if TYPE_CHECKING:  # TensorFlow is slow to import
    from ferkit.learning.layers import Layers, Tensor


@dataclass(frozen=True)
class Architecture:
    """The image branch of a network.

    build: (layers, faces (N, 48, 48, 1)) -> (N, units) for each face.
    joint: units that the image branch and the features are reduced to before they are joined.
    published: it can be trained with the settings of the published experiments; others have settings of their own only.
    """

    build: "Callable[[Layers, Tensor], Tensor]"
    joint: int
    published: bool = False


def find_architecture(architectures: Mapping[str, Architecture], name: str) -> Architecture:
    """The architecture of this name. Raises UserError when there is none."""
    if name not in architectures:
        raise UserError(f"there is no Model {name}: model.py has {', '.join(architectures)}")
    return architectures[name]
