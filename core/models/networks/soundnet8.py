"""SoundNet's eight layers on images, to compare input representations (Palanisamy et al. 2020, section III.B).

The report only says "a simple CNN based architecture similar to the 8-layer model of SoundNet" (Aytar et al. 2016).
SoundNet has 16, 32, 64, 128, 256, 512 and 1024 channels and the classes; every convolution but the last has batch norm
and ReLU. Here its kernels along time become 3 x 3, and each convolution has stride 2 instead of SoundNet's poolings and
strides. Block k ends at stride 2^(k+1), and any image size is accepted. The last convolution, 1 x 1 before the mean
over positions, is a linear layer after it.
"""

from collections import OrderedDict

from torch import nn

from core.models.family import Shape
from core.models.networks.network import Network, assemble_stages

WIDTHS = (16, 32, 64, 128, 256, 512, 1024)


def soundnet8(num_classes: int, input_shape: Shape) -> nn.Sequential:
    """Build the network: seven strided convolutions (stem and six blocks) and the head."""
    widths = (input_shape[0], *WIDTHS)
    stages = [make_convolution(a, b, nn.Conv2d, nn.BatchNorm2d) for a, b in zip(widths, WIDTHS, strict=False)]
    return assemble_stages(stages, make_head(nn.AdaptiveAvgPool2d(1), num_classes))


def make_convolution(channels: int, width: int, conv: type[nn.Module], norm: type[nn.Module]) -> nn.Sequential:
    """Return a convolution of kernel size 3 and stride 2 with batch norm and ReLU; `conv` and `norm` set 1-D or 2-D."""
    strided = conv(channels, width, kernel_size=3, stride=2, padding=1, bias=False)
    return nn.Sequential(OrderedDict(conv=strided, bn=norm(width), relu=nn.ReLU()))


def make_head(pooling: nn.Module, num_classes: int) -> nn.Sequential:
    """Return the head: global `pooling` and a linear classifier."""
    return nn.Sequential(OrderedDict(avgpool=pooling, flatten=nn.Flatten(1), conv8=nn.Linear(WIDTHS[-1], num_classes)))


NETWORK = Network(soundnet8, blocks=len(WIDTHS) - 1)
