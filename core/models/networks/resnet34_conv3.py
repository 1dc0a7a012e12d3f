"""ResNet-34 (He et al. 2015) in a variant with 22,676,109 parameters for 13 classes.

The report gives this number but no code. These choices reproduce it: convolutions with biases, and shortcuts that
change the width by a 3 x 3 convolution with batch norm instead of ResNet-34's 1 x 1 convolution. The stages are those
of torchvision's ResNet-34.
"""

from collections import OrderedDict

from torch import nn

from core.models.family import Shape
from core.models.networks.network import Network, assemble_stages
from core.models.networks.residual import conv_and_norm, residual_blocks, residual_stem

UNITS = (3, 4, 6, 3)


def resnet34_conv3(num_classes: int, input_shape: Shape) -> nn.Sequential:
    """Build the network: the stem with its pooling, four blocks of residual units, and the head."""
    stem = residual_stem(input_shape[0])
    head = nn.Sequential(
        OrderedDict(avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(1), fc=nn.Linear(512, num_classes))
    )
    return assemble_stages([stem, *residual_blocks(UNITS, conv_and_norm)], head)


NETWORK = Network(resnet34_conv3, blocks=len(UNITS))
