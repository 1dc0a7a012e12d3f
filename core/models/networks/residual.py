"""Parts of the residual networks: the stem, and residual units of two 3 x 3 convolutions with bias."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import nn

Shortcut = Callable[[int, int, int], nn.Module]  # (in_channels, out_channels, stride) -> shortcut module


def conv_and_norm(channels: int, width: int, stride: int = 1) -> nn.Sequential:
    """Return a 3 x 3 convolution with bias, followed by batch norm."""
    conv = nn.Conv2d(channels, width, 3, stride=stride, padding=1)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(width)))


class ResidualUnit(nn.Module):
    """Residual unit: two 3 x 3 convolutions and a shortcut.

    Parameters
    ----------
    channels, width
        Number of input and output channels.
    stride
        Stride of the first convolution.
    shortcut
        Builds the shortcut if the number of channels changes; otherwise the shortcut is the identity.
    """

    def __init__(self, channels: int, width: int, stride: int, *, shortcut: Shortcut) -> None:
        super().__init__()
        self.first = conv_and_norm(channels, width, stride)
        self.relu1 = nn.ReLU()
        self.second = conv_and_norm(width, width)
        self.shortcut = nn.Identity() if channels == width else shortcut(channels, width, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, channels, height, width) to (batch, `width`, height / stride, width / stride)."""
        return self.relu2(self.second(self.relu1(self.first(x))) + self.shortcut(x))


def residual_stem(channels: int) -> nn.Sequential:
    """Return the stem with its max pooling, for inputs with `channels` channels."""
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(channels, 64, 7, stride=2, padding=3), bn=nn.BatchNorm2d(64), relu=nn.ReLU(),
            maxpool=nn.MaxPool2d(3, stride=2, padding=1),
        )
    )  # fmt: skip


def residual_blocks(units: Sequence[int], shortcut: Shortcut) -> list[nn.Sequential]:
    """Return one block per entry of `units`; each block is twice as wide as the previous one.

    All blocks but the first begin with stride 2.

    Parameters
    ----------
    units
        Number of residual units of each block.
    shortcut
        As in `ResidualUnit`.
    """
    blocks, channels, width = [], 64, 64
    for k, count in enumerate(units):
        members = [
            ResidualUnit(channels if j == 0 else width, width, 2 if k and j == 0 else 1, shortcut=shortcut)
            for j in range(count)
        ]
        blocks.append(nn.Sequential(*members))
        channels, width = width, 2 * width
    return blocks
