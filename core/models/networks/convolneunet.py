"""ConvolNeuNet, after the code printed in its report: 201,575,018 parameters for 10 classes at 3 x 512 x 512.

Three convolutions of 32, 64 and 96 channels, each followed by ReLU and max pooling, then dense layers of 512, 256, 128
and 64 units with dropout after the first and the third. The input width of the first dense layer depends on the image
size.
"""

from collections import OrderedDict

from torch import nn

from core.models.family import Shape
from core.models.networks.network import Network, assemble_stages, count_features

CHANNELS = (32, 64, 96)
WIDTHS = (512, 256, 128, 64)


def convolneunet(num_classes: int, input_shape: Shape) -> nn.Sequential:
    """Build the network: three convolutions (stem and two blocks) and the head."""
    channels = (input_shape[0], *CHANNELS)
    stages = [
        nn.Sequential(OrderedDict(conv=nn.Conv2d(a, b, 3, padding=1), relu=nn.ReLU(), maxpool=nn.MaxPool2d(2)))
        for a, b in zip(channels, CHANNELS, strict=False)
    ]
    width = count_features("convolneunet", nn.Sequential(*stages), input_shape)
    layers: dict[str, nn.Module] = {"flatten": nn.Flatten(1)}
    for k, units in enumerate(WIDTHS, start=1):
        layers |= {f"fc{k}": nn.Linear(width, units), f"relu{k}": nn.ReLU()}
        if k in (1, 3):
            layers[f"dropout{k}"] = nn.Dropout(0.5)
        width = units
    return assemble_stages(stages, nn.Sequential(OrderedDict(layers, fc5=nn.Linear(width, num_classes))))


NETWORK = Network(convolneunet, blocks=len(CHANNELS) - 1, plain_head=False)
