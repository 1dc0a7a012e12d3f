"""Augmentations: what ``--augment`` names, and the SpecAugment masks that may be added to any of them.

A clip's class survives them. One changes waveforms, whose inputs are made once and stored beside the plain ones; or it
changes every training batch anew; or it cuts another segment of each recording in every epoch. None touches what is
validated or tested on, except with ``rotate-tests`` (``--augment rotate-all``), which reproduces a leak.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from core.audio.waveform_augmentation import Change, SpecAugment, augment_waveform
from core.config.run import Run
from core.errors import UserError
from core.inputs import KINDS
from core.inputs.input_of_run import input_layout
from core.training import AUGMENTATIONS

DEGREES = 15.0


@dataclass(frozen=True)
class Augmentation:
    """What one name of ``--augment`` does.

    Attributes
    ----------
    waveform
        Changes a waveform before it gets its length, or None; ``--n-augmented`` versions of each clip are stored.
    batch
        Makes, from what silence is in the inputs' unit, a module that changes training batches of images
        (batch, channels, height, width) with numbers drawn from torch's generator; or None.
    tests
        `batch` changes what is validated and tested on too. That is no way to test: it reproduces a report that did.
    segments
        Whether each training clip is a segment drawn anew in every epoch from anywhere in its recording, of the length
        of a clip; needs ``--on-the-fly``.
    """

    waveform: Change | None = None
    batch: Callable[[float], nn.Module] | None = None
    tests: bool = False
    segments: bool = False


def batch_augmentation(run: Run) -> nn.Sequential:
    """Make what changes a run's training batches, in order; empty where nothing does.

    Raises
    ------
    UserError
        Where the inputs are no images, and for segments of what is stored as images.
    """
    training, floor = run.training, KINDS[run.frontend.kind].floor
    steps: list[nn.Module] = []
    named: Augmentation = AUGMENTATIONS[training.augment]
    if named.segments and not training.live:
        raise UserError("--augment random-crop needs --on-the-fly: stored images cannot be cropped again")
    if named.batch:
        steps.append(named.batch(floor))
    if training.time_mask or training.freq_mask:
        steps.append(SpecAugment(time_mask=training.time_mask, freq_mask=training.freq_mask, floor=floor))
    if steps and len(input_layout(run.clip, run.frontend).shape) != 3:
        raise UserError(
            f"--augment {training.augment}, --time-mask {training.time_mask}, --freq-mask {training.freq_mask}: only "
            "images can be rotated or masked; leave out what does"
        )
    return nn.Sequential(*steps)


def evaluation_change(run: Run) -> nn.Sequential:
    """Make what changes the batches that a run is validated and tested on: nothing, unless a leak is reproduced."""
    named: Augmentation = AUGMENTATIONS[run.training.augment]
    if not (named.tests and named.batch):
        return nn.Sequential()
    return nn.Sequential(named.batch(KINDS[run.frontend.kind].floor))


class Rotate(nn.Module):
    """Turn every image about its middle by an angle drawn uniformly from -15 to 15 degrees.

    Pixels are interpolated linearly; what comes in from outside is silent.

    Parameters
    ----------
    floor
        What silence is in the images' unit.
    """

    def __init__(self, floor: float) -> None:
        super().__init__()
        self.floor = floor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Rotate images (batch, channels, height, width) with torch's generator of their device."""
        return rotate(images, (2 * torch.rand(len(images), device=images.device) - 1) * DEGREES, floor=self.floor)


def rotate(images: torch.Tensor, degrees: torch.Tensor, *, floor: float) -> torch.Tensor:
    """Turn images (batch, channels, height, width) by `degrees` (batch,), counter-clockwise, filled with `floor`."""
    height, width = images.shape[2:]
    angle = degrees * (math.pi / 180)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    to_source = torch.stack(  # in units of half the width and half the height, y down
        [
            torch.stack([cos, -sin * height / width, zero], dim=1),
            torch.stack([sin * width / height, cos, zero], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(to_source, list(images.shape), align_corners=False)
    return functional.grid_sample(images - floor, grid, align_corners=False) + floor


NONE = Augmentation()
WAVEFORM = Augmentation(waveform=augment_waveform)
ROTATE = Augmentation(batch=Rotate)
ROTATE_TESTS = Augmentation(batch=Rotate, tests=True)
SEGMENT = Augmentation(segments=True)
