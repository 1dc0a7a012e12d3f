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

from core.audio.waveform_augmentation import WaveformChange, augment_waveform
from core.config.run import Run
from core.errors import UserError
from core.inputs import INPUT_KINDS
from core.inputs.input_kind import get_input_layout
from core.training import AUGMENTATIONS

MAX_DEGREES = 15.0  # largest rotation of an image


@dataclass(frozen=True)
class Augmentation:
    """One choice of ``--augment``.

    Attributes
    ----------
    waveform
        Function that changes a waveform before it is padded or cut to the clip length; ``--n-augmented`` versions of
        each clip are stored. None for no change.
    batch
        Function that takes the value of silence and returns a module, which changes training batches of images (batch,
        channels, height, width) with torch's random generator. None for no change.
    changes_tests
        Whether `batch` also changes validation and test clips, to reproduce the data leak of a published report.
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
    """Make the modules that augment validation and test batches; empty except for ``--augment rotate-all``."""
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


class SpecAugment(nn.Module):
    """Mask one time span and one frequency band of every image during training (SpecAugment).

    Widths are uniform from 0 to the maximum, positions uniform among those that fit (Park et al. 2019,
    arXiv:1904.08779, section 2, without time warping). Masked pixels are silent in all channels. Random numbers come
    from torch's generator of the device of the images.

    Parameters
    ----------
    time_mask
        Maximum width of the mask along time, in frames; 0 for no mask.
    freq_mask
        Maximum width of the mask along frequency, in bands; 0 for no mask.
    silence
        Value of masked pixels, in the unit of the images.
    """

    def __init__(self, *, time_mask: int, freq_mask: int, silence: float) -> None:
        super().__init__()
        self.silence = silence
        self.time_mask = time_mask
        self.freq_mask = freq_mask

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Mask images (batch, channels, n_mels, n_frames); in evaluation mode return them unchanged."""
        if not self.training:
            return images
        batch, _, n_mels, n_frames = images.shape
        rows = _draw_masks(batch, n_mels, widest=self.freq_mask, device=images.device)[:, None, :, None]
        columns = _draw_masks(batch, n_frames, widest=self.time_mask, device=images.device)[:, None, None, :]
        return images.masked_fill(rows | columns, self.silence)


def _draw_masks(batch: int, size: int, *, widest: int, device: torch.device) -> torch.Tensor:
    """Draw an interval of 0 to `widest` positions per image; True inside, (batch, size)."""
    draws = torch.rand(2, batch, 1, device=device)
    width = (draws[0] * (min(widest, size) + 1)).long()
    first = (draws[1] * (size - width + 1)).long()
    position = torch.arange(size, device=device)
    return (position >= first) & (position < first + width)


NONE = Augmentation()
STRETCH_PITCH = Augmentation(waveform=augment_waveform)
ROTATE = Augmentation(batch=Rotate)
ROTATE_ALL = Augmentation(batch=Rotate, changes_tests=True)
RANDOM_CROP = Augmentation(crops_recordings=True)
