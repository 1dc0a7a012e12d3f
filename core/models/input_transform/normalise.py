"""Input normalisation, the first module of a network: from the unit of the input to the range of the backbone."""

import math
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import torch
from torch import nn

from core.errors import UserError
from core.inputs.base import ArrayLike

_CHUNK = 64  # inputs per chunk when statistics are computed


class Normalise(nn.Module):
    """Subtract the mean and divide by the standard deviation of each channel, or of each feature of a vector.

    Images stored as one channel are broadcast to the number of means, normally three.

    Parameters
    ----------
    mean, std
        One value per channel, in the input's unit.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    @classmethod
    def fixed(cls, mean: Sequence[float], std: Sequence[float], value_range: tuple[float, float]) -> Self:
        """Return a normalisation that needs no data: scale the value range to 0 .. 1, then apply the backbone's own.

        Parameters
        ----------
        mean, std
            Mean and standard deviation per channel of the pretraining images, whose values are 0 .. 1.
        value_range
            Values mapped to 0 and 1, in the unit of the inputs (`core.inputs.base.Layout.value_range`).
        """
        low, span = value_range[0], value_range[1] - value_range[0]
        return cls([low + span * m for m in mean], [span * s for s in std])

    @classmethod
    def of(cls, inputs: ArrayLike, rows: np.ndarray, *, channels: int = 1, per_row: bool = False) -> Self:
        """Return the normalisation that gives the inputs `rows` mean 0 and standard deviation 1 in each channel.

        A feature that is the same in all training clips becomes 0.

        Parameters
        ----------
        inputs
            (clips, channels, ...), or (clips, features); may be memory-mapped.
        rows
            Indices (training clips,) of the training clips.
        channels
            Number of channels the network expects if one is stored.
        per_row
            Whether each row of an image is normalised separately (`core.inputs.base.InputKind.per_row`).

        Raises
        ------
        UserError
            If a channel of images is constant, or values are not finite.
        """
        apart = inputs.shape[1 : 3 if per_row else 2]
        positions = tuple(range(1 + len(apart), inputs.ndim))
        count = len(rows) * math.prod(inputs.shape[1 + len(apart) :])
        total, squares = np.zeros(apart), np.zeros(apart)
        chunks = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
        for chunk in chunks:
            total += inputs[chunk].sum(axis=(0, *positions), dtype=np.float64)
        mean = total / max(count, 1)
        for chunk in chunks:  # second pass: sum(x^2) - n mean^2 would lose digits
            squares += ((inputs[chunk] - mean.reshape(*apart, *(1 for _ in positions))) ** 2).sum(axis=(0, *positions))
        std = np.sqrt(squares / max(count, 1))
        if inputs.ndim == 2 and len(rows):  # a constant feature becomes 0, as with scikit-learn's StandardScaler
            constant = np.all([(inputs[chunk] == inputs[rows[0]]).all(axis=0) for chunk in chunks], axis=0)
            std = np.where(constant & np.isfinite(mean), 1, std)
        if not (np.isfinite(std) & (std > 0)).all():
            what = "images" if inputs.ndim == 4 else "inputs"
            raise UserError(
                f"--normalise train: the training {what} do not vary or are not finite; use --normalise fixed"
            )
        transform = cls([0.0], [1.0])
        copies = (channels if apart[0] == 1 else 1, *(1 for _ in inputs.shape[2:]))
        transform.mean, transform.std = (
            torch.tensor(part, dtype=torch.float32).view(1, *apart, *(1 for _ in positions)).repeat(1, *copies)
            for part in (mean, std)
        )
        return transform

    @classmethod
    def restored(cls, tensors: Mapping[str, torch.Tensor]) -> Self:
        """Return the normalisation with a stored ``state_dict()``."""
        transform = cls([0.0], [1.0])
        transform.mean, transform.std = tensors["mean"], tensors["std"]
        return transform

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise inputs (batch, channels, ...); one channel is broadcast to the number of means."""
        return (x - self.mean) / self.std
