"""The family of networks that are implemented in this project, one file each in `core.models.networks`."""

from typing import TYPE_CHECKING

from core.models.family import Family, Layout, Shape, Statistics, name_stages
from core.models.networks import NETWORKS
from core.registry import Lazy

if TYPE_CHECKING:
    from torch import nn

    from core.models.networks.network import Network

LOG_MEL_RANGE = (-60.0, 40.0)  # dB, mapped to 0 .. 1 before the statistics are applied

stage_check = Lazy("core.models.stage_check")


class PaperNetworks(Family):
    """Networks that papers describe and no library provides; all start from random weights."""

    about = ", ".join(NETWORKS)
    pattern = "mlp:LAYERS"

    def names(self) -> tuple[str, ...]:
        """Return the names in the registry."""
        return tuple(NETWORKS)

    def owns(self, name: str) -> bool:
        """Return whether `name` is in the registry, or a variant of such a network."""
        return name.partition(":")[0] in NETWORKS and (":" not in name or _network(name).variant is not None)

    def stages(self, name: str, input_shape: Shape) -> tuple[str, ...]:
        """Return the stage names by the network's number of blocks."""
        return name_stages(_network(name).blocks)

    def make(self, name: str, *, num_classes: int, input_shape: Shape, dropout: float | None) -> "nn.Module":
        """Build the network for an input shape."""
        model: nn.Module = _network(name).make(num_classes, input_shape)
        return model

    def layout(self, model: "nn.Module", name: str) -> Layout:
        """Return each child as a stage."""
        found: Layout = stage_check.find_layout(model)
        return found

    def input_kind(self, name: str) -> str:
        """Return the input kind of the network."""
        kind: str = _network(name).input_kind
        return kind

    def statistics(self, model: "nn.Module", name: str, channels: int) -> Statistics:
        """Return 0.5 and 0.5; for networks of decibels, values that leave a log-mel image in decibels unchanged."""
        if not _network(name).in_decibels:
            return super().statistics(model, name, channels)
        low, high = LOG_MEL_RANGE
        return (-low / (high - low),) * channels, (1 / (high - low),) * channels

    def has_plain_head(self, name: str, input_shape: Shape) -> bool:
        """Return whether the classifier is the only trainable layer of the head."""
        plain: bool = _network(name).plain_head
        return plain


FAMILY = PaperNetworks()


def _network(name: str) -> "Network":
    found, _, variant = name.partition(":")
    network: Network = NETWORKS[found]
    return network.variant(variant) if variant and network.variant else network
