"""Base class of every kind of input. A new kind is one class in its own file and a line in `core.inputs.INPUT_KINDS`.

A kind turns waveforms into images (channels, height, width), rows (channels, width) or vectors (features,). Its
attributes tell networks and figures about shape, axes, units and values.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, SupportsIndex

import numpy as np
import torch
from torch import nn

from core.config.run import Clip, Frontend


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis of an input.

    Attributes
    ----------
    name
        One word, for tables: mel, frame, feature.
    label
        Label in figures, with unit: ``Time (s)``.
    values
        (size,) ascending, in that unit, at the centre of each position.
    ticks
        Tick values for an axis with uneven steps; empty for even steps.
    names
        Name of each position, such as features; empty if positions have no names.
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
        """Start and end of the axis, in its unit if it is even, else in positions."""
        if self.ticks or len(self.values) == 1:
            return -0.5, len(self.values) - 0.5
        half = (self.values[1] - self.values[0]) / 2
        return float(self.values[0] - half), float(self.values[-1] + half)


@dataclass(frozen=True)
class Layout:
    """What is known of a kind's inputs without building its filters.

    Attributes
    ----------
    shape
        Of one input, without the batch dimension. An image with one channel is stored as such, and becomes a picture
        of three channels in the network's input transform.
    channels
        Name of each channel; empty for a vector.
    value_range
        Values that become black (0) and white (1) for a network trained on pictures; None if there are no such
        values, and inputs must be normalised by the training clips (``--normalise train``).
    """

    shape: tuple[int, ...]
    channels: tuple[str, ...] = ()
    value_range: tuple[float, float] | None = None


class InputKind(nn.Module):
    """Turns waveforms (batch, samples) into inputs (batch, ...), on the device it is on.

    Parameters
    ----------
    clip, frontend
        Settings with every number filled in.

    Attributes
    ----------
    unit
        Unit of the values.
    silence
        Value of silence; for a vector one value per feature, or None if unknown.
    libraries
        Libraries whose version is part of the key of stored inputs.
    rows_apart
        Whether each row of an image has its own scale, so that ``--normalise train`` normalises rows separately.
    shape, channels, value_range
        As in `Layout`.
    axes
        One per dimension after the channels.
    """

    unit: ClassVar[str]
    silence: ClassVar[Any]
    libraries: ClassVar[tuple[str, ...]] = ()
    per_row: ClassVar[bool] = False
    shape: tuple[int, ...]
    channels: tuple[str, ...] = ()
    value_range: tuple[float, float] | None = None
    axes: tuple[Axis, ...]

    def __init__(self, *, clip: Clip, frontend: Frontend) -> None:
        super().__init__()

    @classmethod
    def layout(cls, clip: Clip, frontend: Frontend) -> Layout:
        """Return the layout of the inputs. Planning asks for it, so a kind with filters should not build them here.

        Raises
        ------
        UserError
            For settings that give no inputs.
        """
        kind = cls(clip=clip, frontend=frontend)
        return Layout(kind.shape, kind.channels, kind.value_range)

    def use_layout(self, layout: Layout) -> None:
        """Set shape, channels and value range."""
        self.shape, self.channels, self.value_range = layout.shape, layout.channels, layout.value_range

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """Turn waveforms (batch, samples) into inputs (batch, *shape); no clip depends on others of the batch."""
        raise NotImplementedError


class ArrayLike(Protocol):
    """Array protocol for inputs (clips, ...): a NumPy array, or one that computes its rows on access."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(clips, *shape of an input)."""

    @property
    def ndim(self) -> int:
        """Number of dimensions."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any: ...

    def reshape(self, clips: SupportsIndex, /, *shape: SupportsIndex) -> Any:
        """Return the array with another shape."""


def normalise_peak(y: torch.Tensor) -> torch.Tensor:
    """Scale waveforms (batch, samples) to a peak of 1; silence stays silent."""
    return y / y.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(y.dtype).tiny)
