"""The input of a run, made from its clip and frontend by the kind that it names."""

from typing import TYPE_CHECKING

from core.config import Clip, Frontend, Run
from core.inputs import KINDS

if TYPE_CHECKING:
    from core.inputs.kind import Kind  # imports torch

PICTURE_CHANNELS = 3  # red, green and blue, which networks trained on pictures take
STAND_INS = {"clip__sr": 16_000, "clip__duration": 1.5, "frontend__n_frames": 160}  # those of the embedded data set


def input_kind(clip: Clip, frontend: Frontend) -> "Kind":
    """Make what turns waveforms into inputs, for a clip and a frontend with every number filled in."""
    kind: Kind = KINDS[frontend.kind](clip=clip, frontend=frontend)
    return kind


def input_shape(run: Run) -> tuple[int, ...]:
    """Return the shape of one input of a run's network, before any clip is read: an image's or a vector's.

    An image of one channel is kept as one, and the first step of the network makes the three of a picture of it. What
    the data set decides and has not been filled in is taken as in `STAND_INS`.
    """
    sizes = {"clip__sr": run.clip.sr, "clip__duration": run.clip.duration, "frontend__n_frames": run.frontend.n_frames}
    run = run.replace(**{name: value or STAND_INS[name] for name, value in sizes.items()})
    shape = input_kind(run.clip, run.frontend).shape
    return (PICTURE_CHANNELS, *shape[1:]) if len(shape) == 3 and shape[0] == 1 else shape
