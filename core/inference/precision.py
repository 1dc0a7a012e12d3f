"""Precision, device and memory layout of a run's computation."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch
from torch import nn

from core.config.run import Training
from core.errors import UserError

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")  # CPU features for matrix products in bfloat16
Network = TypeVar("Network", bound=nn.Module)


@cache
def has_bf16_instructions() -> bool:
    """Tell whether torch multiplies bfloat16 numbers in hardware on this CPU.

    Without these instructions bf16 is emulated, which is slower than fp32. Torch may be limited to older instructions
    than the CPU has, for example by ``ATEN_CPU_CAPABILITY=avx2``.
    """
    if not torch.backends.mkldnn.is_available() or not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return False
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # missing in old versions
    return any(capabilities.get(name) for name in BF16_INSTRUCTIONS)


def effective_precision(precision: str, device: torch.device) -> str:
    """Return the precision that a device uses if `precision` is requested.

    tf32 and fp16 need a GPU; a CPU uses fp32 instead.
    """
    if device.type == "cuda":
        return precision
    return "bf16" if precision == "bf16" and has_bf16_instructions() else "fp32"


def check_precision(precision: str, device: torch.device) -> None:
    """Reject bf16 training on a CPU that only emulates bf16.

    Raises
    ------
    UserError
        If the CPU has none of `BF16_INSTRUCTIONS`; the message names them.
    """
    if precision == "bf16" and effective_precision(precision, device) != "bf16":
        raise UserError(
            f"--precision bf16: this CPU has no instructions for it ({' or '.join(BF16_INSTRUCTIONS)}), which makes it "
            "slower than fp32: leave it out, or train on a GPU"
        )


class ComputeMode:
    """Device, precision and memory layout of a run.

    Parameters
    ----------
    training
        Training options: precision and channels_last.
    device
        Device of the run.

    Attributes
    ----------
    precision
        Precision that the device uses (`effective_precision`).
    dtype
        Data type of convolutions and matrix products.
    layout
        Memory format of images and convolution weights.
    """

    def __init__(self, training: Training, device: torch.device) -> None:
        self.device = device
        self.precision = effective_precision(training.precision, device)
        self.dtype = DTYPES[self.precision]
        self.layout = torch.channels_last if training.channels_last else torch.contiguous_format

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Enable autocast in 16-bit precisions; do nothing in fp32 and tf32."""
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            yield

    def to_layout(self, inputs: torch.Tensor) -> torch.Tensor:
        """Move inputs (batch, ...) to the device, and images to the memory format of the network."""
        inputs = inputs.to(self.device)
        return inputs.contiguous(memory_format=self.layout) if inputs.ndim == 4 else inputs

    def to_device(self, network: Network) -> Network:
        """Move a network to the device and memory format; in 16 bits its last linear layer computes in float32."""
        network = network.to(self.device).to(memory_format=self.layout)
        if self.dtype != torch.float32:
            linear = [module for module in network.modules() if type(module) is nn.Linear]
            for classifier in linear[-1:]:
                classifier.__class__ = Float32Linear
        return network


class Float32Linear(nn.Linear):
    """Linear layer that computes in float32 even under autocast."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x (batch, in_features) of any dtype to (batch, out_features), float32."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


class CastTo(nn.Module):
    """Cast cached activations back to the dtype in which they were computed; this loses nothing.

    Parameters
    ----------
    dtype
        Target dtype.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x` cast to `dtype`."""
        return x.to(self.dtype)
