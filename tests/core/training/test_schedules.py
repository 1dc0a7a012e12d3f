import numpy as np
import pytest
import torch

from core.config.run import Training
from core.training.schedules import compute_lr


@pytest.mark.parametrize("schedule", ["step", "cosine"])
def test_schedule_matches_torch(schedule: str) -> None:
    training = Training(lr=0.1, schedule=schedule, milestones=(2, 5), gamma=0.5, epochs=8)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    step = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 5], gamma=0.5)
    scheduler = step if schedule == "step" else torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=8)
    for epoch in range(8):
        assert compute_lr(training, epoch) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("monitor", ["loss", "accuracy"])
@pytest.mark.parametrize("drop_patience", [1, 4])
@pytest.mark.parametrize("seed", range(2))
def test_plateau_schedule_matches_torch(monitor: str, drop_patience: int, seed: int) -> None:
    training = Training(lr=0.1, schedule="plateau", drop_patience=drop_patience, gamma=0.5, monitor=monitor)
    history = random_history(seed, 40)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer,
        mode="min" if monitor == "loss" else "max",
        factor=0.5,
        patience=drop_patience - 1,  # torch counts one epoch more
        threshold=0.0,
        eps=0.0,
    )
    drops = set()
    for epoch in range(len(history) + 1):
        assert compute_lr(training, epoch, history) == pytest.approx(optimizer.param_groups[0]["lr"])
        drops.add(compute_lr(training, epoch, history))
        if epoch < len(history):
            optimizer.step()
            scheduler.step(history[epoch][f"validation_{monitor}"])
    assert len(drops) > 2


def random_history(seed: int, epochs: int) -> list[dict[str, float]]:
    """Return a history that improves and then deteriorates, with noise and ties."""
    rng = np.random.default_rng(seed)
    curve = np.abs(np.linspace(-1, 1, epochs)) + rng.normal(0, 0.3, epochs)
    return [{"validation_loss": round(float(v), 1), "validation_accuracy": round(float(-v), 1)} for v in curve]
