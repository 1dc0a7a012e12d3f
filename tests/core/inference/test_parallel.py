"""Batches that go through a network side by side: the same numbers, in order, whatever the network notes or draws."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from core.config.run import Training
from core.inference.fast_forward import evaluation_batch_size, fast_eval
from core.inference.parallel import count_workers, map_batches, shallow_copy
from core.inference.precision import ComputeMode
from core.models.backbone import build_backbone

CPU = torch.device("cpu")
EXACT = ComputeMode(Training(), CPU)


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


@pytest.mark.parametrize(("threads", "lanes"), [(1, 1), (2, 2), (3, 3), (4, 4), (6, 3), (7, 1), (8, 4), (64, 4)])
def test_lanes_part_threads_evenly(threads: int, lanes: int) -> None:
    assert count_workers(threads) == lanes


def batches(count: int = 7) -> list[torch.Tensor]:
    return [torch.full((2, 3, 8, 8), float(k)) for k in range(count)]


class Noting(nn.Module):
    """Keeps what it was given on itself, as many a network does, until the other lane has begun."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.given: Any = None
        self.threads: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.given = x
        self.threads.append(torch.get_num_threads())
        for _ in range(200):
            self.conv(x)
        assert self.given is x
        made: torch.Tensor = self.conv(self.given)
        return made


def test_what_a_network_notes_of_a_batch_stays_in_its_lane() -> None:
    network = Noting().eval()
    with torch.inference_mode():
        made = list(map_batches(network, batches(), EXACT, threads=2))
        assert set(network.threads) == {1}
        torch.set_num_threads(1)
        expected = [network(x) for x in batches()]
        torch.set_num_threads(2)
    assert len(made) == len(expected)
    assert all(torch.equal(one, other) for one, other in zip(made, expected, strict=True))


def test_few_batches_are_fetched_ahead() -> None:
    fetched = []

    def fetch() -> Iterator[torch.Tensor]:
        for x in batches():
            fetched.append(x)
            yield x

    outs = map_batches(nn.Identity(), fetch(), EXACT, threads=2)
    assert torch.equal(next(outs), batches()[0])
    assert len(fetched) == 3
    assert [float(x[0, 0, 0, 0]) for x in outs] == [1, 2, 3, 4, 5, 6]


def test_modes_of_the_caller_hold_in_lanes() -> None:
    network = nn.Conv2d(3, 3, 1)
    with torch.no_grad():
        assert not any(y.requires_grad or y.is_inference() for y in map_batches(network, batches(), EXACT, threads=2))
    with torch.inference_mode():
        assert all(y.is_inference() for y in map_batches(network, batches(), EXACT, threads=2))


def test_an_error_in_a_lane_is_the_callers() -> None:
    class Fails(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError(f"batch {int(x[0, 0, 0, 0])}")

    with pytest.raises(ValueError, match="batch 0"):
        list(map_batches(Fails(), batches(), EXACT, threads=2))


def test_a_replica_shares_tensors_and_no_modules() -> None:
    network = build_backbone("mobilenet_v2", 5, weights="random")
    own = shallow_copy(network)
    assert [name for name, _ in own.named_modules()] == [name for name, _ in network.named_modules()]
    assert not {id(module) for module in own.modules()} & {id(module) for module in network.modules()}
    pairs = zip(own.state_dict().values(), network.state_dict().values(), strict=True)
    assert all(one.data_ptr() == other.data_ptr() for one, other in pairs)
    shared = nn.Linear(2, 2)
    twice = shallow_copy(nn.Sequential(shared, shared))
    assert twice[0] is twice[1] is not shared


def noise(count: int) -> torch.Tensor:
    x = torch.randn(count, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    return x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "densenet121"])
def test_evaluating_in_lanes_gives_the_bits_of_one_thread(name: str) -> None:
    network, x = EXACT.to_device(build_backbone(name, 5, weights="random")).eval(), noise(37)
    size = evaluation_batch_size(network, CPU)
    assert size == 16
    with torch.inference_mode():
        with fast_eval(network, EXACT, lambda: x[:2]) as through:
            made = torch.cat(list(through(x.split(size))))
            torch.set_num_threads(1)
            alone = torch.cat([network(part) for part in x.split(size)])
            torch.set_num_threads(2)
        assert torch.equal(made, alone)
        torch.testing.assert_close(made, network(x), rtol=1e-4, atol=1e-4)


class Drawing(nn.Module):
    """Changes images at random in evaluation too, as the leak of a report does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.conv(x + torch.rand(len(x), 1, 1, 1))
        return made


def test_a_network_that_draws_takes_its_batches_in_turn() -> None:
    network, x = Drawing().eval(), noise(40)
    made = []
    for _ in range(3):
        torch.manual_seed(3)
        with torch.inference_mode(), fast_eval(network, EXACT, lambda: x[:2]) as through:
            made.append(torch.cat(list(through(x.split(5)))))
    torch.manual_seed(3)
    with torch.inference_mode():
        expected = torch.cat([network(part) for part in x.split(5)])
    assert all(torch.allclose(one, expected, atol=1e-6) for one in made)
