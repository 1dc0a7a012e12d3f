"""Every input as an image: attributions and figures see channels, height and width, whatever a network reads.

A vector is an image of one channel and one row; channels without height are images of one row. The network gets back
what it was trained on.
"""

from collections import OrderedDict
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from core.config.run import Run
from core.finished.open_run import OpenRun
from core.inputs.base import Axis
from core.inputs.input_of_run import build_input_kind

_ROW = Axis("row", "", np.zeros(1))


@dataclass(frozen=True)
class ImageAxes:
    """What the pixels of a run's inputs stand for.

    Attributes
    ----------
    shape
        Of an input as an image: (channels, height, width).
    down, across
        The axes of height and width.
    channels
        Name of each channel.
    unit, silence
        Of the pixels, and what silence is in it; None where nobody knows.
    """

    shape: tuple[int, int, int]
    down: Axis
    across: Axis
    channels: tuple[str, ...]
    unit: str
    silence: float | np.ndarray | None

    @classmethod
    def from_run(cls, run: Run) -> "ImageAxes":
        """Take the scale from the kind of a run's inputs."""
        kind = build_input_kind(run.clip, run.frontend)
        shape = (1,) * (1 - len(kind.channels[:1])) + kind.shape
        channels, height, width = shape if len(shape) == 3 else (shape[0], 1, shape[1])
        down, across = kind.axes if len(kind.axes) == 2 else (_ROW, *kind.axes)
        return cls((channels, height, width), down, across, kind.channels or ("",), kind.unit, kind.silence)


class FromImages(nn.Module):
    """Give images (batch, channels, height, width) the shape of the inputs that they stand for.

    Parameters
    ----------
    shape
        Of one input.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (batch, *shape)."""
        return x.reshape(len(x), *self.shape)


def as_image_run(finished: OpenRun) -> OpenRun:
    """Return a finished run whose inputs are images: itself, or with a network that begins with ``pixels``."""
    images = finished.images
    shape = images.array.shape[1:]
    if len(shape) == 3:
        return finished
    array = images.array.reshape(len(images.array), *ImageAxes.from_run(finished.run).shape)
    modules = OrderedDict[str, nn.Module](pixels=FromImages(shape), **dict(finished.network.named_children()))
    return replace(finished, images=replace(images, array=array), network=nn.Sequential(modules))
