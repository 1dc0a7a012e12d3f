"""The layout of ResNet-34 (He et al. 2015) in the form that has 22,676,109 parameters for 13 classes.

Its report gives that number and no code. It is reached by convolutions with biases, and by shortcuts that change the
width by a 3 x 3 convolution with batch norm, where ResNet-34 has a 1 x 1 one. Blocks are cut as torchvision's.
"""

from collections import OrderedDict

from torch import nn

from core.models.family import Shape
from core.models.networks.network import Network, staged
from core.models.networks.residual import normed, residual_blocks, residual_stem

UNITS = (3, 4, 6, 3)


def resnet34_conv3(num_classes: int, input_shape: Shape) -> nn.Sequential:
    """Make the network: the stem with its pooling, four blocks of residual units, and the head."""
    stem = residual_stem(input_shape[0])
    head = nn.Sequential(
        OrderedDict(avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(1), fc=nn.Linear(512, num_classes))
    )
    return staged([stem, *residual_blocks(UNITS, normed)], head)


NETWORK = Network(resnet34_conv3, blocks=len(UNITS))
