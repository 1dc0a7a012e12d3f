"""Auxiliary classifiers (Szegedy et al. 2014): heads inside a network whose loss is added during training."""

import torch
from torch import nn


class AuxiliaryHead(nn.Module):
    """Pass the input through unchanged; in training mode, also compute and keep the logits of an auxiliary head.

    The head is part of the block that contains it: both are frozen, fused and cut together. In evaluation mode the
    head is not computed.

    Parameters
    ----------
    head
        Module that maps the input to logits (batch, num_classes); its last linear layer is named ``classifier``.
    weight
        Weight of the loss of the auxiliary head.
    """

    def __init__(self, head: nn.Sequential, weight: float) -> None:
        super().__init__()
        self.head = head
        self.weight = weight
        self._logits: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x`."""
        if self.training and torch.is_grad_enabled():
            self._logits = self.head(x)
        return x

    def pop_logits(self) -> torch.Tensor | None:
        """Return and forget the logits of the last batch; None if there are none or they need no gradient."""
        logits, self._logits = self._logits, None
        return logits if logits is not None and logits.requires_grad else None


def find_auxiliary_heads(network: nn.Module) -> dict[str, AuxiliaryHead]:
    """Return the auxiliary heads of a network by module path."""
    return {name: m for name, m in network.named_modules() if isinstance(m, AuxiliaryHead)}
