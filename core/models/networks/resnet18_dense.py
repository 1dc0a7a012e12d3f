"""ResNet-18 (He et al. 2015) with a dense layer: 19,590,285 parameters for 13 classes at 224 x 224.

The report gives this number, as Keras counts (with running statistics), but no code. These choices reproduce it:
convolutions with biases; shortcuts that change the width by a 1 x 1 convolution with bias and without batch norm; a
2 x 2 average pooling, which leaves 4 x 4 x 512 features of a 224 x 224 image; and one dense layer of 1,024 units. The
report's text mentions two dense layers, which the number rules out. The width of the dense layer depends on the image
size.
"""

from collections import OrderedDict

from torch import nn

from core.models.family import Shape
from core.models.networks.network import Network, assemble_stages, count_features
from core.models.networks.residual import residual_blocks, residual_stem

UNITS = (2, 2, 2, 2)


def resnet18_dense(num_classes: int, input_shape: Shape) -> nn.Sequential:
    """Build the network: the stem with its pooling, four blocks of residual units, and the head."""
    stages = [residual_stem(input_shape[0]), *residual_blocks(UNITS, _shortcut)]
    pooling = nn.AvgPool2d(2, ceil_mode=True)
    width = count_features("resnet18_dense", nn.Sequential(*stages, pooling), input_shape)
    head = nn.Sequential(
        OrderedDict(
            avgpool=pooling, flatten=nn.Flatten(1), dense=nn.Linear(width, 1024), relu=nn.ReLU(),
            fc=nn.Linear(1024, num_classes),
        )
    )  # fmt: skip
    return assemble_stages(stages, head)


def _shortcut(channels: int, width: int, stride: int) -> nn.Module:
    return nn.Conv2d(channels, width, 1, stride=stride)


NETWORK = Network(resnet18_dense, blocks=len(UNITS), plain_head=False)
