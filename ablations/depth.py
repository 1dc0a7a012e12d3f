"""Depths of a backbone, as the ablations that walk through its blocks name them."""

from collections.abc import Sequence

from core.stages import parse_stage, stage_names


def stages(blocks: Sequence[str], backbone: str) -> list[str]:
    """Return the stages named by ``--block`` in the order of the network; all but the head where none is named.

    Raises
    ------
    UserError
        For a block that the backbone does not have.
    """
    order = [stage for stage in stage_names(backbone) if stage != "head"]
    named = {parse_stage(block, backbone) for block in blocks}
    return [stage for stage in order if not blocks or stage in named]
