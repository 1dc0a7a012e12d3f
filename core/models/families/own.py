"""The project's own networks, one file each in `core.models.networks`."""

from typing import TYPE_CHECKING

from core.models.family import Family, Layout, Shape, numbered
from core.models.networks import NETWORKS
from core.registry import Lazy

if TYPE_CHECKING:
    from torch import nn

chains = Lazy("core.models.chains")


class Own(Family):
    """Networks that reports describe and no library has; all start from random weights."""

    about = ", ".join(NETWORKS)

    def names(self) -> tuple[str, ...]:
        """Return those of the registry."""
        return tuple(NETWORKS)

    def stages(self, name: str, input_shape: Shape) -> tuple[str, ...]:
        """Read how many blocks the network says it has."""
        return numbered(NETWORKS[name].blocks)

    def make(self, name: str, *, num_classes: int, input_shape: Shape, dropout: float) -> "nn.Module":
        """Make the network for the input."""
        model: nn.Module = NETWORKS[name].make(num_classes, input_shape)
        return model

    def layout(self, model: "nn.Module", name: str) -> Layout:
        """Take each child for a stage."""
        found: Layout = chains.layout(model)
        return found

    def takes(self, name: str) -> str:
        """Return what the network says."""
        taken: str = NETWORKS[name].takes
        return taken

    def has_plain_head(self, name: str, input_shape: Shape) -> bool:
        """Return what the network says."""
        plain: bool = NETWORKS[name].plain_head
        return plain


FAMILY = Own()
