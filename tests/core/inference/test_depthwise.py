"""Gradients of depthwise convolutions: those of autograd in float64, whoever convolves."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn

from core.inference import depthwise
from core.inference.precision import multiplies_bf16
from core.models.backbone import build_backbone

SHAPES = [  # height and width, kernel, stride, padding
    ((9, 12), (3, 3), (2, 2), (1, 1)),
    ((8, 8), (5, 5), (2, 2), (2, 2)),
    ((7, 10), (5, 5), (1, 1), (2, 2)),
    ((4, 4), (5, 5), (1, 1), (2, 2)),  # smaller than the kernel
    ((11, 9), (7, 7), (2, 2), (3, 3)),
    ((6, 20), (1, 9), (1, 2), (0, 4)),
    ((9, 9), (3, 4), (3, 2), (0, 1)),
    ((10, 10), (4, 5), (2, 3), (3, 0)),
    ((8, 8), (3, 3), (1, 1), (1, 1)),
]


@pytest.mark.parametrize(("size", "kernel", "stride", "padding"), SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_are_those_of_autograd_in_float64(
    size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], bias: bool
) -> None:
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).bfloat16().double().requires_grad_()

    x, kernels = drawn(3, 6, *size), drawn(6, 1, *kernel)
    inputs = [x, kernels, drawn(6)] if bias else [x, kernels]
    expected = nn.functional.conv2d(x, kernels, *inputs[2:], stride=stride, padding=padding, groups=6)
    gradient = drawn(*expected.shape).detach()
    theirs = torch.autograd.grad(expected, inputs, gradient)
    dtypes = {torch.float64: 1e-12, torch.bfloat16: 2**-8}
    if not multiplies_bf16():  # emulated bf16 rounds every partial sum instead of the result alone
        del dtypes[torch.bfloat16]
    for dtype, tolerance in dtypes.items():
        own = [value.detach().to(dtype).requires_grad_() for value in inputs]
        y = depthwise.Convolved.apply(own[0], own[1], own[2] if bias else None, stride, padding)
        assert y.dtype == dtype
        torch.testing.assert_close(y.double(), expected, rtol=tolerance, atol=tolerance * 4)
        ours = torch.autograd.grad(y, own, gradient.to(dtype))
        for found, right in zip(ours, theirs, strict=True):
            assert found.dtype == dtype
            torch.testing.assert_close(found.double(), right, rtol=tolerance, atol=tolerance * right.abs().max())


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets an entry for each convolution whose gradients go another way."""
    calls: list[int] = []
    forward = depthwise.Convolved.forward
    monkeypatch.setattr(depthwise.Convolved, "forward", lambda *args: calls.append(1) or forward(*args))
    return calls


@pytest.mark.parametrize(
    ("options", "slow"),
    [
        ({}, True),
        ({"bias": False}, True),
        ({"kernel_size": 3, "padding": 1, "stride": 2}, True),
        ({"kernel_size": 3, "padding": 1}, False),  # fast as it is
        ({"groups": 1}, False),
        ({"groups": 2}, False),
        ({"out_channels": 8}, False),
        ({"dilation": 2}, False),
        ({"padding": "same"}, False),
        ({"padding_mode": "reflect"}, True),  # padded before it is convolved
        ({"kernel_size": 4, "padding": 4}, False),  # wider than the kernel sees
    ],
)
def test_only_slow_ones_go_another_way(options: dict[str, Any], slow: bool, counted: list[int]) -> None:
    conv = nn.Conv2d(**{"in_channels": 4, "out_channels": 4, "kernel_size": 5, "groups": 4, "padding": 2} | options)
    x = torch.randn(2, 4, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = conv(x)
        with depthwise.QuickGradients():
            found = conv(x)
    assert counted == [1] * slow
    assert torch.equal(found, expected)


def test_all_slow_convolutions_of_a_network_and_no_output(counted: list[int]) -> None:
    network = build_backbone("efficientnet_lite0", 3, weights="random").eval()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    outputs, gradients = [], []
    for way in (nullcontext(), depthwise.QuickGradients()):
        with torch.autocast("cpu", dtype=torch.bfloat16), way:
            outputs.append(network(x).float())
        gradients.append(torch.autograd.grad(outputs[-1].square().sum(), list(network.parameters())))
    assert len(counted) == 11  # four with a stride, by timm's own module, and seven of five columns
    assert torch.equal(*outputs)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.02 * float(one.abs().max()))
