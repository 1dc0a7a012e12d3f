"""Waveforms as they are: one row of samples, for networks along time."""

import torch

from core.config.run import Clip, Frontend
from core.errors import UserError
from core.inputs.base import Axis, Kind, to_peak


class Waveform(Kind):
    """The samples themselves, for networks that take rows (channels, width).

    Parameters
    ----------
    clip
        `sr`, `duration` and `fit` say how many samples there are.
    frontend
        `peak` is used.

    Raises
    ------
    UserError
        For clips that keep lengths of their own.
    """

    unit = "amplitude"
    floor = 0.0
    channels = ("waveform",)

    def __init__(self, *, clip: Clip, frontend: Frontend) -> None:
        super().__init__(clip=clip, frontend=frontend)
        if clip.fit == "stretch":
            raise UserError("--fit stretch resizes images, and waveforms are none: choose pad, loop or crop")
        self.peak = frontend.peak
        samples = round(clip.sr * clip.duration)
        self.shape = (1, samples)
        self.axes = (Axis.even("sample", "Time (s)", samples, clip.duration),)

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """Turn waveforms (batch, samples) into rows (batch, 1, samples)."""
        return (to_peak(y) if self.peak else y)[:, None]
