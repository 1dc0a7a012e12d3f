"""The input of a run, made from its clip and frontend by the kind that it names."""

from typing import TYPE_CHECKING

from core.config import Clip, Frontend, Run
from core.inputs import KINDS

if TYPE_CHECKING:
    from core.inputs.kind import Kind  # imports torch

PICTURE_CHANNELS = 3  # red, green and blue, which networks trained on pictures take


def input_kind(clip: Clip, frontend: Frontend) -> "Kind":
    """Make what turns waveforms into inputs, for a clip and a frontend with every number filled in."""
    kind: Kind = KINDS[frontend.kind](clip=clip, frontend=frontend)
    return kind


def input_shape(run: Run) -> tuple[int, ...]:
    """Return the shape of one input of a run's network, before any clip is read: an image's or a vector's.

    An image of one channel is kept as one, and the first step of the network makes the three of a picture of it.
    """
    shape = input_kind(run.clip, run.frontend).shape
    return (PICTURE_CHANNELS, *shape[1:]) if len(shape) == 3 and shape[0] == 1 else shape
