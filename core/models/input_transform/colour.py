"""Colour: one channel of numbers becomes the three of a picture, inside the network, so that one channel is stored."""

import torch
from torch import nn
from torch.nn import functional as F

from core.registry import Lazy

LEAST_RANGE = 1.0  # in the images' unit: what varies less is nearly constant, and is not blown up to a whole range
_colormap = Lazy("matplotlib:colormaps.get_cmap")


class Levels(nn.Module):
    """Bring images to 0 .. 1.

    Parameters
    ----------
    picture
        What is 0 and what is 1, in the images' unit; None takes each image's least and greatest number, as drawing with
        a colour map does. Then a sound that is louder by the same number of decibels everywhere gives the same picture.
    """

    def __init__(self, picture: tuple[float, float] | None = None) -> None:
        super().__init__()
        self.picture = picture

    def extra_repr(self) -> str:
        """Say what tells these levels from others; they have no tensors."""
        return f"picture={self.picture}"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (batch, channels, height, width) in their unit; beyond a fixed range they go beyond 0 .. 1."""
        if self.picture:
            return (x - self.picture[0]) / (self.picture[1] - self.picture[0])
        low, high = x.amin(dim=(1, 2, 3), keepdim=True), x.amax(dim=(1, 2, 3), keepdim=True)
        return (x - low) / (high - low).clamp_min(LEAST_RANGE)


class Colour(nn.Module):
    """Look numbers up in one of matplotlib's colour maps, interpolating linearly between the 256 of its table.

    Between two entries a table has no slope, and no gradient would pass: the line between them has one.

    Parameters
    ----------
    name
        The map's: viridis, magma, jet ..
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        entries = torch.tensor(_colormap(name)(range(256))[:, :3], dtype=torch.float32)
        self.table: torch.Tensor  # (256, 3): red, green and blue, 0 .. 1
        self.register_buffer("table", entries)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (batch, 1, height, width) to pictures (batch, 3, height, width); below 0 is 0, above 1 is 1."""
        position = x[:, 0].clamp(0, 1) * (len(self.table) - 1)
        below = position.detach().floor().long().clamp(max=len(self.table) - 2)
        first, second = F.embedding(below, self.table), F.embedding(below + 1, self.table)
        return (first + (position - below)[..., None] * (second - first)).permute(0, 3, 1, 2)
