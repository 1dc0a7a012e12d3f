"""Base class of all kinds of input. To add one, write a class in a module and add a line to `core.inputs.INPUT_KINDS`.

A kind converts waveforms to images (channels, height, width), sequences (channels, width) or vectors (features,). Its
attributes describe their shape, axes, unit and value range for networks and figures.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, SupportsIndex

import numpy as np
import torch
from torch import nn

from core.config.run import Clip, Frontend


@dataclass(frozen=True, eq=False)
class Axis:
    """Axis of an input, for tables and figures.

    Attributes
    ----------
    name
        Column name in tables, one word: mel, frame, feature.
    label
        Axis label in figures, with unit: ``Time (s)``.
    values
        Centre of each position in that unit, ascending, (size,).
    ticks
        Tick values for an axis with uneven steps; empty for even steps.
    names
        Name of each position, such as feature names; empty if positions have no names.
    """

    name: str
    label: str
    values: np.ndarray
    ticks: tuple[float, ...] = ()
    names: tuple[str, ...] = ()

    @classmethod
    def even(cls, name: str, label: str, size: int, end: float) -> Self:
        """Make an axis of `size` positions of equal width from 0 to `end`."""
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
    """Shape and value range of inputs, known without building filters.

    Attributes
    ----------
    shape
        Shape of one input, without the batch dimension. Images with one channel are stored with one channel; the input
        transform of the network repeats it three times.
    channels
        Name of each channel; empty for a vector.
    value_range
        Values that a pretrained network sees as black (0) and white (1). None if the kind has no fixed range, so that
        inputs must be normalised by the training clips (``--normalise train``).
    """

    shape: tuple[int, ...]
    channels: tuple[str, ...] = ()
    value_range: tuple[float, float] | None = None


class InputKind(nn.Module):
    """Module that converts waveforms (batch, samples) to inputs (batch, ...) on its device.

    Parameters
    ----------
    clip, frontend
        Settings with all numbers filled in.

    Attributes
    ----------
    unit
        Unit of the values.
    silence
        Value of silence; for vectors one value per feature, or None if unknown.
    libraries
        Libraries whose versions are part of the cache key of stored inputs.
    per_row
        Whether rows of an image differ in scale, so that ``--normalise train`` normalises each row separately.
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
        """Return the layout of the inputs. Used in planning, so it should not build filters.

        Raises
        ------
        UserError
            If the settings do not fit the kind.
        """
        kind = cls(clip=clip, frontend=frontend)
        return Layout(kind.shape, kind.channels, kind.value_range)

    def use_layout(self, layout: Layout) -> None:
        """Set `shape`, `channels` and `value_range`."""
        self.shape, self.channels, self.value_range = layout.shape, layout.channels, layout.value_range

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """Convert waveforms (batch, samples) to inputs (batch, *shape), each independent of the others."""
        raise NotImplementedError


class ArrayLike(Protocol):
    """Inputs (clips, ...): a NumPy array, or an object that computes rows on access."""

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
    """Scale waveforms (batch, samples) to a peak of 1; silent waveforms are unchanged."""
    return y / y.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(y.dtype).tiny)
