"""What the residual networks of the reports share: their stem, and units of two biased 3 x 3 convolutions."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import nn

Shortcut = Callable[[int, int, int], nn.Module]  # of channels, width and stride


def normed(channels: int, width: int, stride: int = 1) -> nn.Sequential:
    """Make a biased 3 x 3 convolution and its batch norm."""
    conv = nn.Conv2d(channels, width, 3, stride=stride, padding=1)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(width)))


class Unit(nn.Module):
    """Two 3 x 3 convolutions and the shortcut around them.

    Parameters
    ----------
    channels, width
        What goes in and what comes out.
    stride
        Of the first convolution.
    shortcut
        Makes what stands around them where the width changes; elsewhere the input itself does.
    """

    def __init__(self, channels: int, width: int, stride: int, *, shortcut: Shortcut) -> None:
        super().__init__()
        self.first = normed(channels, width, stride)
        self.relu1 = nn.ReLU()
        self.second = normed(width, width)
        self.shortcut = nn.Identity() if channels == width else shortcut(channels, width, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, channels, height, width) to (batch, `width`, height / stride, width / stride)."""
        return self.relu2(self.second(self.relu1(self.first(x))) + self.shortcut(x))


def residual_stem(channels: int) -> nn.Sequential:
    """Make the stem with its pooling, for inputs of so many channels."""
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(channels, 64, 7, stride=2, padding=3), bn=nn.BatchNorm2d(64), relu=nn.ReLU(),
            maxpool=nn.MaxPool2d(3, stride=2, padding=1),
        )
    )  # fmt: skip


def residual_blocks(units: Sequence[int], shortcut: Shortcut) -> list[nn.Sequential]:
    """Make a block of so many units for each of `units`, each twice as wide as the one before it.

    All but the first block begin with a stride of 2.

    Parameters
    ----------
    units
        Units of each block.
    shortcut
        As in `Unit`.
    """
    blocks, channels, width = [], 64, 64
    for k, count in enumerate(units):
        made = [
            Unit(channels if j == 0 else width, width, 2 if k and j == 0 else 1, shortcut=shortcut)
            for j in range(count)
        ]
        blocks.append(nn.Sequential(*made))
        channels, width = width, 2 * width
    return blocks
