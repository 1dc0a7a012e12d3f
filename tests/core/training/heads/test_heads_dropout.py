"""Dropout of many networks: each input is multiplied by what it would draw alone, whoever else reads or draws."""

import threading

import pytest
import torch
from torch import nn
from torch.nn import functional

from core.training.heads import dropout as module
from core.training.heads.dropout import Dropout, draws

CPU = torch.device("cpu")
LAYERS = (nn.Dropout(0.3), nn.Linear(33, 8), nn.ReLU(), nn.Dropout(0.5), nn.Dropout(0.0), nn.Linear(8, 2))


def alone(seed: int, steps: list[list[torch.Tensor]], rates: tuple[float, ...]) -> list[list[torch.Tensor]]:
    """Let torch drop out what one input is in each step and layer."""
    torch.manual_seed(seed)
    return [[functional.dropout(x, rate) for x, rate in zip(step, rates, strict=True)] for step in steps]


def test_what_is_drawn_is_what_the_layers_ask_for() -> None:
    assert draws(LAYERS, 33, [5, 2]) == [((5, 33), 0.3), ((5, 8), 0.5), ((2, 33), 0.3), ((2, 8), 0.5)]
    assert draws(LAYERS[1:3], 33, [5, 2]) == []


@pytest.mark.parametrize("portion", [1, 300, 2**18], ids=["one by one", "a step at once", "all at once"])
@pytest.mark.parametrize(
    ("seeds", "networks"),
    [
        ((7, 2**63, 7, 0), (0, 1, 2, 0, 3, 1)),
        ((4, 4, 4, 9, 9, 9), (0, 1, 2, 3, 4, 5)),
        ((3, 1, 2), (0, 1, 2)),
        ((5,), (0, 0, 0)),
        ((5, 5), (0, 1, 0)),
    ],
    ids=["mixed", "side by side", "all differ", "one input", "one seed"],
)
def test_each_draws_the_dropout_that_it_would_alone(
    monkeypatch: pytest.MonkeyPatch, seeds: tuple[int, ...], networks: tuple[int, ...], portion: int
) -> None:
    monkeypatch.setattr(module, "PORTION", portion)
    sizes, inputs, runs = [5, 5, 2], len(seeds), len(networks)
    dropout = Dropout(seeds, networks, draws(LAYERS, 33, sizes), CPU)
    first = [torch.randn(inputs, size, 33) for size in sizes]
    second = [torch.randn(runs, size, 8, requires_grad=True) for size in sizes]
    found = [(dropout(a.clone(), parted=False), dropout(b, parted=True)) for a, b in zip(first, second, strict=True)]
    for network, read in enumerate(networks):
        steps = [[a[read], b[network]] for a, b in zip(first, second, strict=True)]
        for (mine, behind), expected in zip(found, alone(seeds[read], steps, (0.3, 0.5)), strict=True):
            assert torch.equal(mine[read], expected[0])
            assert torch.equal(behind[network], expected[1])
    kept = found[0][1].detach() / second[0].detach()
    (grad,) = torch.autograd.grad(found[0][1].sum(), second[0])
    torch.testing.assert_close(grad, kept)
    assert not torch.equal(kept[0], kept[0][:1].expand_as(kept[0]))


def test_what_comes_next_is_drawn_by_another_thread_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PORTION", 1)
    drawn: list[int] = []
    draw = module._drawn
    monkeypatch.setattr(module, "_drawn", lambda *given: (drawn.append(threading.get_ident()), draw(*given))[1])
    before = threading.active_count()
    dropout = Dropout((1, 2), (0, 1), draws(LAYERS[:1], 33, [4] * 20), CPU)
    dropout(torch.ones(2, 4, 33), parted=False)
    assert threading.get_ident() not in drawn
    assert len(drawn) <= 2
    del dropout
    assert threading.active_count() == before
