"""The map from an input's unit to the range a backbone was trained on, as the network's first module."""

import math
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import torch
from torch import nn

from core.errors import UserError

_CHUNK = 64  # inputs whose statistics are taken at once


class Normalise(nn.Module):
    """Subtract a mean and divide by a deviation, channel by channel; of a vector each number is its own channel.

    Images that are kept as one channel become as many as there are means: a picture's three, which were equal.

    Parameters
    ----------
    mean, std
        One number per channel, in the inputs' unit.
    ndim
        Axes of a batch: 4 of images, 2 of vectors.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], *, ndim: int = 4) -> None:
        super().__init__()
        shape = (1, -1) + (1,) * (ndim - 2)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(shape))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(shape))

    @classmethod
    def fixed(cls, mean: Sequence[float], std: Sequence[float], picture: tuple[float, float]) -> Self:
        """Make the map that looks at no data: the picture's range as 0 .. 1, then the backbone's own normalisation.

        Parameters
        ----------
        mean, std
            Of the pictures the backbone was trained on, per channel, in units of 0 .. 1.
        picture
            What is 0 and what is 1 in the inputs' unit (`core.inputs.kind.Kind.picture`).
        """
        low, span = picture[0], picture[1] - picture[0]
        return cls([low + span * m for m in mean], [span * s for s in std])

    @classmethod
    def of(cls, inputs: np.ndarray, rows: np.ndarray, *, channels: int = 1) -> Self:
        """Make the map that gives the inputs named by `rows` mean 0 and deviation 1 in each channel.

        Parameters
        ----------
        inputs
            (clips, channels, ...), or (clips, features); may be memory-mapped.
        rows
            (training clips,) indices: those of the training folds only.
        channels
            That the network takes, where the inputs are kept as one.

        Raises
        ------
        UserError
            If a channel is constant or holds numbers that are not finite.
        """
        positions = tuple(range(2, inputs.ndim))
        count = len(rows) * math.prod(inputs.shape[2:])
        total = np.zeros(inputs.shape[1])
        squares = np.zeros(inputs.shape[1])
        chunks = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
        for chunk in chunks:
            total += inputs[chunk].sum(axis=(0, *positions), dtype=np.float64)
        mean = total / max(count, 1)
        for chunk in chunks:  # a second pass: the difference of two large sums would lose digits
            squares += ((inputs[chunk] - mean.reshape(-1, *(1 for _ in positions))) ** 2).sum(axis=(0, *positions))
        std = np.sqrt(squares / max(count, 1))
        if not (np.isfinite(std) & (std > 0)).all():
            what = "images" if inputs.ndim == 4 else "inputs"
            remedy = "use fixed" if inputs.ndim == 4 else "leave out numbers that never change"
            raise UserError(f"--normalise train: the training {what} do not vary or are not finite; {remedy}")
        copies = channels if len(mean) == 1 else 1
        return cls(mean.tolist() * copies, std.tolist() * copies, ndim=inputs.ndim)

    @classmethod
    def restored(cls, tensors: Mapping[str, torch.Tensor]) -> Self:
        """Make the map whose ``state_dict()`` was kept."""
        made = cls([0.0], [1.0])
        made.mean, made.std = tensors["mean"], tensors["std"]
        return made

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map inputs (batch, channels, ...) to numbers without a unit; one channel to as many as there are means."""
        return (x - self.mean) / self.std
