"""Losses: functions of `Training` that return a module of logits and labels.

Logits have the shape (batch, classes); labels are class numbers of shape (batch,). A loss is the mean over the batch.
It is computed in at least float32, also if the network runs in a lower precision.
"""

import torch
from torch import nn
from torch.nn import functional

from core.config.run import Training


def cross_entropy(training: Training) -> nn.Module:
    """Return the cross-entropy in nats, with label smoothing if it is set."""
    return nn.CrossEntropyLoss(label_smoothing=training.label_smoothing)


def hinge(training: Training) -> nn.Module:
    """Return the multi-class hinge loss; it does not support label smoothing."""
    return Hinge()


def kullback_leibler(training: Training) -> nn.Module:
    """Return the Kullback-Leibler divergence; without label smoothing it equals the cross-entropy."""
    return KullbackLeibler(training.label_smoothing)


class Hinge(nn.Module):
    """Multi-class hinge loss with margin 1: ``max(0, 1 + largest other logit - logit of the label)``.

    Source: Crammer and Singer, "On the Algorithmic Implementation of Multiclass Kernel-based Vector Machines", 2001,
    equation 5. Like ``hinge_loss`` of scikit-learn and ``categorical_hinge`` of Keras, it uses the largest other logit;
    ``MultiMarginLoss`` of torch averages over all other logits instead.
    """

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of logits (batch, classes) and labels (batch,)."""
        logits = _at_least_float32(logits)
        index = labels[:, None]
        largest_other = logits.scatter(1, index, -torch.inf).amax(dim=1)
        return (1 + largest_other - logits.gather(1, index)[:, 0]).clamp(min=0).mean()


class KullbackLeibler(nn.Module):
    """Kullback-Leibler divergence of the softmax of the logits from the labels, in nats.

    It equals the cross-entropy minus the entropy of the labels. That entropy is 0 for one-hot labels and constant
    otherwise, so the gradients are those of the cross-entropy.

    Parameters
    ----------
    label_smoothing
        Fraction of the label, from 0 to below 1, that is distributed evenly over all classes.
    """

    def __init__(self, label_smoothing: float) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of logits (batch, classes) and labels (batch,)."""
        classes = logits.shape[1]
        target = functional.one_hot(labels, classes) * (1 - self.label_smoothing) + self.label_smoothing / classes
        log_probs = _at_least_float32(logits).log_softmax(1)  # `functional.kl_div` has no rule for `torch.vmap`
        return (torch.xlogy(target, target) - target * log_probs).sum(1).mean()


def _at_least_float32(logits: torch.Tensor) -> torch.Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
