"""Depthwise convolutions in bf16 on a CPU, whose gradients oneDNN has fast ways for that it does not take.

A depthwise convolution has one kernel for each channel. In bf16, oneDNN 3.13 computes the gradient of the input of one
with a stride as that of a grouped convolution, one channel after the other, and so it does with the gradient of
kernels more than three columns wide: for EfficientNet-Lite0 these take three quarters of a step, 20 to 200 times as
long as the same in fp32 or with a stride of 1. Both are put here as what it computes fast: the first as a convolution
without a stride, of the gradient with zeros put between; the second in strips of three columns.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional
from torch.nn.modules.utils import _pair
from torch.overrides import TorchFunctionMode

Pair = tuple[int, int]
FAST_WIDTH = 3  # columns of a kernel


class QuickGradients(TorchFunctionMode):
    """Within it, the depthwise convolutions that would be slow have their gradients another way.

    It looks at the calls themselves, since networks convolve by modules of several libraries.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call `func`, or for a convolution what does the same."""
        return (_convolve if func is functional.conv2d else func)(*args, **(kwargs or {}))


def _convolve(
    x: torch.Tensor,
    kernels: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | Pair = 1,
    padding: int | Pair | str = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> torch.Tensor:
    """Convolve x (batch, channels, height, width), as autocast does."""
    own = groups == x.shape[1] == len(kernels) and _pair(dilation) == (1, 1) and not isinstance(padding, str)
    if own and _is_slow(kernels.shape[2:], _pair(stride), _pair(padding)):
        dtype = torch.get_autocast_dtype("cpu")
        inputs = (x.to(dtype), kernels.to(dtype), None if bias is None else bias.to(dtype))
        with torch.autocast("cpu", enabled=False):
            y: torch.Tensor = Convolved.apply(*inputs, _pair(stride), _pair(padding))
            return y
    return functional.conv2d(x, kernels, bias, stride, padding, dilation, groups)


def _is_slow(size: torch.Size, stride: Pair, padding: Pair) -> bool:
    within = all(p < k for p, k in zip(padding, size, strict=True))
    return within and (stride != (1, 1) or size[1] > FAST_WIDTH)


class Convolved(torch.autograd.Function):
    """The convolution of x (batch, channels, height, width) with kernels (channels, 1, rows, columns)."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, kernels: torch.Tensor, bias: torch.Tensor | None, stride: Pair, padding: Pair
    ) -> torch.Tensor:
        """Convolve as torch does."""
        ctx.save_for_backward(x, kernels)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(x, kernels, bias, stride, padding, groups=len(kernels))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of x, kernels and bias."""
        x, kernels = ctx.saved_tensors
        of_x, of_kernels, of_bias = ctx.needs_input_grad[:3]
        return (
            input_gradient(gradient, x, kernels, ctx.stride, ctx.padding) if of_x else None,
            kernel_gradient(gradient, x, kernels, ctx.stride, ctx.padding) if of_kernels else None,
            gradient.sum((0, 2, 3)) if of_bias else None,
            None,
            None,
        )


def input_gradient(
    gradient: torch.Tensor, x: torch.Tensor, kernels: torch.Tensor, stride: Pair, padding: Pair
) -> torch.Tensor:
    """Return the gradient of x, of its shape: what came out, spread by the stride, convolved with turned kernels."""
    channels, (rows, columns) = len(kernels), kernels.shape[2:]
    if stride == (1, 1):
        return _backward(gradient, x, kernels, stride, padding, of_x=True)
    shape = (len(x), channels, x.shape[2] + rows - 1, x.shape[3] + columns - 1)
    spread = torch.empty(shape, dtype=gradient.dtype, memory_format=torch.channels_last).zero_()
    places = [
        slice(first := size - 1 - p, first + (n - 1) * step + 1, step)
        for size, p, n, step in zip((rows, columns), padding, gradient.shape[2:], stride, strict=True)
    ]
    spread[:, :, places[0], places[1]] = gradient
    return functional.conv2d(spread, kernels.flip(2, 3), groups=channels)


def kernel_gradient(
    gradient: torch.Tensor, x: torch.Tensor, kernels: torch.Tensor, stride: Pair, padding: Pair
) -> torch.Tensor:
    """Return the gradient of the kernels, of their shape: three columns at a time, of x as far as those see of it."""
    rows, columns = kernels.shape[2:]
    if columns <= FAST_WIDTH:
        return _backward(gradient, x, kernels, stride, padding, of_x=False)
    height = (gradient.shape[2] - 1) * stride[0] + rows  # that the kernels go over
    width = (gradient.shape[3] - 1) * stride[1] + FAST_WIDTH  # that three columns of them do
    below = height - x.shape[2] - padding[0]
    made = torch.empty_like(kernels)
    for first in (*range(0, columns - FAST_WIDTH, FAST_WIDTH), columns - FAST_WIDTH):
        left = padding[1] - first
        seen = functional.pad(x, (left, width - x.shape[3] - left, padding[0], below))
        strip = slice(first, first + FAST_WIDTH)
        made[..., strip] = _backward(gradient, seen, kernels[..., strip], stride, (0, 0), of_x=False)
    return made


def _backward(
    gradient: torch.Tensor, x: torch.Tensor, kernels: torch.Tensor, stride: Pair, padding: Pair, *, of_x: bool
) -> torch.Tensor:
    """Return torch's gradient of x, or of the kernels."""
    asked = (of_x, not of_x, False)
    found = torch.ops.aten.convolution_backward(
        gradient, x, kernels, None, stride, padding, (1, 1), False, (0, 0), len(kernels), asked
    )
    made: torch.Tensor = found[0 if of_x else 1]
    return made
