"""A multi-layer perceptron on vectors, such as features of clips: ``--mlp-layers relu64-tanh48``.

The first layer is the stem, every further one a block, the classifier the head. Without layers (``none``) it is
logistic regression. As ``mlp:relu64-tanh48`` the list is part of the network's name.
"""

from collections import OrderedDict
from functools import partial

from torch import nn

from core.config.layer_spec import PERCEPTRON, activated_widths
from core.models.family import VECTOR, Shape
from core.models.networks.network import Network, staged

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}


def mlp(num_classes: int, input_shape: Shape, *, layers: str = PERCEPTRON) -> nn.Sequential:
    """Make the network that a list of layers describes."""
    (features,) = input_shape
    stages: list[nn.Module] = []
    for activation, width in activated_widths(layers):
        stages.append(nn.Sequential(OrderedDict(dense=nn.Linear(features, width), act=ACTIVATIONS[activation]())))
        features = width
    return staged(stages or [nn.Identity()], nn.Sequential(OrderedDict(fc=nn.Linear(features, num_classes))))


def variant(layers: str) -> Network:
    """Return the network of a list of layers."""
    blocks = max(len(activated_widths(layers)) - 1, 0)
    return Network(partial(mlp, layers=layers), blocks=blocks, takes=VECTOR, variant=variant)


NETWORK = variant(PERCEPTRON)
