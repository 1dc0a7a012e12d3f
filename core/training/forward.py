"""A network's forward pass where no backward pass follows: as few passes over the numbers as will do.

Batch norms are folded, and on a CPU what a ReLU does is done by the convolution before it. There few clips go through
convolutions at a time: what a layer gives out is then still in the caches when the next one reads it.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from core.models.folding import Pair, folded, is_convolution, pairs_in
from core.models.following import Flow, flow
from core.models.fusing import Fusion, can_fuse, concerned, fused, fusions
from core.training.arithmetic import Arithmetic

EVALUATION_BATCH = 64  # clips
IN_CACHES = 32  # clips that convolutions of a CPU take at a time
_seen = WeakKeyDictionary[nn.Module, tuple[list[Pair], list[Fusion]]]()  # of networks that were evaluated before


@contextmanager
def evaluating(network: nn.Module, arithmetic: Arithmetic, example: Callable[[], Any]) -> Iterator[None]:
    """Put a network into evaluation mode and compute as its run does, folded and fused until it was used.

    In 16 bits folded weights round otherwise than the network's own: so does a frozen prefix, stored or not.

    Parameters
    ----------
    network
        Follows its tensors: they may be trained on afterwards.
    arithmetic
        How its run computes.
    example
        Gives a few inputs, which a network that was not evaluated before is looked through with.
    """
    network.eval()
    with arithmetic.autocast(), ExitStack() as stack:
        if folds(arithmetic):
            pairs, found = _looked_through(network, example)
            stack.enter_context(folded(network, pairs))
            if _fuses(arithmetic):
                stack.enter_context(fused(network, found, arithmetic.dtype, IN_CACHES))
        yield


def _looked_through(network: nn.Module, example: Callable[[], Any]) -> tuple[list[Pair], list[Fusion]]:
    if network not in _seen:
        convolves = any(map(is_convolution, network.modules()))
        seen = flow(network, example(), concerned) if convolves else Flow()
        pairs = pairs_in(network, seen)
        _seen[network] = pairs, fusions(network, pairs, seen)
    return _seen[network]


def folds(arithmetic: Arithmetic) -> bool:
    """Tell whether batch norms are folded: in 16 bits, where what they are folded into is not rounded once more."""
    return arithmetic.dtype == torch.float32 or _fuses(arithmetic)


def _fuses(arithmetic: Arithmetic) -> bool:
    laid_out = arithmetic.device.type == "cpu" and arithmetic.layout == torch.channels_last
    return laid_out and can_fuse(arithmetic.dtype)


def clips_at_once(network: nn.Module, device: torch.device) -> int:
    """Return how many clips go through a network at a time where nothing is kept of them."""
    convolves = any(isinstance(module, nn.Conv1d | nn.Conv2d) for module in network.modules())
    return IN_CACHES if convolves and device.type == "cpu" else EVALUATION_BATCH
