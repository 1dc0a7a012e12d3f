"""Folding of batch norms into the convolutions before them, for evaluation.

In evaluation mode a batch norm is an affine function of each channel, so its factors can be multiplied into the weight
and bias of the convolution before it. Results differ by rounding. `core.inference.fast_evaluation` and attribution
methods use folded networks.
"""

import copy
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from core.inference.trace import Trace

Pair = tuple[str, str]  # names of a convolution and of the batch norm that follows it
_TIMM_MODULES = ("timm.layers.conv2d_same", "timm.layers.norm_act")  # subclasses that also pad or apply an activation


def replace_modules(network: nn.Module, replacements: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Replace modules of a network by name; return the original modules by name."""
    originals = {name: network.get_submodule(name) for name in replacements}
    for name, module in replacements.items():
        network.set_submodule(name, module)
    return originals


@contextmanager
def temporary_modules(network: nn.Module, replacements: Mapping[str, nn.Module]) -> Iterator[None]:
    """Replace modules of a network by name within a context; restore the original modules afterwards."""
    originals = replace_modules(network, replacements)
    try:
        yield
    finally:
        replace_modules(network, originals)


def find_foldable_pairs(network: nn.Module, trace: Trace) -> list[Pair]:
    """Return (convolution, batch norm) pairs in which the batch norm is the only consumer of the convolution.

    Parameters
    ----------
    network
        Network in evaluation mode.
    trace
        Trace of at least its convolutions and batch norms.
    """
    modules = dict(network.named_modules())
    return [
        (conv, norm)
        for conv, norm in trace.consumer.items()
        if trace.calls[norm] == 1 and is_convolution(modules[conv]) and is_norm(modules[norm])
    ]


def fold_batch_norms(network: nn.Module, pairs: Sequence[Pair]) -> dict[str, nn.Module]:
    """Return, by name, the modules that replace the pairs from `find_foldable_pairs`.

    They are computed from the current tensors and do not follow later changes.
    """
    replacements: dict[str, nn.Module] = {}
    for conv_name, norm_name in pairs:
        conv: Any = network.get_submodule(conv_name)
        norm: Any = network.get_submodule(norm_name)
        replacements[conv_name] = copy.copy(conv)  # fuse_conv_bn_eval would deep-copy the tensors first
        statistics = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        weight, bias = fuse_conv_bn_weights(conv.weight, conv.bias, *statistics)
        replacements[conv_name]._parameters = {"weight": weight, "bias": bias}
        replacements[norm_name] = _remaining_layers(norm)
    return replacements


def _remaining_layers(norm: nn.Module) -> nn.Module:
    """Return the layers that remain of a folded batch norm: timm's contain dropout and an activation."""
    return nn.Sequential(OrderedDict((name, getattr(norm, name)) for name in ("drop", "act") if hasattr(norm, name)))


def is_convolution(module: nn.Module) -> bool:
    """Tell whether a module is a convolution without hooks or reparametrised weights."""
    kind = type(module)
    is_known = kind in (nn.Conv1d, nn.Conv2d) or (isinstance(module, nn.Conv2d) and kind.__module__ in _TIMM_MODULES)
    return is_known and not _has_hooks(module)


def is_norm(module: nn.Module) -> bool:
    """Tell whether a module is a batch norm with running statistics and without hooks."""
    kind = type(module)
    is_plain = kind in (nn.BatchNorm1d, nn.BatchNorm2d)
    is_timm = isinstance(module, nn.BatchNorm2d) and kind.__module__ in _TIMM_MODULES
    return (is_plain or is_timm) and module.running_mean is not None and not _has_hooks(module)


def is_traceable(module: nn.Module) -> bool:
    """Tell whether a module is a convolution or a batch norm that can be folded."""
    return is_convolution(module) or is_norm(module)


def _has_hooks(module: nn.Module) -> bool:
    """Tell whether forward hooks are registered on a module."""
    return bool(module._forward_hooks or module._forward_pre_hooks)
