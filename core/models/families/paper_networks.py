"""The project's own networks, one file each in `core.models.networks`."""

from typing import TYPE_CHECKING

from core.models.family import Family, Layout, Shape, numbered
from core.models.networks import NETWORKS
from core.registry import Lazy

if TYPE_CHECKING:
    from torch import nn

    from core.models.networks.network import Network

chains = Lazy("core.models.stage_check")


class Own(Family):
    """Networks that reports describe and no library has; all start from random weights."""

    about = ", ".join(NETWORKS)
    pattern = "mlp:LAYERS"

    def names(self) -> tuple[str, ...]:
        """Return those of the registry."""
        return tuple(NETWORKS)

    def owns(self, name: str) -> bool:
        """Say whether it is one of them, or one of the variants of one."""
        return name.partition(":")[0] in NETWORKS and (":" not in name or _network(name).variant is not None)

    def stages(self, name: str, input_shape: Shape) -> tuple[str, ...]:
        """Read how many blocks the network says it has."""
        return numbered(_network(name).blocks)

    def make(self, name: str, *, num_classes: int, input_shape: Shape, dropout: float) -> "nn.Module":
        """Make the network for the input."""
        model: nn.Module = _network(name).make(num_classes, input_shape)
        return model

    def layout(self, model: "nn.Module", name: str) -> Layout:
        """Take each child for a stage."""
        found: Layout = chains.layout(model)
        return found

    def takes(self, name: str) -> str:
        """Return what the network says."""
        taken: str = _network(name).takes
        return taken

    def has_plain_head(self, name: str, input_shape: Shape) -> bool:
        """Return what the network says."""
        plain: bool = _network(name).plain_head
        return plain


FAMILY = Own()


def _network(name: str) -> "Network":
    found, _, variant = name.partition(":")
    network: Network = NETWORKS[found]
    return network.variant(variant) if variant and network.variant else network
