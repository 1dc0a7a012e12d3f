"""Raw waveforms, for networks with 1-d convolutions."""

import torch

from core.config.run import Clip, Frontend
from core.errors import UserError
from core.inputs.base import Axis, InputKind, Layout, normalise_peak


class Waveform(InputKind):
    """Waveforms (1, samples).

    Parameters
    ----------
    clip
        Uses `sr`, `duration` and `fit`.
    frontend
        Uses `peak`.

    Raises
    ------
    UserError
        If clips keep different lengths (``--length-mode stretch``).
    """

    unit = "amplitude"
    silence = 0.0

    @classmethod
    def layout(cls, clip: Clip, frontend: Frontend) -> Layout:
        """Return the layout. Raise UserError if clips keep different lengths."""
        if clip.fit == "stretch":
            raise UserError("--length-mode stretch: waveforms cannot be resized like images; choose pad, loop or crop")
        return Layout((1, round(clip.sr * clip.duration)), ("waveform",))

    def __init__(self, *, clip: Clip, frontend: Frontend) -> None:
        super().__init__(clip=clip, frontend=frontend)
        self.use_layout(self.layout(clip, frontend))
        self.peak = frontend.peak
        self.axes = (Axis.even("sample", "Time (s)", self.shape[1], clip.duration),)

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """Convert waveforms (batch, samples) to inputs (batch, 1, samples)."""
        return (normalise_peak(y) if self.peak else y)[:, None]
