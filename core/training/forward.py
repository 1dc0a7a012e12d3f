"""A network's forward pass where no backward pass follows: batch norms folded, and as many clips at a time as is quick.

On a CPU few clips go through convolutions at a time: what a layer gives out is then still in the caches when the next
one reads it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from core.models.folding import Pair, foldable, folded
from core.training.arithmetic import Arithmetic

EVALUATION_BATCH = 64  # clips
IN_CACHES = 32  # clips that convolutions of a CPU take at a time
_foldable = WeakKeyDictionary[nn.Module, list[Pair]]()  # of networks that were evaluated before


@contextmanager
def evaluating(network: nn.Module, arithmetic: Arithmetic, example: Callable[[], Any]) -> Iterator[None]:
    """Put a network into evaluation mode and compute as its run does, with its batch norms folded until it was used.

    In 16 bits they are left: a folded weight rounds otherwise, and what follows a frozen prefix would train to other
    bits than in the whole network.

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
    with arithmetic.autocast():
        if arithmetic.dtype != torch.float32:
            yield
            return
        if network not in _foldable:
            _foldable[network] = foldable(network, example())
        with folded(network, _foldable[network]):
            yield


def clips_at_once(network: nn.Module, device: torch.device) -> int:
    """Return how many clips go through a network at a time where nothing is kept of them."""
    convolves = any(isinstance(module, nn.Conv1d | nn.Conv2d) for module in network.modules())
    return IN_CACHES if convolves and device.type == "cpu" else EVALUATION_BATCH
