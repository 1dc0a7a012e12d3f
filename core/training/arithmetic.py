"""The numbers that a network computes with, and how its images are laid out."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from core.config import Training

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Arithmetic:
    """How a run computes on a device.

    Parameters
    ----------
    training
        precision and channels_last.
    device
        Where; a precision other than fp32 holds on a GPU only.

    Attributes
    ----------
    dtype
        Of the factors of convolutions and products.
    layout
        Of images and the kernels that they meet.
    """

    def __init__(self, training: Training, device: torch.device) -> None:
        self.device = device
        self.dtype = DTYPES[training.precision] if device.type == "cuda" else torch.float32
        self.layout = torch.channels_last if training.channels_last else torch.contiguous_format

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Compute in the precision asked for."""
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            yield
