"""Batch norm and ReLU in front of a convolution, as a DenseNet's layers begin: one pass over the numbers for both.

No convolution before them takes them in, for others use what it gave out as well. But they are a convolution by
themselves, of each channel with one number, and oneDNN rectifies what that gives out as it writes
(`core.inference.fusing`). That number is rounded to the precision that is computed in, which the weights behind the
ReLU
make up for, channel by channel: so nothing is rounded that was not rounded before.
"""

import copy
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from core.inference.fold_batch_norm import Pair, is_norm, is_watched, rest
from core.inference.fusing import Fusion, act_of, is_plain
from core.inference.trace import Flow

_SCALE = "scale"  # name of the convolution inside of what takes the place of a batch norm


@dataclass(frozen=True)
class Leading:
    """A batch norm with a ReLU behind it and a convolution behind that, none of which anything else takes from.

    Attributes
    ----------
    norm, act, conv
        Their paths.
    size
        Height and width of what goes in.
    """

    norm: str
    act: str
    conv: str
    size: tuple[int, ...]

    @property
    def fusion(self) -> Fusion:
        """What is fused of what `leads` makes."""
        return Fusion(f"{self.norm}.{_SCALE}", self.size, self.act)


def leading_in(network: nn.Module, pairs: Sequence[Pair], seen: Flow) -> list[Leading]:
    """Return the batch norms of a network that lead to a convolution and are not folded into one before them.

    Parameters
    ----------
    network
        As it is, in evaluation mode.
    pairs
        What will be folded (`core.inference.fold_batch_norm`).
    seen
        Of its convolutions, batch norms and activation functions.
    """
    folded, found = {norm for _, norm in pairs}, []
    modules: dict[str, Any] = dict(network.named_modules())
    for name, module in modules.items():
        if name in folded or seen.ran[name] != 1 or not isinstance(module, nn.BatchNorm2d) or not is_norm(module):
            continue
        own = act_of(network, name)
        act = own or seen.then.get(name, "")
        conv = seen.then.get(name if own else act, "")
        if conv and _rectifies(modules[act]) and is_plain(modules[conv]) and modules[conv].groups == 1:
            found.append(Leading(name, act, conv, tuple(seen.shapes[name][2:])))
    return found


def leads(network: nn.Module, found: Sequence[Leading], dtype: torch.dtype) -> dict[str, nn.Module]:
    """Return what takes the place of batch norms and of the convolutions they lead to; their tensors are read now.

    Parameters
    ----------
    network
        Its batch norms behind convolutions folded.
    found
        What `leading_in` found in it.
    dtype
        That it computes in.
    """
    made: dict[str, nn.Module] = {}
    like: Any = nn.utils.skip_init(nn.Conv2d, 1, 1, 1)  # draws no numbers
    for leading in found:
        norm: Any = network.get_submodule(leading.norm)
        numbers = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        weight, bias = fuse_conv_bn_weights(norm.running_var.new_ones(norm.num_features, 1, 1, 1), None, *numbers)
        rounded = weight.to(dtype).to(weight.dtype)
        lost = torch.where(rounded == 0, 1, weight / rounded).flatten()  # every one is above zero
        scale = copy.copy(like)
        scale.in_channels = scale.out_channels = scale.groups = norm.num_features
        scale._parameters = {"weight": rounded, "bias": bias / lost}
        made[leading.norm] = nn.Sequential(OrderedDict([(_SCALE, scale), *rest(norm).named_children()]))
        conv: Any = network.get_submodule(leading.conv)
        made[leading.conv] = copy.copy(conv)
        made[leading.conv]._parameters = {"weight": conv.weight * lost[:, None, None], "bias": conv.bias}
    return made


def _rectifies(act: nn.Module) -> bool:
    """Tell whether an activation function gives out twice as much for twice as much, and nothing watches it."""
    return type(act) is nn.ReLU and not is_watched(act)
