"""What a family of networks answers; a network is seen as the stages stem, block1 .. blockN and head.

Importing this or a family imports neither torch nor a library of networks: they are needed when one is made.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from core.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

Layout = dict[str, tuple[str, ...]]  # stage -> paths of the original model's modules, in the order of its forward
Shape = tuple[int, ...]  # of an input without the batch: (channels, height, width), or (features,)
Statistics = tuple[Sequence[float], Sequence[float]]

PICTURE, IMAGE, VECTOR, ANYTHING = "an image of 3 channels", "an image", "a vector", "anything"
SEQUENCE = "an image or a row of samples"
PICTURE_SHAPE: Shape = (3, 128, 128)  # where nobody says what the input is


class Family:
    """Networks of one kind; a subclass answers for those whose names it owns.

    Attributes
    ----------
    about
        What ``--backbone`` takes of this family, as part of a sentence.
    pattern
        How names look that cannot all be listed, such as ``timm:NAME``.
    checked
        Whether every network is tried when it is built: its stages must compute what the original model does. The
        others are as they were when the tests tried all of them.
    probe
        Shape of the inputs it is tried on; None is the run's own.
    """

    about: str = ""
    pattern: str = ""
    checked: bool = False
    probe: Shape | None = None

    def names(self) -> tuple[str, ...]:
        """Return the names that can be listed."""
        return ()

    def owns(self, name: str) -> bool:
        """Say whether `name` is one of the family's; a wrong ending of a `pattern` is told when it is looked at."""
        return name in self.names()

    def stages(self, name: str, input_shape: Shape) -> tuple[str, ...]:
        """Return the stages in order, ``("stem", "block1", .., "head")``, without weights where that can be."""
        raise NotImplementedError

    def make(self, name: str, *, num_classes: int, input_shape: Shape, dropout: float) -> "nn.Module":
        """Make the original model with random weights from torch's generator.

        Its classifier is made anew for `num_classes` afterwards, and the rate of its head's dropouts set, so both may
        be passed over here.
        """
        raise NotImplementedError

    def layout(self, model: "nn.Module", name: str) -> Layout:
        """Return the module paths of each stage of a model that `make` made; `Backbone` has more on them."""
        raise NotImplementedError

    def classifier(self, model: "nn.Module", name: str) -> str:
        """Return the path of the model's last linear layer, in its head."""
        return self.layout(model, name)["head"][-1]

    def takes(self, name: str) -> str:
        """Return `PICTURE`, `IMAGE`, `SEQUENCE`, `VECTOR` or `ANYTHING`."""
        return PICTURE

    def smallest(self, name: str) -> int:
        """Return the least height and width of an image, in pixels, that leaves something for every pooling."""
        return 1

    def statistics(self, model: "nn.Module", name: str, channels: int) -> Statistics:
        """Return mean and deviation per channel of what the weights expect, in units of 0 .. 1."""
        return (0.5,) * channels, (0.5,) * channels

    def has_imagenet(self, name: str) -> bool:
        """Say whether there are ImageNet weights to ask for."""
        return False

    def imagenet(self, name: str, keys: Sequence[str]) -> "dict[str, torch.Tensor]":
        """Read the ImageNet weights; `keys` are the original model's parameter names in order.

        Raises
        ------
        UserError
            If they cannot be had: a download fails (naming the address and the other choices), or there are none.
        """
        raise no_imagenet(name)

    def imagenet_digest(self, name: str) -> str:
        """Return, in hex, what stands for the content of its ImageNet weights without fetching them.

        It is part of a run's identity, so that another release of the weights is another run.
        """
        return ""

    def has_plain_head(self, name: str, input_shape: Shape) -> bool:
        """Say whether the classifier is all that the head learns; where that is not known, no."""
        return False

    def drops_out(self, name: str) -> bool:
        """Say whether `make` puts dropout between dense layers before the head, which then needs none of its own."""
        return False

    def file(self, name: str) -> str:
        """Return the file that a user's network is written in, or ``""``."""
        return ""

    def digest(self, name: str) -> str:
        """Return the SHA-256 of that file, part of a run's identity, or ``""``."""
        return ""

    def refusal(self, name: str, reason: str) -> UserError:
        """Make the error for a network that is no chain of stages, for a `reason`."""
        return UserError(f"{name}: {reason}")


def numbered(blocks: int) -> tuple[str, ...]:
    """Name the stages of a network of so many blocks."""
    return ("stem", *(f"block{k}" for k in range(1, blocks + 1)), "head")


def fits(takes: str, shape: Shape) -> bool:
    """Say whether an input of a shape can go where `takes` says what is taken."""
    kinds = {PICTURE: len(shape) == 3 and shape[0] == 3, IMAGE: len(shape) == 3, VECTOR: len(shape) == 1}
    return (kinds | {SEQUENCE: len(shape) in (2, 3)}).get(takes, True)


def shown(shape: Shape) -> str:
    """Write a shape for people, e.g. ``3 x 128 x 250``."""
    return " x ".join(map(str, shape))


def check_fit(family: Family, name: str, shape: Shape) -> None:
    """Refuse an input of a shape that a network does not take."""
    if not fits(family.takes(name), shape):
        raise UserError(f"{name} takes {family.takes(name)}, and the input is {shown(shape)}")
    smallest = family.smallest(name)
    if len(shape) == 3 and min(shape[1:]) < smallest:
        size = shown(shape)
        raise UserError(f"{name} does not take an input of {size}: height and width must be at least {smallest}")


def no_imagenet(name: str) -> UserError:
    """Make the error for a network that nobody trained on ImageNet."""
    return UserError(f"{name} has no ImageNet weights: use --weights random, or --weights FILE")
