"""Many networks as one: what each computes is what it would alone, whatever threads the others take."""

from collections.abc import Iterator

import pytest
import torch
from torch.nn import functional

from core.io.torch_settings import torch_threads
from core.training.heads.stack import Dense


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", [(32, 1280, 10), (10, 19, 64), (17, 33, 7)])
def test_gradients_are_those_of_one_alone_on_one_thread(shape: tuple[int, int, int], threads: int) -> None:
    """Whatever threads there are: of a head of ten classes one alone on two has others on the CPUs that were tried."""
    batch, width, classes = shape
    generator = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(3, batch, size, generator=generator) for size in (width, classes))
    weight = torch.randn(3, classes, width, generator=generator, requires_grad=True)
    bias = torch.randn(3, classes, generator=generator, requires_grad=True)
    with torch_threads(threads):
        found = torch.autograd.grad(Dense.apply(x, weight, bias), (weight, bias), grad)
    with torch_threads(1):
        for k in range(3):
            alone = [tensor[k].detach().requires_grad_() for tensor in (weight, bias)]
            expected = torch.autograd.grad(functional.linear(x[k], *alone), alone, grad[k])
            assert torch.equal(found[0][k], expected[0])
            assert torch.equal(found[1][k], expected[1])


def test_threads_are_as_before_after_an_error() -> None:
    torch.set_num_threads(2)
    with pytest.raises(ZeroDivisionError), torch_threads(1):
        assert torch.get_num_threads() == 1
        _ = 1 / 0
    assert torch.get_num_threads() == 2
