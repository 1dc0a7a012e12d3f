"""Early stopping.

A rule depends only on the configuration and the history. All rules use validation clips, never the test fold.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from core.config.run import Training
from core.training import STOPPING

History = Sequence[Mapping[str, Any]]


def find_stop_reason(training: Training, history: History) -> str:
    """Return why training ends after `history`.

    Returns
    -------
    Name of the first stopping rule that holds, ``epochs`` after the last epoch, or "" if training continues.
    """
    rules = (name for name in STOPPING if STOPPING[name](training, history))
    return next(rules, "epochs" if len(history) >= training.epochs else "")


def monitored_values(training: Training, history: History) -> list[float]:
    """Return the monitored validation metric of each epoch, with the sign that makes lower values better."""
    if training.monitor == "accuracy":
        return [-row["validation_accuracy"] for row in history]
    return [row["validation_loss"] for row in history]


def patience(training: Training, history: History) -> bool:
    """Return whether the last `patience` epochs brought no improvement; always False if `patience` is 0."""
    if not training.patience or len(history) <= training.patience:
        return False
    values = monitored_values(training, history)
    return min(values[-training.patience :]) >= min(values[: -training.patience])


def stop_at(training: Training, history: History) -> bool:
    """Return whether an epoch has reached the validation accuracy `stop_at`; always False if it is 0."""
    return bool(training.stop_at and any(row["validation_accuracy"] >= training.stop_at for row in history))
