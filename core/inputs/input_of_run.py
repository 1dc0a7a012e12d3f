"""The input of a run, made from its clip and frontend by the kind that it names."""

from functools import lru_cache
from typing import TYPE_CHECKING

from core.config.run import Clip, Frontend, Run
from core.errors import UserError
from core.inputs import KINDS

if TYPE_CHECKING:
    from core.inputs.base import Kind  # imports torch

PICTURE_CHANNELS = 3  # red, green and blue, which networks trained on pictures take
STAND_INS = {"clip__sr": 16_000, "clip__duration": 1.5, "frontend__n_frames": 160}  # those of the embedded data set


def input_kind(clip: Clip, frontend: Frontend) -> "Kind":
    """Make what turns waveforms into inputs, for a clip and a frontend with every number filled in."""
    kind: Kind = KINDS[frontend.kind](clip=clip, frontend=frontend)
    return kind


@lru_cache(maxsize=16)
def _looked_at(clip: Clip, frontend: Frontend) -> "Kind":
    """Make a kind that is only asked what it makes, once for all the runs of a plan that have it in common."""
    return input_kind(clip, frontend)


def input_shape(run: Run) -> tuple[int, ...]:
    """Return the shape of one input of a run's network, before any clip is read: an image's or a vector's.

    An image of one channel is kept as one, and the first step of the network makes the three of a picture of it. What
    the data set decides and has not been filled in is taken as in `STAND_INS`.
    """
    sizes = {"clip__sr": run.clip.sr, "clip__duration": run.clip.duration, "frontend__n_frames": run.frontend.n_frames}
    if lacking := {name: STAND_INS[name] for name, value in sizes.items() if not value}:
        run = run.replace(**lacking)
    if run.frontend.components:
        return (run.frontend.components,)
    shape = _looked_at(run.clip, run.frontend).shape
    return (PICTURE_CHANNELS, *shape[1:]) if len(shape) == 3 and shape[0] == 1 else shape


def check_first_step(run: Run) -> None:
    """Refuse normalisation and colours that the kind of input does not take, before any clip is read.

    Raises
    ------
    UserError
        For ``fixed`` where inputs have no range that pictures share, and for colours and levels of what is no image.
    """
    kind, frontend = _looked_at(run.clip, run.frontend), run.frontend
    if frontend.normalise == "train":
        return
    if frontend.colour != "none" and (len(kind.shape), len(kind.channels)) != (3, 1):
        raise UserError(f"--colour {frontend.colour} colours one spectrogram, and --kind {frontend.kind} is none here")
    if frontend.levels == "image" and len(kind.shape) != 3:
        raise UserError(f"--levels image: inputs of the kind {frontend.kind} are no images; leave it out")
    if kind.picture is None and frontend.levels == "fixed":
        raise UserError(f"--normalise fixed: inputs of the kind {frontend.kind} are no pictures; use train")
