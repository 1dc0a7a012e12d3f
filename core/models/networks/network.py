"""What a network of the project says of itself."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from core.models.family import IMAGE, Shape


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
        What its input may be: `core.models.family.PICTURE`, `IMAGE` or `VECTOR`.
    plain_head
        The classifier is all that the head learns.
    """

    make: Callable[[int, Shape], nn.Sequential]
    blocks: int
    takes: str = IMAGE
    plain_head: bool = True
