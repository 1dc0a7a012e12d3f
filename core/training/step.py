"""One training step: forward pass, backward pass and optimizer step on one batch."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from core.config.run import Training
from core.inference.precision import ComputeMode
from core.models.auxiliary import find_auxiliary_heads
from core.models.freeze_fuse_cut import avoid_inplace_copies
from core.training import LOSSES
from core.training.compilation import compile_network


class NonFiniteLoss(RuntimeError):
    """The loss or a logit became infinite or NaN."""


class TrainingStep:
    """Callable that trains a network on one batch.

    Parameters
    ----------
    network
        Network to train.
    optimizer
        Optimizer of its trained parameters.
    training
        Training options; `loss`, `clip_norm`, `precision` and `compile` are used.
    device
        Device of the network and of the batches.
    """

    def __init__(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, training: Training, device: torch.device
    ) -> None:
        avoid_inplace_copies(network)
        self.optimizer = optimizer
        self.criterion = LOSSES[training.loss](training)
        self.clip_norm = training.clip_norm
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.compute_mode = ComputeMode(training, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.compute_mode.dtype == torch.float16)
        self.auxiliaries = list(find_auxiliary_heads(network).values())
        self.forward = compile_network(network, device) if training.compile else network

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Train on inputs `x` (batch, ...) and labels `y` (batch,); return the loss and the logits, detached."""
        with self.compute_mode.autocast():
            logits = self.forward(x)
            loss = self.criterion(logits, y)
            for part in self.auxiliaries:
                if (side_logits := part.pop_logits()) is not None:
                    loss = loss + part.weight * self.criterion(side_logits, y)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if self.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach(), logits.detach()


def mean_loss(values: np.ndarray, sizes: Sequence[int], epoch: int) -> float:
    """Return the mean loss over the clips of an epoch.

    Parameters
    ----------
    values
        Mean loss of each batch, (batches,).
    sizes
        Number of clips in each batch.
    epoch
        Epoch from 0, for the message.

    Raises
    ------
    NonFiniteLoss
        If a loss is infinite or NaN; the message names the first such step.
    """
    if not np.isfinite(values).all():
        step = int(np.flatnonzero(~np.isfinite(values))[0]) + 1
        raise NonFiniteLoss(f"the loss was {values[step - 1]} at epoch {epoch + 1}, step {step}; try a lower --lr")
    return float(np.average(values, weights=sizes))
