"""From a recording to what a network takes: clips, augmentation, the image store, one file per kind of input."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.config import Run


def input_shape(run: "Run") -> tuple[int, ...]:
    """Return the shape of one input of a run's network, before any clip is read: (channels, n_mels, n_frames)."""
    return (3, run.frontend.n_mels, run.frontend.n_frames)
