"""`Network`, the entry of a network in the registry, and helpers that several networks share."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import nn

from core.errors import UserError
from core.models.family import IMAGE, Shape, format_shape


@dataclass(frozen=True)
class Network:
    """A network in the registry `core.models.networks.NETWORKS`.

    Attributes
    ----------
    make
        Function of the number of classes and the input shape (without batch axis). It returns a `torch.nn.Sequential`
        of ``stem``, ``block1`` .. ``blockN``, ``head`` with random weights, or a module with these `stages` as an
        attribute; the last module of the head is a linear layer.
    blocks
        Number of blocks N.
    input_kind
        Kind of input: `core.models.family.RGB_IMAGE`, `IMAGE`, `SEQUENCE` or `VECTOR`.
    plain_head
        Whether the classifier is the only trainable layer of the head.
    in_decibels
        Whether the network was trained on log-mel spectrograms in decibels, which it normalises itself.
    variant
        For networks named ``NAME:VARIANT``: function that returns the `Network` of a variant.
    """

    make: Callable[[int, Shape], nn.Module]
    blocks: int
    input_kind: str = IMAGE
    plain_head: bool = True
    in_decibels: bool = False
    variant: Callable[[str], Self] | None = None


def assemble_stages(stages: Sequence[nn.Module], head: nn.Module) -> nn.Sequential:
    """Return a network of named stages: the first is the stem, the others are blocks, then the head."""
    blocks = {f"block{k}": stage for k, stage in enumerate(stages[1:], start=1)}
    return nn.Sequential(OrderedDict(stem=stages[0], **blocks, head=head))


def count_features(name: str, features: nn.Module, input_shape: Shape) -> int:
    """Return the number of features that a module computes from one input, by a trial forward pass.

    Raises
    ------
    UserError
        If the input is too small.
    """
    features.eval()
    try:
        with torch.no_grad():
            return features(torch.zeros(1, *input_shape)).numel()
    except RuntimeError as error:
        raise UserError(f"{name} does not take an input of {format_shape(input_shape)}: it is too small") from error
    finally:
        features.train()
