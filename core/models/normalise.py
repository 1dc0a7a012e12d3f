"""The map from decibels to the range a backbone was trained on, as the network's first module."""

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import torch
from torch import nn

from core.errors import UserError

FLOOR_DB, SPAN_DB = -60.0, 100.0  # silence is 0 and +40 dB is 1 of the unit range that pictures are given in
_CHUNK = 64  # images whose statistics are taken at once


class Normalise(nn.Module):
    """Subtract a mean and divide by a deviation, channel by channel.

    Parameters
    ----------
    mean, std
        One number per channel, in dB.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    @classmethod
    def fixed(cls, mean: Sequence[float], std: Sequence[float]) -> Self:
        """Make the map that looks at no data: -60 .. +40 dB as 0 .. 1, then the backbone's own normalisation.

        Parameters
        ----------
        mean, std
            Of the pictures the backbone was trained on, per channel, in units of 0 .. 1.
        """
        return cls([FLOOR_DB + SPAN_DB * m for m in mean], [SPAN_DB * s for s in std])

    @classmethod
    def of(cls, images: np.ndarray, rows: np.ndarray) -> Self:
        """Make the map that gives the images named by `rows` mean 0 and deviation 1 in each channel.

        Parameters
        ----------
        images
            (clips, channels, n_mels, n_frames) in dB; may be memory-mapped.
        rows
            (training clips,) indices: those of the training folds only.

        Raises
        ------
        UserError
            If a channel is constant or holds numbers that are not finite.
        """
        count = len(rows) * images.shape[2] * images.shape[3]
        total = np.zeros(images.shape[1])
        squares = np.zeros(images.shape[1])
        chunks = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
        for chunk in chunks:
            total += images[chunk].sum(axis=(0, 2, 3), dtype=np.float64)
        mean = total / max(count, 1)
        for chunk in chunks:  # a second pass: the difference of two large sums would lose digits
            squares += ((images[chunk] - mean[:, None, None]) ** 2).sum(axis=(0, 2, 3))
        std = np.sqrt(squares / max(count, 1))
        if not (np.isfinite(std) & (std > 0)).all():
            raise UserError("--normalise train: the training images do not vary or are not finite; use fixed")
        return cls(mean.tolist(), std.tolist())

    @classmethod
    def restored(cls, tensors: Mapping[str, torch.Tensor]) -> Self:
        """Make the map whose ``state_dict()`` was kept."""
        made = cls([0.0], [1.0])
        made.mean, made.std = tensors["mean"], tensors["std"]
        return made

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (batch, channels, n_mels, n_frames) in dB to the same shape, without a unit."""
        return (x - self.mean) / self.std
