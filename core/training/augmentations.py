"""Data augmentation (``--augment``), and SpecAugment masks, which can be combined with any of them.

An augmentation changes waveforms (the inputs of the changed waveforms are stored beside the plain ones), changes every
training batch, or crops recordings at a random position in every epoch. Validation and test clips stay unchanged,
except with ``--augment rotate-all``, which reproduces a leak in a published report.
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

MAX_DEGREES = 15.0  # largest rotation of an image


@dataclass(frozen=True)
class Augmentation:
    """One choice of ``--augment``.

    Attributes
    ----------
    waveform
        Function that changes a waveform before it is brought to its length; ``--n-augmented`` versions of each clip
        are stored. None for no change.
    batch
        Function that takes the value of silence and returns a module, which changes training batches of images (batch,
        channels, height, width) with torch's random generator. None for no change.
    changes_tests
        Whether `batch` also changes validation and test clips. This is a leak; it reproduces a published report.
    crops_recordings
        Whether a training clip is cropped at a random position of its recording in every epoch; needs
        ``--on-the-fly``.
    """

    waveform: WaveformChange | None = None
    batch: Callable[[float], nn.Module] | None = None
    changes_tests: bool = False
    crops_recordings: bool = False


def make_batch_augmentation(run: Run) -> nn.Sequential:
    """Make the modules that augment the training batches of a run; empty without augmentation.

    Raises
    ------
    UserError
        If the inputs are not images, or if stored images should be cropped.
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
            "images can be rotated or masked; leave these options out"
        )
    return nn.Sequential(*steps)


def make_test_augmentation(run: Run) -> nn.Sequential:
    """Make the modules that augment validation and test batches; empty unless a leak is reproduced."""
    named: Augmentation = AUGMENTATIONS[run.training.augment]
    if not (named.changes_tests and named.batch):
        return nn.Sequential()
    return nn.Sequential(named.batch(INPUT_KINDS[run.frontend.kind].silence))


class Rotate(nn.Module):
    """Rotate every image about its centre by a random angle, uniform from -15 to 15 degrees.

    Pixels are interpolated linearly; pixels from outside the image are silent.

    Parameters
    ----------
    silence
        Value of silence, in the unit of the images.
    """

    def __init__(self, silence: float) -> None:
        super().__init__()
        self.silence = silence

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Rotate images (batch, channels, height, width); angles are drawn by torch's generator of their device."""
        return rotate_images(
            images, (2 * torch.rand(len(images), device=images.device) - 1) * MAX_DEGREES, silence=self.silence
        )


def rotate_images(images: torch.Tensor, degrees: torch.Tensor, *, silence: float) -> torch.Tensor:
    """Rotate images (batch, channels, height, width) by `degrees` (batch,) counter-clockwise; fill with `silence`."""
    height, width = images.shape[2:]
    angle = degrees * (math.pi / 180)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    to_source = torch.stack(  # coordinates in half widths and half heights, y points down
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
