"""SoundNet's eight layers as 1-D convolutions along time, with the frequency bands as channels.

A second interpretation of "similar to the 8-layer model of SoundNet" (Palanisamy et al. 2020, section III.B): SoundNet
convolves along time, so each band of each image channel becomes one channel of a sequence. Waveforms are accepted too.
Widths, strides and head are those of `soundnet8`.
"""

import math
from collections import OrderedDict

from torch import nn

from core.models.family import SEQUENCE, Shape
from core.models.networks.network import Network, assemble_stages
from core.models.networks.soundnet8 import WIDTHS, make_convolution, make_head


def soundnet8_1d(num_classes: int, input_shape: Shape) -> nn.Sequential:
    """Build the network: seven strided convolutions (stem and six blocks) and the head."""
    widths = (math.prod(input_shape[:-1]), *WIDTHS)
    stages = [make_convolution(a, b, nn.Conv1d, nn.BatchNorm1d) for a, b in zip(widths, WIDTHS, strict=False)]
    if len(input_shape) == 3:
        stages[0] = nn.Sequential(OrderedDict([("bands", nn.Flatten(1, 2)), *stages[0].named_children()]))
    return assemble_stages(stages, make_head(nn.AdaptiveAvgPool1d(1), num_classes))


NETWORK = Network(soundnet8_1d, blocks=len(WIDTHS) - 1, input_kind=SEQUENCE)
