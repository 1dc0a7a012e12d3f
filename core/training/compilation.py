"""``--compile``: forward and backward pass compiled by torch, for one batch size.

Batches of another size, such as the last of an epoch, run without compilation, since every size would be compiled
separately. On a GPU the compiled programs are CUDA graphs, except in trials of Ray. Networks that differ only in
their tensors share a program.

No gain is known: on a CPU a step takes about the same time (`docs/speed.md`), and the option is off by default. For a
GPU, measure with ``python -m tests.benchmarks gpu_compile``.
"""

import logging
import os
import shutil
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from core.errors import UserError

COMPILERS = {"cpu": ("CXX", ("g++",)), "cuda": ("CC", ("gcc", "clang", "cc"))}  # the compilers that torch looks for
VERBOSE_LOGGERS = ("torch._dynamo", "torch._inductor", "torch._functorch", "torch.utils.cpp_extension")
MAX_PROGRAMS = 256  # programs that torch compiles in one process; its default is 8


def compile_network(network: nn.Module, device: torch.device) -> Callable[[Any], torch.Tensor]:
    """Compile a network for training.

    Modules that compute inputs on the fly are not compiled, since they use threads.

    Raises
    ------
    UserError
        If the machine has no C++ compiler.
    """
    check_compiler(device)
    _prepare_torch()
    parts = OrderedDict(network.named_children())
    if (images := parts.pop("images", None)) is None:
        return CompiledForBatchSize(network, device)
    rest = CompiledForBatchSize(nn.Sequential(parts), device)
    return lambda waveforms: rest(images(waveforms))


class CompiledForBatchSize:
    """A network that is compiled for the size of its first batch; batches of another size run uncompiled.

    Parameters
    ----------
    network
        Network; it must be in training mode when called.
    device
        Device of the network.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self.network = network
        self.size: int | None = None
        # Before version 2.14, torch sets up CUDA graphs only in the main thread, and Ray trains in other threads.
        self.uses_cuda_graphs = device.type == "cuda" and threading.current_thread() is threading.main_thread()
        mode = "reduce-overhead" if self.uses_cuda_graphs else None
        self.program: Any = torch.compile(network, dynamic=False, mode=mode)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Map inputs (batch, ...) to logits (batch, classes)."""
        if self.size is None:
            self.size = len(x)
        if self.uses_cuda_graphs:
            torch.compiler.cudagraph_mark_step_begin()  # outputs of the last step may be overwritten
        logits: torch.Tensor = (self.program if len(x) == self.size else self.network)(x)
        return logits


def check_compiler(device: torch.device) -> None:
    """Check that torch will find a C++ compiler.

    Raises
    ------
    UserError
        If there is no C++ compiler; the message names the compilers that torch looks for.
    """
    variable, names = COMPILERS[device.type]
    from_environment = os.environ.get(variable)
    if not any(map(shutil.which, [from_environment] if from_environment else names)):
        problem = (
            f"{variable}={from_environment} does not exist" if from_environment else f"{' or '.join(names)} not found"
        )
        raise UserError(f"--compile needs a C++ compiler, but {problem}: install one, or leave --compile out")


def _prepare_torch() -> None:
    """Raise the number of programs that torch compiles, and hide its log messages and warnings."""
    config: Any = torch._dynamo.config
    for new, old in (
        ("recompile_limit", "cache_size_limit"),
        ("accumulated_recompile_limit", "accumulated_cache_size_limit"),
    ):
        setattr(config, new if hasattr(config, new) else old, MAX_PROGRAMS)  # torch below 2.6 has the old names
    if "TORCH_LOGS" in os.environ:
        return
    for name in VERBOSE_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"torch\.(_dynamo|_inductor|_functorch)")
