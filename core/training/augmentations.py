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

from core.audio.waveform_augmentation import SpecAugment, WaveformChange, augment_waveform
from core.config.run import Run
from core.errors import UserError
from core.inputs import INPUT_KINDS
from core.inputs.input_of_run import get_input_layout
from core.training import AUGMENTATIONS

MAX_DEGREES = 15.0


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
    changes_tests
        `batch` changes what is validated and tested on too. That is no way to test: it reproduces a report that did.
    crops_recordings
        Whether each training clip is a segment drawn anew in every epoch from anywhere in its recording, of the length
        of a clip; needs ``--on-the-fly``.
    """

    waveform: WaveformChange | None = None
    batch: Callable[[float], nn.Module] | None = None
    changes_tests: bool = False
    crops_recordings: bool = False


def make_batch_augmentation(run: Run) -> nn.Sequential:
    """Make what changes a run's training batches, in order; empty where nothing does.

    Raises
    ------
    UserError
        Where the inputs are no images, and for segments of what is stored as images.
    """
    training, silence = run.training, INPUT_KINDS[run.frontend.kind].silence
    steps: list[nn.Module] = []
    named: Augmentation = AUGMENTATIONS[training.augment]
    if named.crops_recordings and not training.live:
        raise UserError("--augment random-crop needs --on-the-fly: stored images cannot be cropped again")
    if named.batch:
        steps.append(named.batch(silence))
    if training.time_mask or training.freq_mask:
        steps.append(SpecAugment(time_mask=training.time_mask, freq_mask=training.freq_mask, silence=silence))
    if steps and len(get_input_layout(run.clip, run.frontend).shape) != 3:
        raise UserError(
            f"--augment {training.augment}, --time-mask {training.time_mask}, --freq-mask {training.freq_mask}: only "
            "images can be rotated or masked; leave out what does"
        )
    return nn.Sequential(*steps)


def make_test_augmentation(run: Run) -> nn.Sequential:
    """Make what changes the batches that a run is validated and tested on: nothing, unless a leak is reproduced."""
    named: Augmentation = AUGMENTATIONS[run.training.augment]
    if not (named.changes_tests and named.batch):
        return nn.Sequential()
    return nn.Sequential(named.batch(INPUT_KINDS[run.frontend.kind].silence))


class Rotate(nn.Module):
    """Turn every image about its middle by an angle drawn uniformly from -15 to 15 degrees.

    Pixels are interpolated linearly; what comes in from outside is silent.

    Parameters
    ----------
    silence
        What silence is in the images' unit.
    """

    def __init__(self, silence: float) -> None:
        super().__init__()
        self.silence = silence

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Rotate images (batch, channels, height, width) with torch's generator of their device."""
        return rotate_images(
            images, (2 * torch.rand(len(images), device=images.device) - 1) * MAX_DEGREES, silence=self.silence
        )


def rotate_images(images: torch.Tensor, degrees: torch.Tensor, *, silence: float) -> torch.Tensor:
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
    return functional.grid_sample(images - silence, grid, align_corners=False) + silence


NONE = Augmentation()
STRETCH_PITCH = Augmentation(waveform=augment_waveform)
ROTATE = Augmentation(batch=Rotate)
ROTATE_ALL = Augmentation(batch=Rotate, changes_tests=True)
RANDOM_CROP = Augmentation(crops_recordings=True)
