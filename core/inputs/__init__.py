"""From a recording to what a network takes: clips, augmentation, the store, one file per kind of input."""

from typing import TYPE_CHECKING

from core.registry import Registry

if TYPE_CHECKING:
    from core.config import Clip, Frontend, Run
    from core.inputs.kind import Kind

KINDS = Registry("kind of input", {"logmel": "core.inputs.log_mel:LogMel"})


def input_kind(clip: "Clip", frontend: "Frontend") -> "Kind":
    """Make what turns waveforms into inputs, for a clip and a frontend with every number filled in."""
    kind: Kind = KINDS[frontend.kind](clip=clip, frontend=frontend)
    return kind


def input_shape(run: "Run") -> tuple[int, ...]:
    """Return the shape of one input of a run's network, before any clip is read: an image's or a vector's."""
    return input_kind(run.clip, run.frontend).shape
