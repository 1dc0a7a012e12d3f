import pytest
import torch

from core.config.run import Training
from core.training.optimizers import make_optimizer


@pytest.mark.parametrize(("name", "kind"), [("adam", "Adam"), ("adamw", "AdamW"), ("sgd", "SGD")])
def test_make_optimizer_excludes_frozen_parameters(name: str, kind: str) -> None:
    frozen, trained = torch.nn.Parameter(torch.ones(2), requires_grad=False), torch.nn.Parameter(torch.ones(3))
    optimizer = make_optimizer([frozen, trained], Training(optimizer=name, weight_decay=0.01))
    assert type(optimizer).__name__ == kind
    assert [p.shape for group in optimizer.param_groups for p in group["params"]] == [(3,)]
    assert optimizer.param_groups[0]["weight_decay"] == 0.01
