"""Auxiliary classifiers: heads on the way through a network whose loss is added in training."""

import torch
from torch import nn


class Auxiliary(nn.Module):
    """Let an input through unchanged and, in training, keep a head's logits for it.

    It is a part of the block it hangs on: it is frozen, fused and cut with it, and in evaluation it does nothing.

    Parameters
    ----------
    head
        From the input to logits (batch, classes); its last linear layer is called ``classifier``.
    weight
        Of its loss beside the network's own.
    """

    def __init__(self, head: nn.Sequential, weight: float) -> None:
        super().__init__()
        self.head = head
        self.weight = weight
        self._kept: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x`."""
        if self.training and torch.is_grad_enabled():
            self._kept = self.head(x)
        return x

    def taken(self) -> torch.Tensor | None:
        """Return the logits of the last batch, once; None where there are none, or nothing of them is trained."""
        kept, self._kept = self._kept, None
        return kept if kept is not None and kept.requires_grad else None


def auxiliaries(network: nn.Module) -> dict[str, Auxiliary]:
    """Return the auxiliary classifiers of a network by their paths in it."""
    return {name: m for name, m in network.named_modules() if isinstance(m, Auxiliary)}
