"""Parallel batches: the same outputs in the same order, one thread per batch."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from core.config.run import Training
from core.inference.fast_evaluation import evaluation_batch_size, fast_eval
from core.inference.parallel import map_batches
from core.inference.precision import ComputeMode
from core.models.backbone import build_backbone

CPU = torch.device("cpu")
FP32 = ComputeMode(Training(), CPU)


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def make_batches() -> list[torch.Tensor]:
    return [torch.full((2, 3, 8, 8), float(k)) for k in range(7)]


class StoresInput(nn.Module):
    """Stores its input as an attribute and is slow enough that another worker runs meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.input: Any = None
        self.threads: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.input = x
        self.threads.append(torch.get_num_threads())
        for _ in range(200):
            self.conv(x)
        assert self.input is x
        output: torch.Tensor = self.conv(self.input)
        return output


def test_map_batches_with_state_on_modules_gives_sequential_outputs() -> None:
    network = StoresInput().eval()
    with torch.inference_mode():
        outputs = list(map_batches(network, make_batches(), FP32, threads=2))
        assert set(network.threads) == {1}
        torch.set_num_threads(1)
        expected = [network(x) for x in make_batches()]
        torch.set_num_threads(2)
    assert all(torch.equal(one, other) for one, other in zip(outputs, expected, strict=True))


def test_error_in_a_worker_reaches_the_caller() -> None:
    class Fails(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError(f"batch {int(x[0, 0, 0, 0])}")

    with pytest.raises(ValueError, match="batch 0"):
        list(map_batches(Fails(), make_batches(), FP32, threads=2))


def random_images(count: int) -> torch.Tensor:
    x = torch.randn(count, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    return x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "densenet121"])
def test_fast_eval_gives_the_bits_of_one_thread(name: str) -> None:
    network, x = FP32.to_device(build_backbone(name, 5, weights="random")).eval(), random_images(37)
    size = evaluation_batch_size(network, CPU)
    assert size == 16
    with torch.inference_mode():
        with fast_eval(network, FP32, lambda: x[:2]) as map_parallel:
            outputs = torch.cat(list(map_parallel(x.split(size))))
            torch.set_num_threads(1)
            sequential = torch.cat([network(part) for part in x.split(size)])
            torch.set_num_threads(2)
        assert torch.equal(outputs, sequential)
        torch.testing.assert_close(outputs, network(x), rtol=1e-4, atol=1e-4)


class AddsNoise(nn.Module):
    """Draws random numbers also in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.conv(x + torch.rand(len(x), 1, 1, 1))
        return output


def test_fast_eval_of_random_network_computes_batches_in_order() -> None:
    network, x = AddsNoise().eval(), random_images(40)
    outputs = []
    for _ in range(3):
        torch.manual_seed(3)
        with torch.inference_mode(), fast_eval(network, FP32, lambda: x[:2]) as map_sequential:
            outputs.append(torch.cat(list(map_sequential(x.split(5)))))
    torch.manual_seed(3)
    with torch.inference_mode():
        expected = torch.cat([network(part) for part in x.split(5)])
    assert all(torch.allclose(one, expected, atol=1e-6) for one in outputs)
