"""The map from an input's unit to the range a backbone was trained on, as the network's first module."""

import math
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import torch
from torch import nn

from core.errors import UserError
from core.inputs.base import Rows

_CHUNK = 64  # inputs whose statistics are taken at once


class Normalise(nn.Module):
    """Subtract a mean and divide by a deviation, channel by channel; of a vector each number is its own channel.

    Images that are kept as one channel become as many as there are means: a picture's three, which were equal.

    Parameters
    ----------
    mean, std
        One number per channel of an image, in the inputs' unit.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    @classmethod
    def fixed(cls, mean: Sequence[float], std: Sequence[float], picture: tuple[float, float]) -> Self:
        """Make the map that looks at no data: the picture's range as 0 .. 1, then the backbone's own normalisation.

        Parameters
        ----------
        mean, std
            Of the pictures the backbone was trained on, per channel, in units of 0 .. 1.
        picture
            What is 0 and what is 1 in the inputs' unit (`core.inputs.base.Layout.value_range`).
        """
        low, span = picture[0], picture[1] - picture[0]
        return cls([low + span * m for m in mean], [span * s for s in std])

    @classmethod
    def of(cls, inputs: Rows, rows: np.ndarray, *, channels: int = 1, rows_apart: bool = False) -> Self:
        """Make the map that gives the inputs named by `rows` mean 0 and deviation 1 in each channel.

        Parameters
        ----------
        inputs
            (clips, channels, ...), or (clips, features); may be memory-mapped.
        rows
            (training clips,) indices: those of the training folds only.
        channels
            That the network takes, where the inputs are kept as one.
        rows_apart
            Whether each row of an image is taken by itself (`core.inputs.base.Kind.rows_apart`).

        Raises
        ------
        UserError
            If a channel is constant or holds numbers that are not finite.
        """
        apart = inputs.shape[1 : 3 if rows_apart else 2]
        positions = tuple(range(1 + len(apart), inputs.ndim))
        count = len(rows) * math.prod(inputs.shape[1 + len(apart) :])
        total, squares = np.zeros(apart), np.zeros(apart)
        chunks = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
        for chunk in chunks:
            total += inputs[chunk].sum(axis=(0, *positions), dtype=np.float64)
        mean = total / max(count, 1)
        for chunk in chunks:  # a second pass: the difference of two large sums would lose digits
            squares += ((inputs[chunk] - mean.reshape(*apart, *(1 for _ in positions))) ** 2).sum(axis=(0, *positions))
        std = np.sqrt(squares / max(count, 1))
        if not (np.isfinite(std) & (std > 0)).all():
            what = "images" if inputs.ndim == 4 else "inputs"
            remedy = "use fixed" if inputs.ndim == 4 else "leave out numbers that never change"
            raise UserError(f"--normalise train: the training {what} do not vary or are not finite; {remedy}")
        made = cls([0.0], [1.0])
        copies = (channels if apart[0] == 1 else 1, *(1 for _ in inputs.shape[2:]))
        made.mean, made.std = (
            torch.tensor(part, dtype=torch.float32).view(1, *apart, *(1 for _ in positions)).repeat(1, *copies)
            for part in (mean, std)
        )
        return made

    @classmethod
    def restored(cls, tensors: Mapping[str, torch.Tensor]) -> Self:
        """Make the map whose ``state_dict()`` was kept."""
        made = cls([0.0], [1.0])
        made.mean, made.std = tensors["mean"], tensors["std"]
        return made

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map inputs (batch, channels, ...) to numbers without a unit; one channel to as many as there are means."""
        return (x - self.mean) / self.std
