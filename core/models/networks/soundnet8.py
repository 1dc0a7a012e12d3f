"""SoundNet's eight convolutions on images, for comparing representations (Palanisamy et al. 2020, section III.B).

The report says "a simple CNN based architecture similar to the 8-layer model of SoundNet" (Aytar et al. 2016) and no
more. SoundNet's widths are 16, 32, 64, 128, 256, 512, 1024 and the classes, each convolution but the last with batch
norm and ReLU. Its kernels along time become 3 x 3 here and its poolings and strides one stride of 2 a convolution, so
that block k ends at stride 2^(k+1) and any image can be taken. The last convolution, 1 x 1 before the mean over
positions, is a linear layer after it.
"""

from collections import OrderedDict

from torch import nn

from core.models.family import Shape
from core.models.networks.network import Network, staged

WIDTHS = (16, 32, 64, 128, 256, 512, 1024)


def soundnet8(num_classes: int, input_shape: Shape) -> nn.Sequential:
    """Make the network: seven strided convolutions as stem and six blocks, and the head."""
    widths = (input_shape[0], *WIDTHS)
    stages = [convolution(a, b, nn.Conv2d, nn.BatchNorm2d) for a, b in zip(widths, WIDTHS, strict=False)]
    return staged(stages, head(nn.AdaptiveAvgPool2d(1), num_classes))


def convolution(channels: int, width: int, conv: type[nn.Module], norm: type[nn.Module]) -> nn.Sequential:
    """Make a convolution of size 3 and stride 2 and its batch norm, in the dimensions of `conv` and `norm`."""
    strided = conv(channels, width, kernel_size=3, stride=2, padding=1, bias=False)
    return nn.Sequential(OrderedDict(conv=strided, bn=norm(width), relu=nn.ReLU()))


def head(pooling: nn.Module, num_classes: int) -> nn.Sequential:
    """Make the head behind a `pooling` of all that is left."""
    return nn.Sequential(OrderedDict(avgpool=pooling, flatten=nn.Flatten(1), conv8=nn.Linear(WIDTHS[-1], num_classes)))


NETWORK = Network(soundnet8, blocks=len(WIDTHS) - 1)
