"""GoogLeNet (Szegedy et al. 2014) in a variant with 10,339,607 parameters for 13 classes.

The report gives this number but no code. These choices reproduce it: Inception modules with biases, without batch norm
and with 5 x 5 kernels; a stem of a 7 x 7 and a 3 x 3 convolution, each with batch norm, without the 1 x 1 reduction
between them; two auxiliary heads with 1,024 hidden units. The dropout rates and the weight of the auxiliary losses are
those of Szegedy et al.; the report does not state them. Convolutions without batch norm use the initialisation of He et
al. 2015, because with torch's default the signal vanishes after nine modules. The blocks end where torchvision's
GoogLeNet ends them.
"""

from collections import OrderedDict

import torch
from torch import nn

from core.models.auxiliary import AuxiliaryHead
from core.models.family import Shape
from core.models.networks.network import Network, assemble_stages

DROPOUT, AUXILIARY_DROPOUT, AUXILIARY_WEIGHT = 0.4, 0.7, 0.3  # values of Szegedy et al.
# widths: 1 x 1; reduction before 3 x 3; 3 x 3; reduction before 5 x 5; 5 x 5; 1 x 1 after the pooling
_BRANCHES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
_STAGES = (("3a", "3b"), ("4a", "4b", "4c", "4d", "4e"), ("5a", "5b"))
_AUXILIARY = ("4a", "4d")  # Inception modules followed by an auxiliary head


class Inception(nn.Module):
    """Inception module: branches of 1 x 1, 3 x 3, 5 x 5 and pooling, concatenated along channels."""

    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        one, reduced3, three, reduced5, five, pooled = widths
        self.branch1 = _conv_relu(channels, one, 1)
        self.branch3 = nn.Sequential(_conv_relu(channels, reduced3, 1), _conv_relu(reduced3, three, 3))
        self.branch5 = nn.Sequential(_conv_relu(channels, reduced5, 1), _conv_relu(reduced5, five, 5))
        self.branch_pool = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), _conv_relu(channels, pooled, 1))
        self.width = one + three + five + pooled

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, channels, height, width) to (batch, `width`, height, width)."""
        return torch.cat([self.branch1(x), self.branch3(x), self.branch5(x), self.branch_pool(x)], dim=1)


def googlenet_2014(num_classes: int, input_shape: Shape) -> nn.Sequential:
    """Build the network: the stem, four blocks that each begin with a pooling, and the head."""
    stem = _conv_norm_relu(input_shape[0], 64, 7, stride=2)
    blocks = [nn.Sequential(OrderedDict(maxpool1=_pooling(), conv2=_conv_norm_relu(64, 192, 3)))]
    channels = 192
    for k, names in enumerate(_STAGES, start=2):
        modules: dict[str, nn.Module] = {f"maxpool{k}": _pooling()}
        for name in names:
            modules[f"inception{name}"] = inception = Inception(channels, _BRANCHES[name])
            channels = inception.width
            if name in _AUXILIARY:
                modules[f"auxiliary{name}"] = AuxiliaryHead(_auxiliary_head(channels, num_classes), AUXILIARY_WEIGHT)
        blocks.append(nn.Sequential(OrderedDict(modules)))
    head = nn.Sequential(
        OrderedDict(
            avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(1), dropout=nn.Dropout(DROPOUT),
            fc=nn.Linear(channels, num_classes),
        )
    )  # fmt: skip
    return assemble_stages([stem, *blocks], head)


def _auxiliary_head(channels: int, num_classes: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            avgpool=nn.AdaptiveAvgPool2d(4),  # equals 5 x 5 with stride 3 on the 14 x 14 map of a 224 x 224 image
            conv=_conv_relu(channels, 128, 1),
            flatten=nn.Flatten(1),
            fc=nn.Linear(128 * 16, 1024),
            relu=nn.ReLU(),
            dropout=nn.Dropout(AUXILIARY_DROPOUT),
            classifier=nn.Linear(1024, num_classes),
        )
    )


def _conv_relu(channels: int, width: int, kernel: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, kernel, padding=kernel // 2)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return nn.Sequential(conv, nn.ReLU())


def _conv_norm_relu(channels: int, width: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, kernel, stride=stride, padding=kernel // 2)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(width), relu=nn.ReLU()))


def _pooling() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


NETWORK = Network(googlenet_2014, blocks=4)
