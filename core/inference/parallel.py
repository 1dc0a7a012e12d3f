"""Several batches at a time through one network on a CPU, each by threads of its own.

Where all threads share each convolution they wait for the slowest of them, twice a layer, and beside other work all
wait for the one that was put off. A lane takes a batch through the whole network; meanwhile the caller fetches the next
and writes what the last gave out. A batch's numbers hang on the threads of its lane, not on which lane it took.
"""

import copy
from collections import deque
from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from typing import Any

import torch
from torch import nn

from core.inference.precision import Arithmetic
from core.io.thread_pool import CancellablePool

MOST = 4  # lanes: each has a batch's activations in memory


def lanes_of(threads: int) -> int:
    """Return how many lanes part so many threads evenly."""
    return max(lanes for lanes in range(1, MOST + 1) if threads % lanes == 0)


def through_lanes(
    network: nn.Module, batches: Iterable[Any], arithmetic: Arithmetic, *, threads: int
) -> Iterator[torch.Tensor]:
    """Yield what a network gives out of each batch, in order.

    Parameters
    ----------
    network
        On a CPU, in evaluation mode; it draws no random numbers.
    batches
        What it takes; at most one more than there are lanes is fetched ahead.
    arithmetic
        How it computes.
    threads
        For all lanes together.
    """
    lanes, modes = lanes_of(threads), (torch.is_inference_mode_enabled(), torch.is_grad_enabled())
    networks: SimpleQueue[nn.Module] = SimpleQueue()
    for _ in range(lanes):
        networks.put(replica(network))

    def take(batch: Any) -> torch.Tensor:
        own = networks.get()
        try:
            with torch.inference_mode(modes[0]), torch.set_grad_enabled(modes[1]), arithmetic.autocast():
                made: torch.Tensor = own(batch)
                return made
        finally:
            networks.put(own)

    try:
        with CancellablePool(lanes, initializer=torch.set_num_threads, initargs=(threads // lanes,)) as pool:
            waiting = deque[Any]()
            for batch in batches:
                waiting.append(pool.submit(take, batch))
                if len(waiting) > lanes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        torch.set_num_threads(threads)  # threads that begin later would have as many as a lane's


def replica(module: nn.Module) -> nn.Module:
    """Copy a network's modules, but none of its tensors: what a module notes of a batch is then noted for one alone."""
    return _replica(module, {})


def _replica(module: nn.Module, made: dict[int, nn.Module]) -> nn.Module:
    if isinstance(module, torch.jit.ScriptModule):
        return module
    if id(module) not in made:
        own = made[id(module)] = copy.copy(module)
        own.__dict__ = module.__dict__ | {"_modules": {}}
        own._modules = {name: child and _replica(child, made) for name, child in module._modules.items()}
    return made[id(module)]
