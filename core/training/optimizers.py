"""Optimizers: each a function from the trained parameters and `Training`, which has its lr and weight decay."""

from collections.abc import Iterable

import torch

from core.config import Training
from core.training import OPTIMIZERS

Parameters = list[torch.nn.Parameter]


def make_optimizer(parameters: Iterable[torch.nn.Parameter], training: Training) -> torch.optim.Optimizer:
    """Make the optimizer over the parameters that are trained; frozen ones are left out, so that none can move."""
    optimizer: torch.optim.Optimizer = OPTIMIZERS[training.optimizer](
        [p for p in parameters if p.requires_grad], training
    )
    return optimizer


def adam(parameters: Parameters, training: Training) -> torch.optim.Optimizer:
    """Adam (Kingma and Ba 2015); weight decay is added to the gradient."""
    return torch.optim.Adam(parameters, lr=training.lr, weight_decay=training.weight_decay, foreach=True)


def adamw(parameters: Parameters, training: Training) -> torch.optim.Optimizer:
    """Adam with weight decay of its own, away from the gradient (Loshchilov and Hutter 2019)."""
    return torch.optim.AdamW(parameters, lr=training.lr, weight_decay=training.weight_decay, foreach=True)


def sgd(parameters: Parameters, training: Training) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum."""
    return torch.optim.SGD(parameters, lr=training.lr, momentum=training.momentum, weight_decay=training.weight_decay)
