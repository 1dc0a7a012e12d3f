"""Cost of a forward pass: multiply-adds, and number of values that layers write to memory."""

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_multiply_adds(network: nn.Module, image: torch.Tensor) -> float:
    """Return the multiply-adds of all convolutions and matrix products of a forward pass."""
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter, torch.no_grad():  # torch does not count fused attention on a CPU
        network(image)
    return counter.get_total_flops() / 2  # torch counts a multiply-add as two operations


def count_outputs(network: nn.Module, image: torch.Tensor) -> int:
    """Return the number of values that the layers of a network write in a forward pass."""
    total = 0

    def add(_module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal total
        total += output.numel() if isinstance(output, torch.Tensor) else 0

    hooks = [module.register_forward_hook(add) for module in network.modules() if not list(module.children())]
    try:
        with torch.no_grad():
            network(image)
    finally:
        for hook in hooks:
            hook.remove()
    return total
