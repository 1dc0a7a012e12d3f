"""Optimizers: each a function from the trained parameters and `Training`, which has its lr and weight decay."""

from collections.abc import Iterable
from typing import Any

import torch

from core.config.run import Training
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
    return torch.optim.Adam(
        parameters, lr=training.lr, weight_decay=training.weight_decay, **_kernel_options(parameters)
    )


def adamw(parameters: Parameters, training: Training) -> torch.optim.Optimizer:
    """Adam with weight decay of its own, away from the gradient (Loshchilov and Hutter 2019)."""
    return torch.optim.AdamW(
        parameters, lr=training.lr, weight_decay=training.weight_decay, **_kernel_options(parameters)
    )


def sgd(parameters: Parameters, training: Training) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum."""
    rate: dict[str, Any] = {"lr": training.lr, "momentum": training.momentum, "weight_decay": training.weight_decay}
    return torch.optim.SGD(parameters, **rate, **(_kernel_options(parameters) if _is_on_gpu(parameters) else {}))


def _is_on_gpu(parameters: Parameters) -> bool:
    """Tell whether any of the parameters is on a GPU."""
    return any(p.device.type == "cuda" for p in parameters)


def _kernel_options(parameters: Parameters) -> dict[str, Any]:
    """Choose how a step is computed: on a GPU by one kernel for all parameters, where launches are what takes time."""
    return {"fused": True} if _is_on_gpu(parameters) else {"foreach": True}
