"""Which module's output goes into which other module, and nowhere else: seen in one forward pass of any network."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass
class Flow:
    """What one forward pass showed of some of a network's modules, by their names.

    Attributes
    ----------
    then
        The module that a module's output went into, and nothing else took it.
    ran
        How often each ran.
    shapes
        Of the first input of each.
    draws
        Whether the network draws random numbers.
    """

    then: dict[str, str] = field(default_factory=dict)
    ran: Counter[str] = field(default_factory=Counter)
    shapes: dict[str, torch.Size] = field(default_factory=dict)
    draws: bool = False


def flow(network: nn.Module, example: Any, watched: Callable[[nn.Module], bool]) -> Flow:
    """Look at a network's modules of some kinds.

    Parameters
    ----------
    network
        In evaluation mode.
    example
        A few inputs; torch's random numbers are afterwards as they were.
    watched
        Tells whether a module is of the kinds.
    """
    found, watch = Flow(), _Uses()
    pairs: list[tuple[str, str]] = []

    def entered(name: str, x: torch.Tensor) -> None:
        found.ran[name] += 1
        found.shapes.setdefault(name, x.shape)
        if id(x) in watch.made:
            pairs.append((watch.made[id(x)][0], name))

    def left(name: str, x: torch.Tensor, output: torch.Tensor) -> None:
        if output is x:  # changed in place: what is done with it from here on is done with another output
            watch.made.pop(id(x), None)
        watch.made[id(output)] = name, output

    hooks = []
    for name, module in network.named_modules():
        if watched(module):
            hooks.append(module.register_forward_pre_hook(lambda _, x, name=name: entered(name, x[0])))
            hooks.append(module.register_forward_hook(lambda _, x, y, name=name: left(name, x[0], y)))
    gpus = {tensor.device for tensor in network.parameters() if tensor.is_cuda}  # not all that the machine has
    try:
        with torch.random.fork_rng(devices=gpus), torch.no_grad(), watch:
            before = torch.get_rng_state()
            network(example)
            found.draws = not torch.equal(torch.get_rng_state(), before)
    finally:
        for hook in hooks:
            hook.remove()
    found.then = {one: other for one, other in pairs if found.ran[one] == watch.uses[one] == 1}
    return found


class _Uses(TorchDispatchMode):
    """Counts the operations that take what a module gave out.

    Attributes
    ----------
    made
        By the identity of the tensor, which is kept so that no identity comes back: the module, and the tensor.
    uses
        Operations, by the name of the module.
    """

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, tuple[str, torch.Tensor]] = {}
        self.uses: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaves, _ = torch.utils._pytree.tree_flatten((args, kwargs or {}))
        self.uses.update({self.made[id(leaf)][0] for leaf in leaves if id(leaf) in self.made})
        return func(*args, **(kwargs or {}))
