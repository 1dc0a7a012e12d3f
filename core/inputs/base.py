"""What every kind of input says of itself: one class in one file, and a line in `core.inputs.KINDS`.

A kind turns waveforms into images (channels, height, width), into rows of numbers (channels, width) or into vectors
(features,). What a network, a figure or a map must know about them it asks the kind, by the names below.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, SupportsIndex

import numpy as np
import torch
from torch import nn

from core.config.run import Clip, Frontend


@dataclass(frozen=True, eq=False)
class Axis:
    """What runs along one axis of an input.

    Attributes
    ----------
    name
        One word, for tables: mel, frame, feature.
    label
        What it is, with its unit, for figures: ``Time (s)``.
    values
        (size,) ascending, in that unit, at the middle of each position.
    ticks
        Values to write beside the axis. Without any the axis is even: values grow by equal steps.
    names
        What each position is called, where they are things of their own, such as features.
    """

    name: str
    label: str
    values: np.ndarray
    ticks: tuple[float, ...] = ()
    names: tuple[str, ...] = ()

    @classmethod
    def even(cls, name: str, label: str, size: int, end: float) -> Self:
        """Make an even axis of `size` positions from 0 to `end`."""
        return cls(name, label, (np.arange(size) + 0.5) * end / size)

    @property
    def edges(self) -> tuple[float, float]:
        """Where the axis begins and ends: in its unit where it is even, else in positions."""
        if self.ticks or len(self.values) == 1:
            return -0.5, len(self.values) - 0.5
        half = (self.values[1] - self.values[0]) / 2
        return float(self.values[0] - half), float(self.values[-1] + half)


class Kind(nn.Module):
    """Turns waveforms (batch, samples) into inputs (batch, ...), on the device it is on.

    Parameters
    ----------
    clip, frontend
        With every number filled in.

    Attributes
    ----------
    unit
        Of the inputs' numbers.
    floor
        The number that silence has everywhere; of a vector one for each place, or None where nobody knows.
    libraries
        Whose releases decide the numbers: an input made with one is not read with another.
    picture
        The numbers that are black and white, 0 and 1, to a network trained on pictures; None where there are no such,
        and inputs have to be normalised by the training clips (``--normalise train``).
    rows_apart
        Whether an image's rows have scales of their own, so that ``--normalise train`` takes each by itself.
    shape
        Of one input, without the batch. An image of one channel is stored so, and becomes the three channels of a
        picture in the network's first step.
    axes
        Of an input but its channels, in their order.
    channels
        Name of each channel; none for a vector.
    """

    unit: ClassVar[str]
    floor: ClassVar[Any]
    libraries: ClassVar[tuple[str, ...]] = ()
    picture: tuple[float, float] | None = None
    rows_apart: ClassVar[bool] = False
    shape: tuple[int, ...]
    axes: tuple[Axis, ...]
    channels: tuple[str, ...] = ()

    def __init__(self, *, clip: Clip, frontend: Frontend) -> None:
        super().__init__()

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """Turn waveforms (batch, samples) into inputs (batch, *shape); each by itself, whatever is beside it."""
        raise NotImplementedError


class Rows(Protocol):
    """What is asked of an array (clips, ...) of inputs: NumPy's has it, and one whose rows are made when looked up."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(clips, *shape of an input)."""

    @property
    def ndim(self) -> int:
        """Axes, that of the clips among them."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any: ...

    def reshape(self, clips: SupportsIndex, /, *shape: SupportsIndex) -> Any:
        """Give every input another shape."""


def to_peak(y: torch.Tensor) -> torch.Tensor:
    """Bring waveforms (batch, samples) to a peak of 1; silence stays silent."""
    return y / y.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(y.dtype).tiny)
