"""MobileNet (Howard et al. 2017) in a variant with 2,185,101 parameters for 13 classes, running statistics included.

The report gives this number, as Keras counts, but no code. These choices reproduce it: convolutions with biases, and no
last separable convolution (1,024 to 1,024 channels). Block k ends at stride 2^(k+1).
"""

from collections import OrderedDict

from torch import nn

from core.models.family import Shape
from core.models.networks.network import Network, assemble_stages

WIDTHS = ((64,), (128, 128), (256, 256), (512, 512, 512, 512, 512, 512), (1024,))  # per stage; strides 2 to 32


def mobilenet_v1(num_classes: int, input_shape: Shape) -> nn.Sequential:
    """Build the network: a stem, four blocks of separable convolutions, and the head."""
    stages, channels = [], 32
    for k, widths in enumerate(WIDTHS):
        modules = {} if k else {"conv": _conv_norm_relu(input_shape[0], channels, kernel=3, stride=2)}
        for j, width in enumerate(widths, start=1):
            stride = 2 if k and j == 1 else 1
            depthwise = _conv_norm_relu(channels, channels, kernel=3, stride=stride, groups=channels)
            pointwise = _conv_norm_relu(channels, width, kernel=1)
            modules[f"separable{j}"] = nn.Sequential(OrderedDict(depthwise=depthwise, pointwise=pointwise))
            channels = width
        stages.append(nn.Sequential(OrderedDict(modules)))
    head = nn.Sequential(
        OrderedDict(avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(1), fc=nn.Linear(channels, num_classes))
    )
    return assemble_stages(stages, head)


def _conv_norm_relu(channels: int, width: int, *, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, kernel, stride=stride, padding=kernel // 2, groups=groups)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(width), relu=nn.ReLU()))


NETWORK = Network(mobilenet_v1, blocks=len(WIDTHS) - 1)
