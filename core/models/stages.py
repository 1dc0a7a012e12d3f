"""Stage names of a backbone: listed, counted and parsed without building the network."""

import re
from collections.abc import Sequence

from core.errors import UserError, unknown_name_error
from core.models import find_family
from core.models.family import DEFAULT_SHAPE, Shape, name_stages


def list_stages(name: str, input_shape: Shape = DEFAULT_SHAPE) -> tuple[str, ...]:
    """Return the stage names of a backbone in order, ``("stem", "block1", .., "head")``, without building its weights.

    Parameters
    ----------
    name
        Name of the backbone.
    input_shape
        Shape of one input without the batch axis; only a user's own network may depend on it.

    Raises
    ------
    UserError
        For an unknown backbone, and a network that cannot be cut into blocks.
    """
    return find_family(name).stages(name, input_shape)


def count_blocks(name: str, input_shape: Shape = DEFAULT_SHAPE) -> int:
    """Return the number of blocks of a backbone, without stem and head."""
    return len(list_stages(name, input_shape)) - 2


def parse_stage(text: str, name: str, input_shape: Shape = DEFAULT_SHAPE) -> str:
    """Parse a stage of backbone `name` as typed by a user.

    Parameters
    ----------
    text
        ``none``, ``all``, ``stem`` or ``0``, ``block3`` or ``3``, or ``last`` (the last block).

    Returns
    -------
    str
        ``"none"``, ``"all"``, ``"stem"`` or ``"block3"``.

    Raises
    ------
    UserError
        For any other text, and for a block that the backbone does not have.
    """
    value = text.strip().lower()
    blocks = count_blocks(name, input_shape)
    number = re.fullmatch(r"(?:block)?([0-9]{1,9})", value)
    if number is None:
        if value == "last":
            return name_stages(blocks)[-2]
        choices = ("none", *name_stages(blocks)[:-1], "last", "all")
        if value not in choices:
            raise unknown_name_error("stage", text, choices)
        return value
    if int(number[1]) > blocks:
        raise UserError(f"block {int(number[1])}: {name} has stem and blocks 1 to {blocks}")
    return f"block{int(number[1])}" if int(number[1]) else "stem"


def select_stages(texts: Sequence[str], name: str, input_shape: Shape = DEFAULT_SHAPE) -> list[str]:
    """Return the stages named by `texts` in the order of the network; without texts, every stage but the head.

    Raises
    ------
    UserError
        For a block that the backbone does not have, and for ``all``.
    """
    named = {parse_stage(text, name, input_shape) for text in texts}
    stages = list_stages(name, input_shape)
    if "all" in named:
        raise unknown_name_error("stage", "all", ("none", *stages[:-1]))
    return [stage for stage in stages if stage != "head" and (not texts or stage in named)]


def has_plain_head(name: str, input_shape: Shape = DEFAULT_SHAPE, head: str = "") -> bool:
    """Return whether the classifier is the only trainable layer of the head; False if unknown."""
    return not head and find_family(name).has_plain_head(name, input_shape)
