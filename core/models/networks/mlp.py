"""Multi-layer perceptron on feature vectors: ``--mlp-layers relu64-tanh48``.

The first layer is the stem, every further layer a block, the classifier the head. Without layers (``none``) it is
logistic regression. In the form ``mlp:relu64-tanh48`` the layers are part of the network's name.
"""

from collections import OrderedDict
from functools import partial

from torch import nn

from core.config.layer_spec import DEFAULT_MLP_LAYERS, parse_mlp_layers
from core.models.family import VECTOR, Shape
from core.models.networks.network import Network, assemble_stages

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}


def mlp(num_classes: int, input_shape: Shape, *, layers: str = DEFAULT_MLP_LAYERS) -> nn.Sequential:
    """Build the network with the given layers, e.g. ``relu64-tanh48``."""
    (features,) = input_shape
    stages: list[nn.Module] = []
    for activation, width in parse_mlp_layers(layers):
        stages.append(nn.Sequential(OrderedDict(dense=nn.Linear(features, width), act=ACTIVATIONS[activation]())))
        features = width
    return assemble_stages(stages or [nn.Identity()], nn.Sequential(OrderedDict(fc=nn.Linear(features, num_classes))))


def make_variant(layers: str) -> Network:
    """Return the `Network` with the given layers."""
    blocks = max(len(parse_mlp_layers(layers)) - 1, 0)
    return Network(partial(mlp, layers=layers), blocks=blocks, input_kind=VECTOR, variant=make_variant)


NETWORK = make_variant(DEFAULT_MLP_LAYERS)
