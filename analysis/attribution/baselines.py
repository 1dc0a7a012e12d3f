"""What a sound is compared with: images without the sound in them.

Zero is no baseline here: 0 dB is a loud flat spectrum. Silence is the floor of the kind of input. No choice is neutral
(Sturmfels, Lundberg and Lee, "Visualizing the Impact of Feature Attribution Baselines", Distill 2020), so there are
several.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from core.errors import UserError, unknown_name_error
from core.inputs.base import Rows
from core.inputs.spectrogram import FLOOR_DB

NAMES = ("silence", "mean", "blurred", "noise")
NOISE_IMAGES = 8
OF_THE_TRAINING = ("mean", "noise")  # what needs the training clips' statistics
BLUR = 1 / 8  # standard deviation of the blur, as a share of the image's height and width
_CHUNK = 64  # images read at once


@dataclass(frozen=True)
class Training:
    """The training clips' mean and standard deviation at each pixel, in dB, (channels, n_mels, n_frames)."""

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def of(cls, images: Rows, rows: np.ndarray, *, floor: float | np.ndarray = FLOOR_DB) -> "Training":
        """Measure the images (clips, channels, n_mels, n_frames) named by `rows`, a few at a time."""
        total, squares = (np.zeros(images.shape[1:]) for _ in range(2))
        for start in range(0, len(rows), _CHUNK):
            part = images[rows[start : start + _CHUNK]].astype(np.float64) - floor  # silence adds no rounding
            total += part.sum(axis=0)
            squares += (part**2).sum(axis=0)
        mean = total / len(rows)
        std = np.sqrt(np.maximum(squares / len(rows) - mean**2, 0))
        return cls((mean + floor).astype(np.float32), std.astype(np.float32))


def make(
    name: str,
    inputs: np.ndarray,
    training: Training | None = None,
    *,
    floor: float | np.ndarray = FLOOR_DB,
    seed: int = 0,
) -> np.ndarray:
    """Make the baselines of some clips.

    Parameters
    ----------
    name
        ``silence``: the floor. ``mean``: the mean of the training clips. ``blurred``: the clip itself,
        blurred. ``noise``: a set of Gaussian noise images with the training clips' mean and deviation, to be averaged
        over (expected gradients). Or a ``.npy`` file with one image in the inputs' unit.
    inputs
        (clips, channels, n_mels, n_frames) in dB.
    training
        The training clips' statistics, for `OF_THE_TRAINING`.
    floor
        What silence is in the inputs' unit, one number or a number for each feature.
    seed
        Of the noise.

    Returns
    -------
    baselines
        (clips, images, channels, n_mels, n_frames) float32 in dB, read-only; images is 1 but for ``noise``.

    Raises
    ------
    UserError
        For an unknown name, and a file that cannot be read, is not finite or has another shape than the images.
    """
    clips, *shape = inputs.shape
    if name in OF_THE_TRAINING and training is None:
        raise ValueError(f"baseline {name} needs training=Training.of(images, rows)")
    if name == "blurred":
        sigma = (0, 0, BLUR * shape[1], BLUR * shape[2])
        return ndimage.gaussian_filter(inputs.astype(np.float32), sigma, mode="nearest")[:, None]
    baseline: np.ndarray
    if name == "silence":
        baseline = np.full((1, *shape), floor, np.float32)
    elif name == "mean" and training:
        baseline = training.mean[None]
    elif name == "noise" and training:
        noise = np.random.default_rng(seed).standard_normal((NOISE_IMAGES, *shape), dtype=np.float32)
        baseline = training.mean + training.std * noise
        if (training.mean >= floor).all():  # silence is the least there is
            baseline = np.maximum(baseline, np.asarray(floor, np.float32))
    elif name.endswith(".npy"):
        baseline = _read(Path(name), tuple(shape))[None]
    else:
        raise _unknown(name)
    return np.broadcast_to(baseline, (clips, *baseline.shape))


def check(name: str, shape: tuple[int, ...]) -> None:
    """Refuse a baseline there is not, and a file that is none for inputs of a shape, before anything is trained.

    Raises
    ------
    UserError
        With the nearest name, or what is wrong with the file.
    """
    if name.endswith(".npy"):
        _read(Path(name), shape)
    elif name not in (*NAMES, "all"):
        raise _unknown(name)


def _unknown(name: str) -> UserError:
    return unknown_name_error("baseline", name, (*NAMES, "all", "FILE.npy"))


def _read(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    try:
        image = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"--baseline {path}: cannot be read as an array ({error})") from None
    if image.shape != shape:
        raise UserError(f"--baseline {path}: its shape is {image.shape} and the images are {shape}")
    if not np.isfinite(image).all():
        raise UserError(f"--baseline {path}: it has values that are not finite")
    return np.asarray(image, np.float32)
