"""Fast evaluation of a network: batch norms folded into convolutions, and several batches in parallel on a CPU.

`fast_eval` is used wherever no backward pass follows: after every epoch, for a frozen prefix, and in `predict`. The
plain alternative is ``network.eval()(batch)``; the results differ by rounding only. What it buys is in
`core.inference.fold_batch_norm` and `core.inference.parallel`.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from core.inference.fold_batch_norm import (
    Pair,
    find_foldable_pairs,
    folded_modules,
    is_convolution,
    is_traceable,
    replaced,
)
from core.inference.parallel import map_batches, n_parallel
from core.inference.precision import ComputeMode
from core.inference.trace import trace_network

EVALUATION_BATCH = 64  # clips
CACHED_BATCH = 32  # clips that convolutions of a CPU process at a time, so that activations stay in its caches
BatchMap = Callable[[Iterable[Any]], Iterator[torch.Tensor]]  # batches to the outputs of each
_traced = WeakKeyDictionary[nn.Module, "_Traced"]()  # networks that were evaluated before


@dataclass(frozen=True)
class _Traced:
    pairs: list[Pair] = field(default_factory=list)
    sequential: bool = False  # batches are computed one after the other, since each draws random numbers


@contextmanager
def fast_eval(network: nn.Module, arithmetic: ComputeMode, example: Callable[[], Any]) -> Iterator[BatchMap]:
    """Put a network into evaluation mode and fold its batch norms for as long as the context lasts.

    Batch norms are folded in fp32 only: in 16 bits the folded weights would be rounded once more.

    Parameters
    ----------
    network
        Its tensors may be trained on afterwards; every call folds the current values.
    arithmetic
        Device, precision and layout of the run.
    example
        Returns a few inputs, used to trace a network that was not evaluated before.

    Yields
    ------
    A function that maps an iterable of batches to an iterator of outputs, in the same order.
    """
    network.eval()
    with arithmetic.autocast():
        traced = _trace(network, example, arithmetic)
        pairs = traced.pairs if can_fold(arithmetic) else []
        with replaced(network, folded_modules(network, pairs)):
            yield lambda batches: _map_batches(network, batches, arithmetic, traced)


def _map_batches(
    network: nn.Module, batches: Iterable[Any], arithmetic: ComputeMode, traced: _Traced
) -> Iterator[torch.Tensor]:
    if traced.sequential or n_parallel_batches(arithmetic.device) == 1:
        return map(network, batches)
    return map_batches(network, batches, arithmetic, threads=torch.get_num_threads())


def _trace(network: nn.Module, example: Callable[[], Any], arithmetic: ComputeMode) -> _Traced:
    if network not in _traced:
        convolves = any(map(is_convolution, network.modules()))
        if not convolves or (arithmetic.device.type != "cpu" and not can_fold(arithmetic)):
            return _Traced(sequential=True)
        seen = trace_network(network, example(), is_traceable)
        _traced[network] = _Traced(find_foldable_pairs(network, seen), seen.draws_random_numbers)
    return _traced[network]


def can_fold(arithmetic: ComputeMode) -> bool:
    """Tell whether batch norms are folded: not in 16 bits, where the folded weights would be rounded once more."""
    return arithmetic.dtype == torch.float32


def n_parallel_batches(device: torch.device) -> int:
    """Return how many batches are computed in parallel."""
    return n_parallel(torch.get_num_threads()) if device.type == "cpu" else 1


def evaluation_batch_size(network: nn.Module, device: torch.device) -> int:
    """Return the number of clips in a batch of `fast_eval`."""
    convolves = any(isinstance(module, nn.Conv1d | nn.Conv2d) for module in network.modules())
    if not convolves or device.type != "cpu":
        return EVALUATION_BATCH
    return CACHED_BATCH // min(2, n_parallel(torch.get_num_threads()))
