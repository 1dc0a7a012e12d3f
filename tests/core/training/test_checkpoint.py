from pathlib import Path

import pytest
import torch
from torch import nn

from core.training import checkpoint


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


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
