"""Stopping rules: when training ends before its last epoch, from the configuration and the history alone.

All look at validation clips, never at the test fold.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from core.config.run import Training
from core.training import STOPPING

History = Sequence[Mapping[str, Any]]


def find_stop_reason(training: Training, history: History) -> str:
    """Tell what ends training after the epochs of `history`.

    Returns
    -------
    The name of the first stopping rule that holds, ``epochs`` after the last epoch, or "" where training goes on.
    """
    rules = (name for name in STOPPING if STOPPING[name](training, history))
    return next(rules, "epochs" if len(history) >= training.epochs else "")


def monitored_values(training: Training, history: History) -> list[float]:
    """Return what ``monitor`` names, one value per epoch, turned so that lower is better."""
    if training.monitor == "accuracy":
        return [-row["validation_accuracy"] for row in history]
    return [row["validation_loss"] for row in history]


def patience(training: Training, history: History) -> bool:
    """Hold once the best of the last `patience` epochs is no better than the best before them; 0 never does."""
    if not training.patience or len(history) <= training.patience:
        return False
    values = monitored_values(training, history)
    return min(values[-training.patience :]) >= min(values[: -training.patience])


def stop_at(training: Training, history: History) -> bool:
    """Hold once the validation accuracy has been `stop_at` or higher; 0 never does."""
    return bool(training.stop_at and any(row["validation_accuracy"] >= training.stop_at for row in history))
