import pytest
import torch

from core.config import Training
from core.training.schedules import lr_at, make_optimizer


def test_lr_step_divides_every_thirty_epochs() -> None:
    paper = Training(lr=1e-4, schedule="step", step_size=30, gamma=0.1, epochs=70)
    assert [lr_at(paper, e) for e in (0, 29, 30, 59, 60)] == pytest.approx([1e-4, 1e-4, 1e-5, 1e-5, 1e-6])


def test_lr_milestones_match_torch() -> None:
    training = Training(lr=0.1, schedule="step", milestones=(2, 5), gamma=0.5, epochs=8)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 5], gamma=0.5)
    for epoch in range(8):
        assert lr_at(training, epoch) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()


def test_lr_cosine_matches_torch() -> None:
    training = Training(lr=0.1, schedule="cosine", epochs=7)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=7)
    for epoch in range(7):
        assert lr_at(training, epoch) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(("name", "kind"), [("adam", "Adam"), ("adamw", "AdamW"), ("sgd", "SGD")])
def test_make_optimizer_leaves_frozen_parameters_out(name: str, kind: str) -> None:
    frozen, trained = torch.nn.Parameter(torch.ones(2), requires_grad=False), torch.nn.Parameter(torch.ones(3))
    optimizer = make_optimizer([frozen, trained], Training(optimizer=name, weight_decay=0.01))
    assert type(optimizer).__name__ == kind
    assert [p.shape for group in optimizer.param_groups for p in group["params"]] == [(3,)]
    assert optimizer.param_groups[0]["weight_decay"] == 0.01
