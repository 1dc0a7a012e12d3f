"""Batch norm as part of the convolution before it: in evaluation mode the same function, and much less to do.

`pairs_in` tells which can be folded, of what one forward pass showed (`core.inference.trace`); `folds` makes what
takes their place, for good (`put`) or for as long as it is needed (`in_place`), so that a network that is trained is
folded anew from its tensors of the moment, which takes milliseconds. The numbers differ by rounding.
"""

import copy
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from core.inference.trace import Flow

Pair = tuple[str, str]  # paths of a convolution and of the batch norm behind it
_TIMM = ("timm.layers.conv2d_same", "timm.layers.norm_act")  # classes that do what torch's do, and pad or act besides


def put(network: nn.Module, made: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Put modules into a network by their paths, and return those that were there."""
    kept = {name: network.get_submodule(name) for name in made}
    for name, module in made.items():
        network.set_submodule(name, module)
    return kept


@contextmanager
def in_place(network: nn.Module, made: Mapping[str, nn.Module]) -> Iterator[None]:
    """Put modules into a network by their paths; afterwards it is as it was."""
    kept = put(network, made)
    try:
        yield
    finally:
        put(network, kept)


def pairs_in(network: nn.Module, seen: Flow) -> list[Pair]:
    """Return the convolutions whose output goes into a batch norm and nowhere else, each with that batch norm.

    Parameters
    ----------
    network
        In evaluation mode.
    seen
        Of its convolutions and batch norms at least.
    """
    modules = dict(network.named_modules())
    return [
        (conv, norm)
        for conv, norm in seen.then.items()
        if seen.ran[norm] == 1 and is_convolution(modules[conv]) and is_norm(modules[norm])
    ]


def folds(network: nn.Module, pairs: Sequence[Pair]) -> dict[str, nn.Module]:
    """Return what takes the place of each of the modules of pairs that `pairs_in` found; their tensors are read now."""
    made: dict[str, nn.Module] = {}
    for conv_name, norm_name in pairs:
        conv: Any = network.get_submodule(conv_name)
        norm: Any = network.get_submodule(norm_name)
        made[conv_name] = copy.copy(conv)  # fuse_conv_bn_eval would copy the tensors first, which takes half the time
        numbers = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        weight, bias = fuse_conv_bn_weights(conv.weight, conv.bias, *numbers)
        made[conv_name]._parameters = {"weight": weight, "bias": bias}
        made[norm_name] = rest(norm)
    return made


def rest(norm: nn.Module) -> nn.Module:
    """Return what a batch norm does besides: timm's have dropout and an activation function of their own."""
    return nn.Sequential(OrderedDict((name, getattr(norm, name)) for name in ("drop", "act") if hasattr(norm, name)))


def is_convolution(module: nn.Module) -> bool:
    """Tell whether a module convolves with its weight as it is, and nothing else changes or watches that."""
    kind = type(module)
    plain = kind in (nn.Conv1d, nn.Conv2d) or (isinstance(module, nn.Conv2d) and kind.__module__ in _TIMM)
    return plain and not is_watched(module)


def is_norm(module: nn.Module) -> bool:
    """Tell whether a module normalises by its moving statistics, and nothing else changes or watches that."""
    kind = type(module)
    plain = kind in (nn.BatchNorm1d, nn.BatchNorm2d)
    timms = isinstance(module, nn.BatchNorm2d) and kind.__module__ in _TIMM
    return (plain or timms) and module.running_mean is not None and not is_watched(module)


def is_watched(module: nn.Module) -> bool:
    """Tell whether hooks change or watch what a module does."""
    return bool(module._forward_hooks or module._forward_pre_hooks)
