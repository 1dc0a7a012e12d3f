"""Colour maps inside the network: one stored channel becomes an RGB image."""

import torch
from torch import nn
from torch.nn import functional as F

from core.registry import Lazy

MIN_RANGE = 1.0  # in the image's unit; a smaller range is not stretched to 0 .. 1, because the image is nearly constant
_colormap = Lazy("matplotlib:colormaps.get_cmap")


class ScaleToUnit(nn.Module):
    """Scale images to 0 .. 1.

    Parameters
    ----------
    value_range
        Values mapped to 0 and 1, in the image's unit. None: minimum and maximum of each image, as when drawing with a
        colour map; then a change of loudness in dB does not change the image.
    """

    def __init__(self, value_range: tuple[float, float] | None = None) -> None:
        super().__init__()
        self.value_range = value_range

    def extra_repr(self) -> str:
        """Return the range, which the module's state dict does not contain."""
        return f"value_range={self.value_range}"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale images (batch, channels, height, width); values outside a fixed range map outside 0 .. 1."""
        if self.value_range:
            return (x - self.value_range[0]) / (self.value_range[1] - self.value_range[0])
        low, high = x.amin(dim=(1, 2, 3), keepdim=True), x.amax(dim=(1, 2, 3), keepdim=True)
        return (x - low) / (high - low).clamp_min(MIN_RANGE)


class ColourMap(nn.Module):
    """Apply a colour map of matplotlib, interpolating linearly between its 256 entries so that gradients exist.

    Parameters
    ----------
    name
        Name of the colour map, such as viridis, magma or jet.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        entries = torch.tensor(_colormap(name)(range(256))[:, :3], dtype=torch.float32)
        self.table: torch.Tensor  # (256, 3) RGB values, 0 .. 1
        self.register_buffer("table", entries)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (batch, 1, height, width), clipped to 0 .. 1, to RGB images (batch, 3, height, width)."""
        position = x[:, 0].clamp(0, 1) * (len(self.table) - 1)
        below = position.detach().floor().long().clamp(max=len(self.table) - 2)
        first, second = F.embedding(below, self.table), F.embedding(below + 1, self.table)
        return (first + (position - below)[..., None] * (second - first)).permute(0, 3, 1, 2)
