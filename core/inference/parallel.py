"""Parallel forward passes of several batches through one network on a CPU, each batch in a thread of its own.

If all threads share each convolution, every layer waits for the slowest thread. Here each worker thread computes the
whole network for one batch, while the caller reads the next batch and writes the last result. Outputs do not depend on
the worker that computed them.
"""

import copy
from collections import deque
from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from typing import Any

import torch
from torch import nn

from core.inference.precision import ComputeMode
from core.system.thread_pool import CancellablePool

MAX_PARALLEL_BATCHES = 4  # limits the memory of activations


def count_workers(threads: int) -> int:
    """Return the number of parallel batches: at most MAX_PARALLEL_BATCHES, and a divisor of the number of threads."""
    return max(workers for workers in range(1, MAX_PARALLEL_BATCHES + 1) if threads % workers == 0)


def map_batches(
    network: nn.Module, batches: Iterable[Any], compute_mode: ComputeMode, *, threads: int
) -> Iterator[torch.Tensor]:
    """Yield the output of a network for each batch, in order.

    Parameters
    ----------
    network
        Network on a CPU, in evaluation mode; it must not draw random numbers.
    batches
        Inputs (batch, ...); at most one batch more than the number of workers is fetched ahead.
    compute_mode
        Device, precision and layout.
    threads
        Number of CPU threads of all workers together.
    """
    workers = count_workers(threads)
    inference_mode, grad_enabled = torch.is_inference_mode_enabled(), torch.is_grad_enabled()  # of the calling thread
    networks: SimpleQueue[nn.Module] = SimpleQueue()
    for _ in range(workers):
        networks.put(shallow_copy(network))

    def compute_batch(batch: Any) -> torch.Tensor:
        replica = networks.get()
        try:
            with torch.inference_mode(inference_mode), torch.set_grad_enabled(grad_enabled), compute_mode.autocast():
                output: torch.Tensor = replica(batch)
                return output
        finally:
            networks.put(replica)

    try:
        with CancellablePool(workers, initializer=torch.set_num_threads, initargs=(threads // workers,)) as pool:
            pending = deque[Any]()
            for batch in batches:
                pending.append(pool.submit(compute_batch, batch))
                if len(pending) > workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
    finally:
        torch.set_num_threads(threads)  # new threads would inherit the number of a worker


def shallow_copy(module: nn.Module) -> nn.Module:
    """Copy the modules of a network but not its tensors: attributes that a forward pass sets belong to one worker."""
    return _shallow_copy(module, {})


def _shallow_copy(module: nn.Module, copies: dict[int, nn.Module]) -> nn.Module:
    if isinstance(module, torch.jit.ScriptModule):
        return module
    if id(module) not in copies:
        replica = copies[id(module)] = copy.copy(module)
        replica.__dict__ = module.__dict__ | {"_modules": {}}
        replica._modules = {name: child and _shallow_copy(child, copies) for name, child in module._modules.items()}
    return copies[id(module)]
