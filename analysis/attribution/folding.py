"""Make batch norm part of the convolution before it: in evaluation mode the same function, and half the time."""

from collections import Counter
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_CLOSE = 1e-3  # of the largest output: far above rounding, far below what a wrong fold does


def fold_batch_norm(network: nn.Module, images: torch.Tensor) -> None:
    """Fold batch norms into the convolutions whose output is their input, in place; leave the others.

    Where the outputs are not the same afterwards, which is the case if such an output is used elsewhere too, the
    network is left as it was.

    Parameters
    ----------
    network
        In evaluation mode.
    images
        A batch to try it on, (batch, channels, n_mels, n_frames).
    """
    with torch.no_grad():
        expected = network(images)
        replaced: dict[str, nn.Module] = {}
        for conv_name, norm_name in _pairs(network, images):
            conv, norm = network.get_submodule(conv_name), network.get_submodule(norm_name)
            assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
            for name, new in ((conv_name, fuse_conv_bn_eval(conv, norm)), (norm_name, _rest(norm))):
                replaced[name] = network.get_submodule(name)
                network.set_submodule(name, new)
        found = network(images)
        if not torch.allclose(found, expected, rtol=0, atol=_CLOSE * float(expected.abs().max())):
            for name, old in replaced.items():
                network.set_submodule(name, old)


def _pairs(network: nn.Module, images: torch.Tensor) -> list[tuple[str, str]]:
    """Return each batch norm, with the convolution that made its input, that is used once in a forward pass."""
    made: dict[int, tuple[str, torch.Tensor]] = {}  # the tensors are kept, so that no id comes back
    pairs: list[tuple[str, str]] = []
    used: Counter[str] = Counter()
    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):

            def convolved(_: Any, inputs: Any, output: torch.Tensor, name: str = name) -> None:
                made[id(output)] = name, output
                used[name] += 1

            hooks.append(module.register_forward_hook(convolved))
        elif isinstance(module, nn.BatchNorm2d) and module.track_running_stats:

            def normed(_: Any, inputs: tuple[torch.Tensor], name: str = name) -> None:
                used[name] += 1
                if id(inputs[0]) in made:
                    pairs.append((made[id(inputs[0])][0], name))

            hooks.append(module.register_forward_pre_hook(normed))
    try:
        network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return [pair for pair in pairs if used[pair[0]] == used[pair[1]] == 1]


def _rest(norm: nn.BatchNorm2d) -> nn.Module:
    """Return what a batch norm does besides: timm's have dropout and an activation function of their own."""
    return nn.Sequential(*(getattr(norm, name) for name in ("drop", "act") if hasattr(norm, name)))
