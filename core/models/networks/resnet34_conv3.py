"""The layout of ResNet-34 (He et al. 2015) in the form that has 22,676,109 parameters for 13 classes.

Its report gives that number and no code. It is reached by convolutions with biases, and by shortcuts that change the
width by a 3 x 3 convolution with batch norm, where ResNet-34 has a 1 x 1 one. Blocks are cut as torchvision's.
"""

from collections import OrderedDict

import torch
from torch import nn

from core.models.family import Shape
from core.models.networks.network import Network, residual_stages, staged

UNITS = (3, 4, 6, 3)


class Unit(nn.Module):
    """Two 3 x 3 convolutions and the shortcut around them."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = _normed(channels, width, stride)
        self.relu1 = nn.ReLU()
        self.second = _normed(width, width)
        self.shortcut = nn.Identity() if channels == width else _normed(channels, width, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, channels, height, width) to (batch, `width`, height / stride, width / stride)."""
        return self.relu2(self.second(self.relu1(self.first(x))) + self.shortcut(x))


def resnet34_conv3(num_classes: int, input_shape: Shape) -> nn.Sequential:
    """Make the network: the stem with its pooling, four blocks of residual units, and the head."""
    stem = nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(input_shape[0], 64, 7, stride=2, padding=3), bn=nn.BatchNorm2d(64), relu=nn.ReLU(),
            maxpool=nn.MaxPool2d(3, stride=2, padding=1),
        )
    )  # fmt: skip
    head = nn.Sequential(
        OrderedDict(avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(1), fc=nn.Linear(512, num_classes))
    )
    return staged([stem, *residual_stages(UNITS, Unit)], head)


def _normed(channels: int, width: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, 3, stride=stride, padding=1)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(width)))


NETWORK = Network(resnet34_conv3, blocks=len(UNITS))
