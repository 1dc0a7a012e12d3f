"""Baselines of attribution methods: images that do not contain the sound of a clip.

An image of zeros is not a suitable baseline, because 0 dB is a loud flat spectrum. The baseline "silence" has the value
that silence has in the inputs. No baseline is neutral (Sturmfels, Lundberg and Lee, "Visualizing the Impact of Feature
Attribution Baselines", Distill 2020), so several are available.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from core.errors import UserError, unknown_name_error
from core.inputs.base import ArrayLike
from core.inputs.spectrogram import FLOOR_DB

BASELINE_NAMES = ("silence", "mean", "blurred", "noise")
NOISE_IMAGES = 8  # per clip
NEED_TRAINING_STATS = ("mean", "noise")  # baselines that are computed from statistics of the training clips
RELATIVE_BLUR = 1 / 8  # standard deviation of the blur, as a fraction of the height and width of the image
_CHUNK_IMAGES = 64  # images in memory at the same time


@dataclass(frozen=True)
class TrainingStats:
    """Mean and standard deviation of each pixel over the training clips, in dB, shape (channels, n_mels, n_frames)."""

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def from_images(
        cls, images: ArrayLike, rows: np.ndarray, *, floor: float | np.ndarray = FLOOR_DB
    ) -> "TrainingStats":
        """Compute the statistics of some rows of images (clips, channels, n_mels, n_frames), in chunks.

        The sums are over values minus `floor`, so that pixels with the value of silence add no rounding error.
        """
        total, squares = (np.zeros(images.shape[1:]) for _ in range(2))
        for start in range(0, len(rows), _CHUNK_IMAGES):
            part = images[rows[start : start + _CHUNK_IMAGES]].astype(np.float64) - floor
            total += part.sum(axis=0)
            squares += (part**2).sum(axis=0)
        mean = total / len(rows)
        std = np.sqrt(np.maximum(squares / len(rows) - mean**2, 0))
        return cls((mean + floor).astype(np.float32), std.astype(np.float32))


def make_baseline(
    name: str,
    inputs: np.ndarray,
    training: TrainingStats | None = None,
    *,
    floor: float | np.ndarray = FLOOR_DB,
    seed: int = 0,
) -> np.ndarray:
    """Make the baselines of some clips.

    Parameters
    ----------
    name
        One of

        * ``silence``: `floor` in every pixel,
        * ``mean``: the mean of the training clips,
        * ``blurred``: the clip itself, blurred,
        * ``noise``: several Gaussian noise images with the training mean and deviation, over which attributions are
          averaged (expected gradients),
        * the path of a ``.npy`` file with one image in the unit of the inputs.
    inputs
        Images (clips, channels, n_mels, n_frames) in dB.
    training
        Training statistics, required by ``mean`` and ``noise``.
    floor
        Value of silence in the unit of the inputs: one number, or one number per feature.
    seed
        Seed of the noise.

    Returns
    -------
    array
        Baselines (clips, images per clip, channels, n_mels, n_frames), float32 in dB, read-only. There is one image per
        clip, or 8 for ``noise``.

    Raises
    ------
    UserError
        If the name is unknown, or the file is unreadable, not finite or of another shape than the images.
    ValueError
        If the training statistics are missing.
    """
    clips, *shape = inputs.shape
    if name in NEED_TRAINING_STATS and training is None:
        raise ValueError(f"baseline {name} needs training=TrainingStats.from_images(images, rows)")
    if name == "blurred":
        sigma = (0, 0, RELATIVE_BLUR * shape[1], RELATIVE_BLUR * shape[2])
        return ndimage.gaussian_filter(inputs.astype(np.float32), sigma, mode="nearest")[:, None]
    baseline: np.ndarray
    if name == "silence":
        baseline = np.full((1, *shape), floor, np.float32)
    elif name == "mean" and training:
        baseline = training.mean[None]
    elif name == "noise" and training:
        noise = np.random.default_rng(seed).standard_normal((NOISE_IMAGES, *shape), dtype=np.float32)
        baseline = training.mean + training.std * noise
        if (training.mean >= floor).all():  # noise must not be below silence
            baseline = np.maximum(baseline, np.asarray(floor, np.float32))
    elif name.endswith(".npy"):
        baseline = _read_baseline_file(Path(name), tuple(shape))[None]
    else:
        raise _unknown_baseline_error(name)
    return np.broadcast_to(baseline, (clips, *baseline.shape))


def check_baseline(name: str, shape: tuple[int, ...]) -> None:
    """Check the name of a baseline, or its file for inputs of a shape, before training starts.

    Raises
    ------
    UserError
        If the name is unknown or the file is not suitable.
    """
    if name.endswith(".npy"):
        _read_baseline_file(Path(name), shape)
    elif name not in (*BASELINE_NAMES, "all"):
        raise _unknown_baseline_error(name)


def _unknown_baseline_error(name: str) -> UserError:
    return unknown_name_error("baseline", name, (*BASELINE_NAMES, "all", "FILE.npy"))


def _read_baseline_file(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Read the image of a ``.npy`` file as float32, and check that it is finite and has the given shape."""
    try:
        image = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"--baseline {path}: cannot be read as an array ({error})") from None
    if image.shape != shape:
        raise UserError(f"--baseline {path}: shape {image.shape} does not match the input shape {shape}")
    if not np.isfinite(image).all():
        raise UserError(f"--baseline {path}: the image has NaN or infinite values")
    return np.asarray(image, np.float32)
