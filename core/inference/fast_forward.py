"""A network's forward pass where no backward pass follows: as few passes over the numbers as will do.

Batch norms are folded, and on a CPU what a ReLU does is done by the convolution before it; in 16 bits those in front of
a convolution are made one of their own. There few clips go through convolutions at a time, in lanes
(`core.inference.parallel`): what a layer gives out is then still in the caches when the next one reads it.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from core.inference import fold_batch_norm
from core.inference.fold_batch_norm import Pair, in_place, is_convolution, pairs_in, put
from core.inference.fusing import Fusion, can_fuse, concerned, fuses, fusions
from core.inference.leading import Leading, leading_in, leads
from core.inference.parallel import lanes_of, replica, through_lanes
from core.inference.precision import Arithmetic
from core.inference.trace import flow

EVALUATION_BATCH = 64  # clips
IN_CACHES = 32  # clips that convolutions of a CPU take at a time, all lanes of one or two together
Through = Callable[[Iterable[Any]], Iterator[torch.Tensor]]  # batches to what a network gives out of each
_seen = WeakKeyDictionary[nn.Module, "_Looked"]()  # at networks that were evaluated before


@dataclass(frozen=True)
class _Looked:
    pairs: list[Pair] = field(default_factory=list)
    leading: list[Leading] = field(default_factory=list)
    fusions: list[Fusion] = field(default_factory=list)
    draws: bool = False


@contextmanager
def evaluating(network: nn.Module, arithmetic: Arithmetic, example: Callable[[], Any]) -> Iterator[Through]:
    """Put a network into evaluation mode and compute as its run does, folded and fused until it was used.

    In 16 bits folded weights round otherwise than the network's own: so does a frozen prefix, stored or not. What is
    given to ``with`` takes many batches through it.

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
        looked = _looked_at(network, example, arithmetic)
        for make in _makers(looked, arithmetic):
            stack.enter_context(in_place(network, make(network)))
        yield lambda batches: _through(network, batches, arithmetic, looked)


def settled(network: nn.Module, arithmetic: Arithmetic, example: Callable[[], Any]) -> Through:
    """Fold and fuse a copy of a network whose tensors never change, once for all; the network stays as it is."""
    looked, own = _looked_at(network.eval(), example, arithmetic), replica(network)
    for make in _makers(looked, arithmetic):
        put(own, make(own))
    return lambda batches: _through(own, batches, arithmetic, looked)


def _makers(looked: _Looked, arithmetic: Arithmetic) -> Iterator[Callable[[nn.Module], dict[str, nn.Module]]]:
    """Yield what makes the modules that take the place of a network's, one after the other."""
    if folds(arithmetic):
        yield lambda network: fold_batch_norm.folds(network, looked.pairs)
    if _fuses(arithmetic):
        dtype, device = arithmetic.dtype, arithmetic.device
        leading = looked.leading if dtype != torch.float32 else []  # where that is no quicker
        fused = [*looked.fusions, *(each.fusion for each in leading)]
        yield lambda network: leads(network, leading, dtype)
        yield lambda network: fuses(network, fused, dtype, clips_at_once(network, device))


def _through(
    network: nn.Module, batches: Iterable[Any], arithmetic: Arithmetic, looked: _Looked
) -> Iterator[torch.Tensor]:
    if looked.draws or batches_at_once(arithmetic.device) == 1:
        return map(network, batches)
    return through_lanes(network, batches, arithmetic, threads=torch.get_num_threads())


def _looked_at(network: nn.Module, example: Callable[[], Any], arithmetic: Arithmetic) -> _Looked:
    if network not in _seen:
        convolves = any(map(is_convolution, network.modules()))
        if not convolves or (arithmetic.device.type != "cpu" and not folds(arithmetic)):
            return _Looked(draws=True)
        seen = flow(network, example(), concerned)
        pairs = pairs_in(network, seen)
        leading = leading_in(network, pairs, seen)
        _seen[network] = _Looked(pairs, leading, fusions(network, pairs, seen), seen.draws)
    return _seen[network]


def folds(arithmetic: Arithmetic) -> bool:
    """Tell whether batch norms are folded: in 16 bits, where what they are folded into is not rounded once more."""
    return arithmetic.dtype == torch.float32 or _fuses(arithmetic)


def _fuses(arithmetic: Arithmetic) -> bool:
    laid_out = arithmetic.device.type == "cpu" and arithmetic.layout == torch.channels_last
    return laid_out and can_fuse(arithmetic.dtype)


def batches_at_once(device: torch.device) -> int:
    """Return how many batches are on their way through a network side by side, each in a lane of its own."""
    return lanes_of(torch.get_num_threads()) if device.type == "cpu" else 1


def clips_at_once(network: nn.Module, device: torch.device) -> int:
    """Return how many clips go through a network, or through a lane of it, at a time where nothing is kept of them."""
    convolves = any(isinstance(module, nn.Conv1d | nn.Conv2d) for module in network.modules())
    if not convolves or device.type != "cpu":
        return EVALUATION_BATCH
    return IN_CACHES // min(2, lanes_of(torch.get_num_threads()))
