"""Learning rate schedules.

A schedule depends only on the configuration and on the history, so a resumed run has the rates of an uninterrupted one.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from core.config.run import Training
from core.training import SCHEDULES
from core.training.early_stopping import monitored_values

History = Sequence[Mapping[str, Any]]


def compute_lr(training: Training, epoch: int, history: History = ()) -> float:
    """Return the learning rate of an epoch.

    Parameters
    ----------
    training
        Training options; `schedule` and the options of this schedule are used.
    epoch
        Epoch from 0.
    history
        One row per epoch, as written by the trainer; only rows before `epoch` are used.
    """
    return float(SCHEDULES[training.schedule](training, epoch, history[:epoch]))


def constant(training: Training, epoch: int, history: History) -> float:
    """Return a constant learning rate."""
    return training.lr


def step(training: Training, epoch: int, history: History) -> float:
    """Multiply the rate by `gamma` at each of the `milestones`, or every `step_size` epochs."""
    if training.milestones:
        drops = sum(epoch >= milestone for milestone in training.milestones)
    else:
        drops = epoch // training.step_size
    return training.lr * training.gamma**drops


def cosine(training: Training, epoch: int, history: History) -> float:
    """Decrease the rate to 0 along a half cosine (Loshchilov and Hutter 2017, equation 5, without restarts)."""
    return training.lr * 0.5 * (1 + math.cos(math.pi * epoch / training.epochs))


def plateau(training: Training, epoch: int, history: History) -> float:
    """Multiply the rate by `gamma` after `drop_patience` epochs in a row without an improvement.

    After a drop the count restarts from 0, but the best value so far is kept.
    """
    best, waited, drops = math.inf, 0, 0
    for value in monitored_values(training, history):
        waited = 0 if value < best else waited + 1
        best = min(best, value)
        if waited == training.drop_patience:
            waited, drops = 0, drops + 1
    return training.lr * training.gamma**drops
