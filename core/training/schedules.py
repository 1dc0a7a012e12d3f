"""Optimizers, and the learning rate as a function of the epoch alone, so that a resumed run needs no memory of it."""

import math
from collections.abc import Iterable

import torch

from core.config import Training


def make_optimizer(parameters: Iterable[torch.nn.Parameter], training: Training) -> torch.optim.Optimizer:
    """Make the optimizer over the parameters that are trained.

    Parameters
    ----------
    parameters
        Frozen ones are left out, so that weight decay cannot move them.
    training
        Its optimizer, lr, momentum and weight_decay.
    """
    trained = [p for p in parameters if p.requires_grad]
    if training.optimizer == "sgd":
        return torch.optim.SGD(trained, lr=training.lr, momentum=training.momentum, weight_decay=training.weight_decay)
    kind = torch.optim.AdamW if training.optimizer == "adamw" else torch.optim.Adam
    return kind(trained, lr=training.lr, weight_decay=training.weight_decay, foreach=True)


def lr_at(training: Training, epoch: int) -> float:
    """Return the learning rate of an epoch, counted from 0.

    ``step`` multiplies by gamma at each milestone, or every step_size epochs; ``cosine`` falls to 0 over the epochs
    (Loshchilov and Hutter 2017, equation 5, without restarts).
    """
    if training.schedule == "cosine":
        return training.lr * 0.5 * (1 + math.cos(math.pi * epoch / training.epochs))
    if training.schedule == "step":
        if training.milestones:
            drops = sum(epoch >= milestone for milestone in training.milestones)
        else:
            drops = epoch // training.step_size
        return training.lr * training.gamma**drops
    return training.lr
