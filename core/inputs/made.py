"""The input of a run, made from its clip and frontend by the kind that it names."""

from typing import TYPE_CHECKING

from core.config import Clip, Frontend, Run
from core.inputs import KINDS

if TYPE_CHECKING:
    from core.inputs.kind import Kind  # imports torch


def input_kind(clip: Clip, frontend: Frontend) -> "Kind":
    """Make what turns waveforms into inputs, for a clip and a frontend with every number filled in."""
    kind: Kind = KINDS[frontend.kind](clip=clip, frontend=frontend)
    return kind


def input_shape(run: Run) -> tuple[int, ...]:
    """Return the shape of one input of a run's network, before any clip is read: an image's or a vector's."""
    return input_kind(run.clip, run.frontend).shape
