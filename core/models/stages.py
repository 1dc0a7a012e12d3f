"""The stages of a backbone, by name: read, counted and named before a network is built."""

import re
from collections.abc import Sequence

from core.errors import UserError, unknown
from core.models import family_of
from core.models.family import PICTURE_SHAPE, Shape, numbered


def stage_names(name: str, input_shape: Shape = PICTURE_SHAPE) -> tuple[str, ...]:
    """Return the stages of a backbone in order, ``("stem", "block1", .., "head")``, without building its weights.

    Parameters
    ----------
    name
        The backbone.
    input_shape
        Of one input, without the batch; a user's own network may depend on it.

    Raises
    ------
    UserError
        For an unknown backbone, and a network that cannot be cut into blocks.
    """
    return family_of(name).stages(name, input_shape)


def block_count(name: str, input_shape: Shape = PICTURE_SHAPE) -> int:
    """Return the number of blocks of a backbone, the stem and the head not counted."""
    return len(stage_names(name, input_shape)) - 2


def parse_stage(text: str, name: str, input_shape: Shape = PICTURE_SHAPE) -> str:
    """Read a depth of backbone `name` as a user writes it.

    Parameters
    ----------
    text
        ``none``, ``all``, ``stem`` or ``0``, ``block3`` or ``3``, or ``last``: the last before the head.

    Returns
    -------
    str
        ``"none"``, ``"all"``, ``"stem"`` or ``"block3"``.

    Raises
    ------
    UserError
        For anything else, and for a block deeper than the backbone.
    """
    value = text.strip().lower()
    blocks = block_count(name, input_shape)
    number = re.fullmatch(r"(?:block)?([0-9]{1,9})", value)
    if number is None:
        if value == "last":
            return numbered(blocks)[-2]
        choices = ("none", *numbered(blocks)[:-1], "last", "all")
        if value not in choices:
            raise unknown("stage", text, choices)
        return value
    if int(number[1]) > blocks:
        raise UserError(f"block {int(number[1])}: {name} has stem and blocks 1 to {blocks}")
    return f"block{int(number[1])}" if int(number[1]) else "stem"


def stages_named(texts: Sequence[str], name: str, input_shape: Shape = PICTURE_SHAPE) -> list[str]:
    """Return the stages that `texts` name, in the order of the network, or all but the head where there are none.

    Raises
    ------
    UserError
        For a block that backbone `name` does not have, and for ``all``, which leaves nothing over.
    """
    named = {parse_stage(text, name, input_shape) for text in texts}
    stages = stage_names(name, input_shape)
    if "all" in named:
        raise unknown("stage", "all", ("none", *stages[:-1]))
    return [stage for stage in stages if stage != "head" and (not texts or stage in named)]


def has_plain_head(name: str, input_shape: Shape = PICTURE_SHAPE, head: str = "") -> bool:
    """Say whether the classifier is all that a backbone's `head` learns; no where that is not known."""
    return not head and family_of(name).has_plain_head(name, input_shape)
