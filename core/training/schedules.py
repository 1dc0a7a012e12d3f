"""Schedules: the learning rate of an epoch, from the configuration and the epochs before it alone.

Nothing is remembered between two epochs, so a run that was killed goes on with the rates it would have had.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from core.config.run import Training
from core.training import SCHEDULES
from core.training.stopping import monitored_values

History = Sequence[Mapping[str, Any]]


def compute_lr(training: Training, epoch: int, history: History = ()) -> float:
    """Return the learning rate of an epoch.

    Parameters
    ----------
    training
        Its schedule, and what that schedule looks at.
    epoch
        Counted from 0.
    history
        One row per epoch before it, as the trainer writes them; later rows are not looked at.
    """
    return float(SCHEDULES[training.schedule](training, epoch, history[:epoch]))


def constant(training: Training, epoch: int, history: History) -> float:
    """Keep the rate as it is."""
    return training.lr


def step(training: Training, epoch: int, history: History) -> float:
    """Multiply the rate by gamma at each milestone, or every step_size epochs."""
    if training.milestones:
        drops = sum(epoch >= milestone for milestone in training.milestones)
    else:
        drops = epoch // training.step_size
    return training.lr * training.gamma**drops


def cosine(training: Training, epoch: int, history: History) -> float:
    """Let the rate fall to 0 over the epochs (Loshchilov and Hutter 2017, equation 5, without restarts)."""
    return training.lr * 0.5 * (1 + math.cos(math.pi * epoch / training.epochs))


def plateau(training: Training, epoch: int, history: History) -> float:
    """Multiply the rate by gamma whenever drop_patience epochs in a row were no better than the best before them.

    After a drop the count starts anew; the best stays.
    """
    best, waited, drops = math.inf, 0, 0
    for value in monitored_values(training, history):
        waited = 0 if value < best else waited + 1
        best = min(best, value)
        if waited == training.drop_patience:
            waited, drops = 0, drops + 1
    return training.lr * training.gamma**drops
