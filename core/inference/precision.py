"""The numbers that a network computes with, and how its images are laid out."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import TypeVar

import torch
from torch import nn

from core.config.run import Training
from core.errors import UserError
from core.inference import depthwise

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
INSTRUCTIONS = ("avx512_bf16", "amx_bf16")  # of a CPU, that multiply bfloat16 numbers
Network = TypeVar("Network", bound=nn.Module)


@cache
def multiplies_bf16() -> bool:
    """Tell whether torch multiplies bfloat16 numbers in hardware on this CPU.

    Without such instructions bf16 is emulated, slower than fp32. The CPU may have them while torch is limited to older
    ones, for example by ``ATEN_CPU_CAPABILITY=avx2``.
    """
    if not torch.backends.mkldnn.is_available() or not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return False
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # an old torch does not say
    return any(capabilities.get(name) for name in INSTRUCTIONS)


def computed_in(precision: str, device: torch.device) -> str:
    """Return the precision that a device computes in where `precision` is asked for.

    The coarser products of tf32 and the range of fp16 are a GPU's: a CPU computes in fp32 instead.
    """
    if device.type == "cuda":
        return precision
    return "bf16" if precision == "bf16" and multiplies_bf16() else "fp32"


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse to train in bf16 on a CPU that only imitates it.

    Raises
    ------
    UserError
        Naming what is missing.
    """
    if precision == "bf16" and computed_in(precision, device) != "bf16":
        raise UserError(
            f"--precision bf16: this CPU has no instructions for it ({' or '.join(INSTRUCTIONS)}) and would be slower "
            "than in fp32: leave it out, or train on a GPU"
        )


class Arithmetic:
    """How a run computes on a device.

    Parameters
    ----------
    training
        precision and channels_last.
    device
        Where.

    Attributes
    ----------
    precision
        That is computed in, which a CPU may decide (`computed_in`).
    dtype
        Of the factors of convolutions and products.
    layout
        Of images and the kernels that they meet.
    """

    def __init__(self, training: Training, device: torch.device) -> None:
        self.device = device
        self.precision = computed_in(training.precision, device)
        self.dtype = DTYPES[self.precision]
        self.layout = torch.channels_last if training.channels_last else torch.contiguous_format

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Compute in the precision that is computed in, with quick gradients of depthwise convolutions on a CPU."""
        if self.dtype == torch.float32:
            yield
            return
        quick = depthwise.QuickGradients() if self.device.type == "cpu" else nullcontext()
        with torch.autocast(self.device.type, dtype=self.dtype), quick:
            yield

    def laid_out(self, inputs: torch.Tensor) -> torch.Tensor:
        """Move inputs (batch, ...) to the device, images in the layout of the network."""
        inputs = inputs.to(self.device)
        return inputs.contiguous(memory_format=self.layout) if inputs.ndim == 4 else inputs

    def place(self, network: Network) -> Network:
        """Move a network to the device, in the layout of its images; in 16 bits its classifier stays in float32."""
        network = network.to(self.device).to(memory_format=self.layout)
        if self.dtype != torch.float32:
            linear = [module for module in network.modules() if type(module) is nn.Linear]
            for classifier in linear[-1:]:
                classifier.__class__ = Classifier
        return network


class Classifier(nn.Linear):
    """A linear layer that computes in float32 whatever is asked for around it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, in_features), of any precision, to float32 (batch, out_features)."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


class Entrance(nn.Module):
    """What takes stored activations back to the precision that they were computed in, without loss.

    Parameters
    ----------
    dtype
        Theirs.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x` in that precision."""
        return x.to(self.dtype)
