"""Base class of the network families: how a network of a family is built, divided into stages and given weights.

Importing this module or a family imports neither torch nor a model library; both are imported when a network is built.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from core.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

Layout = dict[str, tuple[str, ...]]  # stage -> module paths in the original model, in forward order
Shape = tuple[int, ...]  # shape of one input without the batch axis: (channels, height, width) or (features,)
Statistics = tuple[Sequence[float], Sequence[float]]

RGB_IMAGE, IMAGE, VECTOR, ANY_INPUT = "an image of 3 channels", "an image", "a vector", "anything"
SEQUENCE = "an image or a row of samples"
DEFAULT_SHAPE: Shape = (3, 128, 128)  # assumed where the input is not known yet


class Family:
    """A family of networks, such as those of torchvision; subclasses implement it.

    Attributes
    ----------
    about
        Names of this family as shown in the help of ``--backbone``.
    pattern
        Form of the names of a family with too many names to list, such as ``timm:NAME``.
    checked
        Whether each network is checked when it is built: its stages in order must compute what the original model
        computes. Networks of other families are checked by the tests only.
    plans_check
        Whether a plan builds each network once, so that a network without stages is refused before it is trained.
    """

    about: str = ""
    pattern: str = ""
    checked: bool = False
    plans_check: bool = False

    def names(self) -> tuple[str, ...]:
        """Return the names of the family that can be listed."""
        return ()

    def owns(self, name: str) -> bool:
        """Return whether `name` belongs to the family. NAME in ``timm:NAME`` is not checked here."""
        return name in self.names()

    def stages(self, name: str, input_shape: Shape) -> tuple[str, ...]:
        """Return the stage names in order, ``("stem", "block1", .., "head")``, without building weights if possible."""
        raise NotImplementedError

    def make(self, name: str, *, num_classes: int, input_shape: Shape, dropout: float | None) -> "nn.Module":
        """Build the original model with random weights from torch's global generator.

        `num_classes` and `dropout` may be ignored: `build_backbone` replaces the classifier and sets the dropout rates
        of the head. If `dropout` is None, the model has its original dropout rates.
        """
        raise NotImplementedError

    def layout(self, model: "nn.Module", name: str) -> Layout:
        """Return the module paths of each stage of a model built by `make`."""
        raise NotImplementedError

    def assemble(self, model: "nn.Module", name: str, layout: Layout) -> "dict[str, nn.Module] | None":
        """Return the module of each stage; None if each stage is the sequence of the modules in `layout`."""
        return None

    def probe_shape(self, model: "nn.Module", input_shape: Shape) -> Shape:
        """Return the shape of the inputs with which the stages of a network are checked."""
        return input_shape

    def adapt_weights(self, state: "dict[str, torch.Tensor]", stem: "nn.Module") -> "dict[str, torch.Tensor]":
        """Return starting weights that fit the input size of a network, given its stem."""
        return state

    def classifier(self, model: "nn.Module", name: str) -> str:
        """Return the module path of the last linear layer, which lies in the head."""
        return self.layout(model, name)["head"][-1]

    def input_kind(self, name: str) -> str:
        """Return the kind of input: `RGB_IMAGE`, `IMAGE`, `SEQUENCE`, `VECTOR` or `ANY_INPUT`."""
        return RGB_IMAGE

    def min_size(self, name: str) -> int:
        """Return the minimum height and width of an image in pixels; smaller ones vanish in the poolings."""
        return 1

    def statistics(self, model: "nn.Module", name: str, channels: int) -> Statistics:
        """Return mean and standard deviation per channel of the pretraining images, whose values are 0 .. 1."""
        return (0.5,) * channels, (0.5,) * channels

    def has_imagenet_weights(self, name: str) -> bool:
        """Return whether the network has ImageNet weights."""
        return False

    def imagenet(self, name: str, keys: Sequence[str]) -> "dict[str, torch.Tensor]":
        """Load the ImageNet weights, downloading them if necessary.

        Parameters
        ----------
        name
            The backbone.
        keys
            Parameter names of the original model, in order.

        Raises
        ------
        UserError
            If the download fails (the message names the address and the alternatives) or there are no weights.
        """
        raise no_imagenet_error(name)

    def compute_imagenet_digest(self, name: str) -> str:
        """Return a hex digest that identifies the ImageNet weights without downloading them.

        It is part of the run id, so a new release of the weights gives a new run.
        """
        return ""

    def has_plain_head(self, name: str, input_shape: Shape) -> bool:
        """Return whether the classifier is the only trainable layer of the head; False if unknown."""
        return False

    def has_own_dropout(self, name: str) -> bool:
        """Return whether the network has dropout between dense layers before the head; then the head gets none."""
        return False

    def file(self, name: str) -> str:
        """Return the Python file of a user's network, or ``""``."""
        return ""

    def digest(self, name: str) -> str:
        """Return the SHA-256 of that file, which is part of the run id, or ``""``."""
        return ""

    def not_supported(self, name: str, reason: str) -> UserError:
        """Return the error for a network that cannot be divided into stages."""
        return UserError(f"{name}: {reason}")


def name_stages(blocks: int) -> tuple[str, ...]:
    """Return the stage names of a network with `blocks` blocks."""
    return ("stem", *(f"block{k}" for k in range(1, blocks + 1)), "head")


def accepts_shape(input_kind: str, shape: Shape) -> bool:
    """Return whether a network of an input kind accepts inputs of a shape."""
    kinds = {RGB_IMAGE: len(shape) == 3 and shape[0] == 3, IMAGE: len(shape) == 3, VECTOR: len(shape) == 1}
    return (kinds | {SEQUENCE: len(shape) in (2, 3)}).get(input_kind, True)


def format_shape(shape: Shape) -> str:
    """Format a shape, e.g. ``3 x 128 x 250``."""
    return " x ".join(map(str, shape))


def check_input_shape(family: Family, name: str, shape: Shape) -> None:
    """Raise UserError if a network does not accept inputs of a shape."""
    if not accepts_shape(family.input_kind(name), shape):
        raise UserError(f"{name} takes {family.input_kind(name)}, but the input is {format_shape(shape)}")
    min_size = family.min_size(name)
    if len(shape) == 3 and min(shape[1:]) < min_size:
        size = format_shape(shape)
        raise UserError(f"{name} does not take an input of {size}: height and width must be at least {min_size}")


def no_imagenet_error(name: str) -> UserError:
    """Return the error for a network without ImageNet weights."""
    return UserError(f"{name} has no ImageNet weights: use --weights random, or --weights FILE")
