"""Optimizers: functions of the trained parameters and of `Training` (learning rate, weight decay)."""

from collections.abc import Iterable
from typing import Any

import torch

from core.config.run import Training
from core.training import OPTIMIZERS

Parameters = list[torch.nn.Parameter]


def make_optimizer(parameters: Iterable[torch.nn.Parameter], training: Training) -> torch.optim.Optimizer:
    """Make the optimizer of a run. Frozen parameters are left out, so weight decay cannot change them."""
    optimizer: torch.optim.Optimizer = OPTIMIZERS[training.optimizer](
        [p for p in parameters if p.requires_grad], training
    )
    return optimizer


def adam(parameters: Parameters, training: Training) -> torch.optim.Optimizer:
    """Return Adam (Kingma and Ba 2015), with weight decay added to the gradient."""
    return torch.optim.Adam(
        parameters, lr=training.lr, weight_decay=training.weight_decay, **_kernel_options(parameters)
    )


def adamw(parameters: Parameters, training: Training) -> torch.optim.Optimizer:
    """Return AdamW: Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""
    return torch.optim.AdamW(
        parameters, lr=training.lr, weight_decay=training.weight_decay, **_kernel_options(parameters)
    )


def sgd(parameters: Parameters, training: Training) -> torch.optim.Optimizer:
    """Return stochastic gradient descent with momentum."""
    rate: dict[str, Any] = {"lr": training.lr, "momentum": training.momentum, "weight_decay": training.weight_decay}
    return torch.optim.SGD(parameters, **rate, **(_kernel_options(parameters) if _is_on_gpu(parameters) else {}))


def _is_on_gpu(parameters: Parameters) -> bool:
    """Return whether any of the parameters is on a GPU."""
    return any(p.device.type == "cuda" for p in parameters)


def _kernel_options(parameters: Parameters) -> dict[str, Any]:
    """Return the options of the fastest implementation; on a GPU a fused kernel, because launching kernels is slow."""
    return {"fused": True} if _is_on_gpu(parameters) else {"foreach": True}
