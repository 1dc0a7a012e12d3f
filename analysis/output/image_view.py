"""View every kind of input as an image, with shape, axes and channels for figures and attributions.

A feature vector becomes an image with one channel and one row. A waveform (channels, samples) becomes an image with one
row. The network still receives inputs of the shape it was trained on.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from torch import nn

from core.config.run import Run
from core.finished.open_run import OpenRun
from core.inputs.base import Axis
from core.inputs.input_kind import build_input_kind

_SINGLE_ROW = Axis("row", "", np.zeros(1))


@dataclass(frozen=True)
class ImageAxes:
    """Axes, channels and unit of a run's inputs when they are viewed as images.

    Attributes
    ----------
    shape
        Shape of one image: (channels, height, width).
    down, across
        Axes of height and width.
    channels
        Name of each channel.
    unit
        Unit of the pixels.
    silence
        Pixel value of silence; None if unknown.
    """

    shape: tuple[int, int, int]
    down: Axis
    across: Axis
    channels: tuple[str, ...]
    unit: str
    silence: float | np.ndarray | None

    @classmethod
    def from_run(cls, run: Run) -> "ImageAxes":
        """Return the axes of the inputs of `run`."""
        kind = build_input_kind(run.clip, run.frontend)
        shape = kind.shape if kind.channels else (1, *kind.shape)
        channels, height, width = shape if len(shape) == 3 else (shape[0], 1, shape[1])
        down, across = kind.axes if len(kind.axes) == 2 else (_SINGLE_ROW, *kind.axes)
        return cls((channels, height, width), down, across, kind.channels or ("",), kind.unit, kind.silence)

    def transpose(self) -> "ImageAxes":
        """Return the axes of transposed images: the height becomes the width."""
        channels, height, width = self.shape
        return replace(self, shape=(channels, width, height), down=self.across, across=self.down)


class FromImages(nn.Module):
    """Reshape images (batch, channels, height, width) to the inputs (batch, *shape) of a network.

    Parameters
    ----------
    shape
        Shape of one input.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return inputs (batch, *shape)."""
        return x.reshape(len(x), *self.shape)


def as_image_run(finished: OpenRun) -> OpenRun:
    """Return a finished run whose inputs are images (channels, height, width).

    If the inputs have another shape, they are reshaped, and the network gets a first module ``pixels`` that restores
    their shape.
    """
    images = finished.images
    shape = images.array.shape[1:]
    if len(shape) == 3:
        return finished
    array = images.array.reshape(len(images.array), *ImageAxes.from_run(finished.run).shape)
    modules = OrderedDict[str, nn.Module](pixels=FromImages(shape), **dict(finished.network.named_children()))
    return replace(finished, images=replace(images, array=array), network=nn.Sequential(modules))


def draw_image(
    image: np.ndarray, view: ImageAxes, ax: Axes, *, cmap: str, low: float, high: float, labelled: str = "xy"
) -> AxesImage:
    """Draw an image with the axes of the input.

    Parameters
    ----------
    image
        Pixels, shape (height, width).
    view
        Axes of the image.
    ax
        Panel to draw on.
    cmap
        Name of a matplotlib colour map.
    low, high
        Values at both ends of the colour map.
    labelled
        Which axes have tick labels and an axis label: "x", "y", "xy" or "".

    Returns
    -------
    AxesImage
        The image, for a colour bar.
    """
    x, y = "x" in labelled, "y" in labelled
    extent = (*view.across.edges, *view.down.edges)
    drawn = ax.imshow(
        image, cmap=cmap, vmin=low, vmax=high, origin="lower", aspect="auto", extent=extent, interpolation="none"
    )
    if len(view.down.values) == 1:
        ax.set_yticks([])
    for axis, set_ticks, distance in ((view.across, ax.set_xticks, 1 / 4), (view.down, ax.set_yticks, 1 / 7)):
        if axis.ticks:
            ticks = spread_ticks(axis, distance)
            set_ticks(tick_positions(axis, ticks), [f"{tick:g}" for tick in ticks])
    ax.spines[:].set_visible(False)
    ax.tick_params(left=y, labelleft=y, bottom=x, labelbottom=x)
    ax.set(xlabel=view.across.label if x else "", ylabel=view.down.label if y else "")
    return drawn


def spread_ticks(axis: Axis, distance: float) -> list[float]:
    """Select ticks that are at least `distance` apart, as a fraction of the axis, starting from the highest."""
    selected: list[float] = []
    for tick in reversed(axis.ticks):
        if not selected or np.diff(tick_positions(axis, [tick, selected[-1]]))[0] >= distance * len(axis.values):
            selected.append(tick)
    return selected


def tick_positions(axis: Axis, ticks: Sequence[float]) -> np.ndarray:
    """Return the positions of tick values along an axis, in pixels."""
    return np.asarray(np.interp(ticks, axis.values, np.arange(len(axis.values))))
