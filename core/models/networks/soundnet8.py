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
    stages = [_convolution(a, b) for a, b in zip(widths, WIDTHS, strict=False)]
    head = nn.Sequential(
        OrderedDict(avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(1), conv8=nn.Linear(WIDTHS[-1], num_classes))
    )
    return staged(stages, head)


def _convolution(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(channels, width, kernel_size=3, stride=2, padding=1, bias=False),
            bn=nn.BatchNorm2d(width),
            relu=nn.ReLU(),
        )
    )


NETWORK = Network(soundnet8, blocks=len(WIDTHS) - 1)
