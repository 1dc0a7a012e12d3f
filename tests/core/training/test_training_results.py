"""TensorBoard curves of a run."""

from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from core.training.results import open_tensorboard


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return steps and values of each curve, as displayed by TensorBoard."""
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def row(epoch: int, loss: float) -> dict[str, Any]:
    return {"epoch": epoch, "lr": 1e-3, "train_loss": loss}


def test_tensorboard_curves_equal_history(tmp_path: Path) -> None:
    with open_tensorboard(tmp_path, purge_from=0) as write:
        write(row(1, 3.0), row(2, 2.0))
        assert curves(tmp_path)["train_loss"] == [(1, 3.0), (2, 2.0)]  # without buffering
        write(row(3, 9.0))
    assert curves(tmp_path).keys() == {"lr", "train_loss"}
    assert curves(tmp_path)["lr"] == [(epoch, pytest.approx(1e-3)) for epoch in (1, 2, 3)]


def test_tensorboard_hides_events_after_checkpoint(tmp_path: Path) -> None:
    with open_tensorboard(tmp_path, purge_from=0) as write:
        write(row(1, 3.0), row(2, 2.0), row(3, 9.0))
    with open_tensorboard(tmp_path, purge_from=2) as write:
        write(row(3, 1.0), row(4, 0.5))
    assert curves(tmp_path)["train_loss"] == [(1, 3.0), (2, 2.0), (3, 1.0), (4, 0.5)]
