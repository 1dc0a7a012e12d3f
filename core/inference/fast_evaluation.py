"""Fast evaluation of a network: batch norms folded into convolutions, and several batches in parallel on a CPU.

`fast_eval` is used wherever no backward pass follows: after every epoch, for a frozen prefix, and in `predict`. The
plain alternative is ``network.eval()(batch)``; the results differ by rounding only. Gain: ``python -m tests.benchmarks
evaluation`` compares both alternatives; the ratios of several networks are in `docs/speed.md`.
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
    fold_batch_norms,
    is_convolution,
    is_traceable,
    temporary_modules,
)
from core.inference.parallel import count_workers, map_batches
from core.inference.precision import ComputeMode
from core.inference.trace import trace_network

EVALUATION_BATCH_SIZE = 64  # clips
CPU_BATCH_SIZE = 32  # clips in one batch on a CPU, or in two parallel ones, so that activations fit into its caches
BatchMap = Callable[[Iterable[Any]], Iterator[torch.Tensor]]  # maps batches to their outputs, in the same order
_traced_networks = WeakKeyDictionary[nn.Module, "_TracedNetwork"]()  # `_trace` adds entries


@dataclass(frozen=True)
class _TracedNetwork:
    pairs: list[Pair] = field(default_factory=list)
    sequential: bool = False  # compute batches one after the other, e.g. because the network draws random numbers


@contextmanager
def fast_eval(network: nn.Module, compute_mode: ComputeMode, example: Callable[[], Any]) -> Iterator[BatchMap]:
    """Put a network into evaluation mode, and fold its batch norms within a context.

    Batch norms are folded in fp32 only, see `can_fold`.

    Parameters
    ----------
    network
        The network. It may be trained further afterwards; every call folds the current tensors.
    compute_mode
        Device, precision and layout of the run.
    example
        Function that returns a few inputs (batch, ...), used to trace a network at its first evaluation.

    Yields
    ------
    batch_map
        Maps an iterable of batches to an iterator of their outputs, in the same order.
    """
    network.eval()
    with compute_mode.autocast():
        traced = _trace(network, example, compute_mode)
        pairs = traced.pairs if can_fold(compute_mode) else []
        with temporary_modules(network, fold_batch_norms(network, pairs)):
            yield lambda batches: _map_batches(network, batches, compute_mode, traced)


def _map_batches(
    network: nn.Module, batches: Iterable[Any], compute_mode: ComputeMode, traced: _TracedNetwork
) -> Iterator[torch.Tensor]:
    if traced.sequential or count_parallel_batches(compute_mode.device) == 1:
        return map(network, batches)
    return map_batches(network, batches, compute_mode, threads=torch.get_num_threads())


def _trace(network: nn.Module, example: Callable[[], Any], compute_mode: ComputeMode) -> _TracedNetwork:
    if network not in _traced_networks:
        has_convolutions = any(map(is_convolution, network.modules()))
        if not has_convolutions or (compute_mode.device.type != "cpu" and not can_fold(compute_mode)):
            return _TracedNetwork(sequential=True)
        trace = trace_network(network, example(), is_traceable)
        _traced_networks[network] = _TracedNetwork(find_foldable_pairs(network, trace), trace.draws_random_numbers)
    return _traced_networks[network]


def can_fold(compute_mode: ComputeMode) -> bool:
    """Return whether batch norms are folded: True except in 16 bits, where folded weights would be rounded again."""
    return compute_mode.dtype == torch.float32


def count_parallel_batches(device: torch.device) -> int:
    """Return how many batches are computed in parallel."""
    return count_workers(torch.get_num_threads()) if device.type == "cpu" else 1


def evaluation_batch_size(network: nn.Module, device: torch.device) -> int:
    """Return the number of clips in a batch of `fast_eval`."""
    has_convolutions = any(isinstance(module, nn.Conv1d | nn.Conv2d) for module in network.modules())
    if not has_convolutions or device.type != "cpu":
        return EVALUATION_BATCH_SIZE
    return CPU_BATCH_SIZE // min(2, count_parallel_batches(device))
