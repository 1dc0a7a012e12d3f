from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from core.training import checkpoint


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def step(net: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    net(x).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_checkpoint_resumed_training_is_bit_identical(tmp_path: Path, kind: type[torch.optim.Optimizer]) -> None:
    options = {"lr": 0.1, "momentum": 0.9} if kind is torch.optim.SGD else {"lr": 0.1}
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    straight = network()
    optimizer = kind(straight.parameters(), **options)
    for k in range(4):
        step(straight, optimizer, k)
        if k == 1:
            checkpoint.save(tmp_path / "c.safetensors", straight, optimizer, scaler, [{"epoch": 1}, {"epoch": 2}])
    resumed = network()
    with torch.no_grad():
        resumed[0].weight.zero_()
    optimizer = kind(resumed.parameters(), **options)
    assert checkpoint.load(tmp_path / "c.safetensors", resumed, optimizer, scaler) == [{"epoch": 1}, {"epoch": 2}]
    for k in (2, 3):
        step(resumed, optimizer, k)
    for name, tensor in straight.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


@pytest.mark.parametrize("best", [None, np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)])
def test_checkpoint_stores_best_logits(tmp_path: Path, best: np.ndarray | None) -> None:
    path, net, scaler = tmp_path / "c.safetensors", network(), torch.amp.GradScaler("cpu", enabled=False)
    optimizer = torch.optim.Adam(net.parameters())
    checkpoint.save(path, net, optimizer, scaler, [{"epoch": 1}], best)
    assert checkpoint.load(path, net, optimizer, scaler) == [{"epoch": 1}]
    found = checkpoint.load_best_logits(path)
    assert found is best if best is None else np.array_equal(found, best)


@pytest.mark.parametrize("content", [None, b"", b"\x10" * 40], ids=["missing", "empty", "damaged"])
def test_load_checkpoint_missing_or_damaged_returns_empty_history(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "c.safetensors"
    if content is not None:
        path.write_bytes(content)
    net = network()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    optimizer = torch.optim.Adam(net.parameters())
    assert checkpoint.load(path, net, optimizer, torch.amp.GradScaler("cpu", enabled=False)) == []
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_load_checkpoint_of_other_network_returns_empty_history(tmp_path: Path) -> None:
    path, scaler = tmp_path / "c.safetensors", torch.amp.GradScaler("cpu", enabled=False)
    other = nn.Linear(2, 2)
    checkpoint.save(path, other, torch.optim.Adam(other.parameters()), scaler, [{"epoch": 1}])
    net = network()
    assert checkpoint.load(path, net, torch.optim.Adam(net.parameters()), scaler) == []
