"""MobileNet (Howard et al. 2017) in the form that has 2,185,101 parameters for 13 classes, moving statistics counted.

Its report gives that number, as Keras counts, and no code. It is reached by convolutions with biases and without the
last separable convolution, of 1,024 to 1,024 channels. Block k ends at stride 2^(k+1).
"""

from collections import OrderedDict

from torch import nn

from core.models.family import Shape
from core.models.networks.network import Network, staged

WIDTHS = ((64,), (128, 128), (256, 256), (512, 512, 512, 512, 512, 512), (1024,))  # of each stride, from 2 to 32


def mobilenet_v1(num_classes: int, input_shape: Shape) -> nn.Sequential:
    """Make the network: a convolution and the separable convolutions of stride 2, four blocks, and the head."""
    stages, channels = [], 32
    for k, widths in enumerate(WIDTHS):
        made = {} if k else {"conv": _normed(input_shape[0], channels, kernel=3, stride=2)}
        for j, width in enumerate(widths, start=1):
            stride = 2 if k and j == 1 else 1
            depthwise = _normed(channels, channels, kernel=3, stride=stride, groups=channels)
            pointwise = _normed(channels, width, kernel=1)
            made[f"separable{j}"] = nn.Sequential(OrderedDict(depthwise=depthwise, pointwise=pointwise))
            channels = width
        stages.append(nn.Sequential(OrderedDict(made)))
    head = nn.Sequential(
        OrderedDict(avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(1), fc=nn.Linear(channels, num_classes))
    )
    return staged(stages, head)


def _normed(channels: int, width: int, *, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, kernel, stride=stride, padding=kernel // 2, groups=groups)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(width), relu=nn.ReLU()))


NETWORK = Network(mobilenet_v1, blocks=len(WIDTHS) - 1)
