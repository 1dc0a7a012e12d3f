"""Losses: what training makes small, each a function from `Training` to a module of logits and labels.

Logits are (batch, classes), labels (batch,) class numbers; the loss is their mean over the batch. All are computed in
float32 or better, whatever precision the network has.
"""

import torch
from torch import nn
from torch.nn import functional

from core.config.run import Training


def cross_entropy(training: Training) -> nn.Module:
    """Negative log likelihood of the label in nats, or with label smoothing the cross-entropy of smoothed labels."""
    return nn.CrossEntropyLoss(label_smoothing=training.label_smoothing)


def hinge(training: Training) -> nn.Module:
    """Multi-class hinge loss; it knows no label smoothing."""
    return Hinge()


def kullback_leibler(training: Training) -> nn.Module:
    """Divergence of the predicted classes from the labels; without label smoothing it is the cross-entropy."""
    return KullbackLeibler(training.label_smoothing)


class Hinge(nn.Module):
    """How far the label's logit is from leading every other by 1; 0 where it does.

    Source: Crammer and Singer, "On the Algorithmic Implementation of Multiclass Kernel-based Vector Machines", 2001,
    equation 5. It takes the strongest rival, as scikit-learn's ``hinge_loss`` and Keras' ``categorical_hinge`` do;
    torch's ``MultiMarginLoss`` averages over all rivals instead.
    """

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of logits (batch, classes) and labels (batch,)."""
        logits = _at_least_float32(logits)
        own = labels[:, None]
        rival = logits.scatter(1, own, -torch.inf).amax(dim=1)
        return (1 + rival - logits.gather(1, own)[:, 0]).clamp(min=0).mean()


class KullbackLeibler(nn.Module):
    """Kullback-Leibler divergence of the softmax of the logits from the labels, in nats.

    It is the cross-entropy less the entropy of the labels, which is 0 for one-hot labels and otherwise depends on
    nothing that is trained: the gradients are always those of the cross-entropy.

    Parameters
    ----------
    label_smoothing
        Share of a label, 0 to below 1, that is spread evenly over all classes.
    """

    def __init__(self, label_smoothing: float) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of logits (batch, classes) and labels (batch,)."""
        classes = logits.shape[1]
        wanted = functional.one_hot(labels, classes) * (1 - self.label_smoothing) + self.label_smoothing / classes
        log_probs = _at_least_float32(logits).log_softmax(
            1
        )  # not `functional.kl_div`, for which `torch.vmap` has no rule
        return (torch.xlogy(wanted, wanted) - wanted * log_probs).sum(1).mean()


def _at_least_float32(logits: torch.Tensor) -> torch.Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
