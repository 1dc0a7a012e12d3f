"""The layout of ResNet-18 (He et al. 2015) with a dense layer: 19,590,285 parameters for 13 classes at 224 x 224.

Its report gives that number, as Keras counts (moving statistics too), and no code. It is reached by convolutions with
biases, shortcuts that change the width by a 1 x 1 convolution with bias and without batch norm, a 2 x 2 average
pooling that leaves 4 x 4 x 512 numbers of 224 x 224 pixels, and one dense layer of 1,024 units; the report's text says
two, for which the number has no room. The dense layer's width depends on the size of the image.
"""

from collections import OrderedDict

import torch
from torch import nn

from core.models.family import Shape
from core.models.networks.network import Network, flat_width, residual_stages, staged

UNITS = (2, 2, 2, 2)


class Unit(nn.Module):
    """Two 3 x 3 convolutions and the shortcut around them."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = _normed(channels, width, stride)
        self.relu1 = nn.ReLU()
        self.second = _normed(width, width)
        self.shortcut = nn.Identity() if channels == width else nn.Conv2d(channels, width, 1, stride=stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, channels, height, width) to (batch, `width`, height / stride, width / stride)."""
        return self.relu2(self.second(self.relu1(self.first(x))) + self.shortcut(x))


def resnet18_dense(num_classes: int, input_shape: Shape) -> nn.Sequential:
    """Make the network: the stem with its pooling, four blocks of residual units, and the head."""
    stem = nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(input_shape[0], 64, 7, stride=2, padding=3), bn=nn.BatchNorm2d(64), relu=nn.ReLU(),
            maxpool=nn.MaxPool2d(3, stride=2, padding=1),
        )
    )  # fmt: skip
    stages = [stem, *residual_stages(UNITS, Unit)]
    pooling = nn.AvgPool2d(2, ceil_mode=True)
    width = flat_width("resnet18_dense", nn.Sequential(*stages, pooling), input_shape)
    head = nn.Sequential(
        OrderedDict(
            avgpool=pooling, flatten=nn.Flatten(1), dense=nn.Linear(width, 1024), relu=nn.ReLU(),
            fc=nn.Linear(1024, num_classes),
        )
    )  # fmt: skip
    return staged(stages, head)


def _normed(channels: int, width: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, 3, stride=stride, padding=1)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(width)))


NETWORK = Network(resnet18_dense, blocks=len(UNITS), plain_head=False)
