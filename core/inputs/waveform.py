"""Raw waveforms: one row of samples, for networks with 1-d convolutions."""

import torch

from core.config.run import Clip, Frontend
from core.errors import UserError
from core.inputs.base import Axis, InputKind, Layout, normalise_peak


class Waveform(InputKind):
    """The samples, for networks that take rows (channels, width).

    Parameters
    ----------
    clip
        Uses `sr`, `duration` and `fit`.
    frontend
        Uses `peak`.

    Raises
    ------
    UserError
        For clips of different lengths (`fit` is stretch).
    """

    unit = "amplitude"
    silence = 0.0

    @classmethod
    def layout(cls, clip: Clip, frontend: Frontend) -> Layout:
        """Return the layout; UserError for clips of different lengths."""
        if clip.fit == "stretch":
            raise UserError("--length-mode stretch resizes images, and waveforms are none: choose pad, loop or crop")
        return Layout((1, round(clip.sr * clip.duration)), ("waveform",))

    def __init__(self, *, clip: Clip, frontend: Frontend) -> None:
        super().__init__(clip=clip, frontend=frontend)
        self.use_layout(self.layout(clip, frontend))
        self.peak = frontend.peak
        self.axes = (Axis.even("sample", "Time (s)", self.shape[1], clip.duration),)

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """Turn waveforms (batch, samples) into rows (batch, 1, samples)."""
        return (normalise_peak(y) if self.peak else y)[:, None]
