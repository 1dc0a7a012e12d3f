"""Batch norm as part of the convolution before it: in evaluation mode the same function, and much less to do.

`foldable` finds the pairs in one forward pass of a network of any kind; `folded` puts the folds in their place for as
long as they are needed, so that a network that is trained is folded anew from its tensors of the moment, which takes
milliseconds. The numbers differ by rounding.
"""

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode

Pair = tuple[str, str]  # paths of a convolution and of the batch norm behind it
_TIMM = ("timm.layers.conv2d_same", "timm.layers.norm_act")  # classes that do what torch's do, and pad or act besides


def fold_batch_norm(network: nn.Module, images: torch.Tensor) -> None:
    """Fold every batch norm that can be folded, in place and for good.

    Parameters
    ----------
    network
        In evaluation mode.
    images
        A batch to try it on, as it takes them.
    """
    for name, module in _folds(network, foldable(network, images)).items():
        network.set_submodule(name, module)


@contextmanager
def folded(network: nn.Module, pairs: Sequence[Pair]) -> Iterator[None]:
    """Let the network's batch norms be part of the convolutions before them; afterwards it is as it was.

    Parameters
    ----------
    network
        In evaluation mode.
    pairs
        What `foldable` found in it; its tensors may have changed since.
    """
    made = _folds(network, pairs)
    kept = {name: network.get_submodule(name) for name in made}
    try:
        for name, module in made.items():
            network.set_submodule(name, module)
        yield
    finally:
        for name, module in kept.items():
            network.set_submodule(name, module)


def foldable(network: nn.Module, example: Any) -> list[Pair]:
    """Return the convolutions whose output goes into a batch norm and nowhere else, each with that batch norm.

    Parameters
    ----------
    network
        In evaluation mode.
    example
        A few inputs; torch's random numbers are afterwards as they were.
    """
    if not any(map(_is_norm, network.modules())):
        return []
    watch, hooks, pairs = _Uses(), [], list[Pair]()
    ran: Counter[str] = Counter()

    def convolved(name: str, output: torch.Tensor) -> None:
        ran[name] += 1
        watch.made[id(output)] = name, output

    def normed(name: str, x: torch.Tensor) -> None:
        ran[name] += 1
        if id(x) in watch.made:
            pairs.append((watch.made[id(x)][0], name))

    for name, module in network.named_modules():
        if _is_convolution(module):
            hooks.append(module.register_forward_hook(lambda _, __, y, name=name: convolved(name, y)))
        elif _is_norm(module):
            hooks.append(module.register_forward_pre_hook(lambda _, x, name=name: normed(name, x[0])))
    gpus = {tensor.device for tensor in network.parameters() if tensor.is_cuda}  # not all that the machine has
    try:
        with torch.random.fork_rng(devices=gpus), torch.no_grad(), watch:
            network(example)
    finally:
        for hook in hooks:
            hook.remove()
    return [(conv, norm) for conv, norm in pairs if ran[conv] == ran[norm] == watch.uses[conv] == 1]


class _Uses(TorchDispatchMode):
    """Counts the operations that take what a convolution gave out.

    Attributes
    ----------
    made
        By the identity of the tensor, which is kept so that no identity comes back: the convolution, and the tensor.
    uses
        Operations, by the name of the convolution.
    """

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, tuple[str, torch.Tensor]] = {}
        self.uses: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaves, _ = torch.utils._pytree.tree_flatten((args, kwargs or {}))
        self.uses.update({self.made[id(leaf)][0] for leaf in leaves if id(leaf) in self.made})
        return func(*args, **(kwargs or {}))


def _folds(network: nn.Module, pairs: Sequence[Pair]) -> dict[str, nn.Module]:
    """Return what takes the place of each of the modules."""
    made: dict[str, nn.Module] = {}
    for conv_name, norm_name in pairs:
        conv: Any = network.get_submodule(conv_name)
        norm: Any = network.get_submodule(norm_name)
        made[conv_name] = copy.copy(conv)  # fuse_conv_bn_eval would copy the tensors first, which takes half the time
        numbers = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        weight, bias = fuse_conv_bn_weights(conv.weight, conv.bias, *numbers)
        made[conv_name]._parameters = {"weight": weight, "bias": bias}
        made[norm_name] = _rest(norm)
    return made


def _rest(norm: nn.Module) -> nn.Module:
    """Return what a batch norm does besides: timm's have dropout and an activation function of their own."""
    return nn.Sequential(*(getattr(norm, name) for name in ("drop", "act") if hasattr(norm, name)))


def _is_convolution(module: nn.Module) -> bool:
    """Tell whether a module convolves with its weight as it is, and nothing else changes or watches that."""
    kind = type(module)
    plain = kind in (nn.Conv1d, nn.Conv2d) or (isinstance(module, nn.Conv2d) and kind.__module__ in _TIMM)
    return plain and not _is_watched(module)


def _is_norm(module: nn.Module) -> bool:
    kind = type(module)
    plain = kind in (nn.BatchNorm1d, nn.BatchNorm2d)
    timms = isinstance(module, nn.BatchNorm2d) and kind.__module__ in _TIMM
    return (plain or timms) and module.running_mean is not None and not _is_watched(module)


def _is_watched(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)
