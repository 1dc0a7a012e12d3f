"""What a network of the project says of itself, and what several of them are made of."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import nn

from core.errors import UserError
from core.models.family import IMAGE, Shape, shown


@dataclass(frozen=True)
class Network:
    """A network of the registry (`core.models.networks.NETWORKS`).

    Attributes
    ----------
    make
        Makes it, with random weights from torch's generator, from the number of classes and the shape of one input
        without the batch: a `torch.nn.Sequential` of ``stem``, ``block1`` .. ``blockN``, ``head``. The last linear
        layer of the head is its last module.
    blocks
        N.
    takes
        What its input may be: `core.models.family.PICTURE`, `IMAGE`, `SEQUENCE` or `VECTOR`.
    plain_head
        The classifier is all that the head learns.
    variant
        Of a network that comes in many, as ``NAME:VARIANT``: makes the one that a text names.
    """

    make: Callable[[int, Shape], nn.Sequential]
    blocks: int
    takes: str = IMAGE
    plain_head: bool = True
    variant: Callable[[str], Self] | None = None


def staged(stages: Sequence[nn.Module], head: nn.Module) -> nn.Sequential:
    """Name a network's stages: the first is the stem, the others are blocks."""
    blocks = {f"block{k}": stage for k, stage in enumerate(stages[1:], start=1)}
    return nn.Sequential(OrderedDict(stem=stages[0], **blocks, head=head))


def flat_width(name: str, features: nn.Module, input_shape: Shape) -> int:
    """Return how many numbers features (batch, ...) make of one input of a shape, by trying.

    Raises
    ------
    UserError
        For an input that is too small for them.
    """
    features.eval()
    try:
        with torch.no_grad():
            return features(torch.zeros(1, *input_shape)).numel()
    except RuntimeError as error:
        raise UserError(f"{name} does not take an input of {shown(input_shape)}: it is too small") from error
    finally:
        features.train()
