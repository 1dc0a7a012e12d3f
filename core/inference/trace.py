"""Tracing of one forward pass: pairs of modules where the second is the only consumer of the first one's output."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass
class Trace:
    """Result of `trace_network`; modules are identified by name.

    Attributes
    ----------
    consumer
        Maps a module to the only module that uses its output.
    calls
        Number of calls of each module.
    draws_random_numbers
        Whether the network draws random numbers in evaluation mode.
    """

    consumer: dict[str, str] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    draws_random_numbers: bool = False


def trace_network(network: nn.Module, example: Any, is_traced: Callable[[nn.Module], bool]) -> Trace:
    """Run a network once and return which of its modules consume each other's outputs.

    Parameters
    ----------
    network
        Network in evaluation mode.
    example
        A few inputs (batch, ...). The state of torch's random generators is restored afterwards.
    is_traced
        Function that returns whether a module is traced.
    """
    trace, counter = Trace(), _UseCounter()
    pairs: list[tuple[str, str]] = []

    def on_input(name: str, x: torch.Tensor) -> None:
        trace.calls[name] += 1
        if id(x) in counter.producers:
            pairs.append((counter.producers[id(x)][0], name))

    def on_output(name: str, x: torch.Tensor, output: torch.Tensor) -> None:
        if output is x:  # changed in place: count later uses for the new output
            counter.producers.pop(id(x), None)
        counter.producers[id(output)] = name, output

    hooks = []
    for name, module in network.named_modules():
        if is_traced(module):
            hooks.append(module.register_forward_pre_hook(lambda _, x, name=name: on_input(name, x[0])))
            hooks.append(module.register_forward_hook(lambda _, x, y, name=name: on_output(name, x[0], y)))
    gpus = {tensor.device for tensor in network.parameters() if tensor.is_cuda}  # only the GPUs of the network
    try:
        with torch.random.fork_rng(devices=gpus), torch.no_grad(), counter:
            before = torch.get_rng_state()
            network(example)
            trace.draws_random_numbers = not torch.equal(torch.get_rng_state(), before)
    finally:
        for hook in hooks:
            hook.remove()
    trace.consumer = {name: user for name, user in pairs if trace.calls[name] == counter.uses[name] == 1}
    return trace


class _UseCounter(TorchDispatchMode):
    """Counts the operations that use the output of each traced module.

    Attributes
    ----------
    producers
        Maps ``id(tensor)`` to the name of the module that returned it, and to the tensor, so that its id is not reused.
    uses
        Number of operations by name of the module.
    """

    def __init__(self) -> None:
        super().__init__()
        self.producers: dict[int, tuple[str, torch.Tensor]] = {}
        self.uses: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaves, _ = torch.utils._pytree.tree_flatten((args, kwargs or {}))
        self.uses.update({self.producers[id(leaf)][0] for leaf in leaves if id(leaf) in self.producers})
        return func(*args, **(kwargs or {}))
