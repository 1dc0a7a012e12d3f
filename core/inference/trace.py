"""Tracing of one forward pass: which module is the only consumer of which other module's output."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass
class Trace:
    """The result of `trace_network`, for modules by their names.

    Attributes
    ----------
    consumer
        Maps a module to the only module that used its output.
    calls
        How often each module ran.
    draws_random_numbers
        Whether the network draws random numbers in evaluation mode.
    """

    consumer: dict[str, str] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    draws_random_numbers: bool = False


def trace_network(network: nn.Module, example: Any, watched: Callable[[nn.Module], bool]) -> Trace:
    """Run a network once and return which of its modules consume each other's outputs.

    Parameters
    ----------
    network
        In evaluation mode.
    example
        A few inputs. The state of torch's random generators is restored afterwards.
    watched
        Returns whether a module is to be traced.
    """
    found, watch = Trace(), _UseCounter()
    pairs: list[tuple[str, str]] = []

    def on_input(name: str, x: torch.Tensor) -> None:
        found.calls[name] += 1
        if id(x) in watch.made:
            pairs.append((watch.made[id(x)][0], name))

    def on_output(name: str, x: torch.Tensor, output: torch.Tensor) -> None:
        if output is x:  # changed in place: later uses are uses of the new output
            watch.made.pop(id(x), None)
        watch.made[id(output)] = name, output

    hooks = []
    for name, module in network.named_modules():
        if watched(module):
            hooks.append(module.register_forward_pre_hook(lambda _, x, name=name: on_input(name, x[0])))
            hooks.append(module.register_forward_hook(lambda _, x, y, name=name: on_output(name, x[0], y)))
    gpus = {tensor.device for tensor in network.parameters() if tensor.is_cuda}  # not every GPU of the machine
    try:
        with torch.random.fork_rng(devices=gpus), torch.no_grad(), watch:
            before = torch.get_rng_state()
            network(example)
            found.draws_random_numbers = not torch.equal(torch.get_rng_state(), before)
    finally:
        for hook in hooks:
            hook.remove()
    found.consumer = {one: other for one, other in pairs if found.calls[one] == watch.uses[one] == 1}
    return found


class _UseCounter(TorchDispatchMode):
    """Counts the operations that use the output of each traced module.

    Attributes
    ----------
    made
        Maps ``id(tensor)`` to the module that returned it and the tensor, which is kept so that no id is reused.
    uses
        Number of operations, by the name of the module.
    """

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, tuple[str, torch.Tensor]] = {}
        self.uses: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaves, _ = torch.utils._pytree.tree_flatten((args, kwargs or {}))
        self.uses.update({self.made[id(leaf)][0] for leaf in leaves if id(leaf) in self.made})
        return func(*args, **(kwargs or {}))
