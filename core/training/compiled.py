"""`--compile`: the forward and the backward pass of training as programs that torch makes for one size of batch.

Batches of another size, such as the last one of an epoch, are not compiled: each would take a minute more. On a GPU the
programs are CUDA graphs, which take the launch of each kernel out of small batches. Networks that differ in their
tensors alone share a program, whatever their number.
"""

import logging
import os
import shutil
import threading
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from core.errors import UserError
from core.registry import Lazy

COMPILERS = {"cpu": ("CXX", ("g++",)), "cuda": ("CC", ("gcc", "clang", "cc"))}  # what torch's own code looks for
VERBOSE_LOGGERS = ("torch._dynamo", "torch._inductor", "torch._functorch", "torch.utils.cpp_extension")
MAX_PROGRAMS = 256  # programs of one process; torch gives up at 8, and trains on uncompiled
_graphs = Lazy("torch._inductor.cudagraph_trees")


def compile_network(network: nn.Module, device: torch.device) -> Callable[[Any], torch.Tensor]:
    """Compile a network for training, except for the front end of inputs computed on the fly, which uses threads.

    Raises
    ------
    UserError
        Where the machine has no compiler.
    """
    check_compiler(device)
    _prepare_torch()
    parts = OrderedDict(network.named_children())
    if (images := parts.pop("images", None)) is None:
        return CompiledForBatchSize(network, device)
    rest = CompiledForBatchSize(nn.Sequential(parts), device)
    return lambda waveforms: rest(images(waveforms))


class CompiledForBatchSize:
    """A network that is compiled for batches of the size of the first one, and computes all others as it is.

    Parameters
    ----------
    network
        In training mode when it is called.
    device
        That it is on.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self.network = network
        self.cuda = device.type == "cuda"
        self.size: int | None = None
        if self.cuda:
            _allow_cuda_graphs_in_thread()
        mode = "reduce-overhead" if self.cuda else None
        self.program: Any = torch.compile(network, dynamic=False, mode=mode)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Map inputs (batch, ...) to logits (batch, classes)."""
        if self.size is None:
            self.size = len(x)
        if self.cuda:
            torch.compiler.cudagraph_mark_step_begin()  # nothing of the step before is read any more
        logits: torch.Tensor = (self.program if len(x) == self.size else self.network)(x)
        return logits


def check_compiler(device: torch.device) -> None:
    """Refuse to compile where torch finds no compiler.

    Raises
    ------
    UserError
        Naming it.
    """
    variable, names = COMPILERS[device.type]
    named = os.environ.get(variable)
    if not any(map(shutil.which, [named] if named else names)):
        asked = f"{variable}={named} is none" if named else f"there is no {' or '.join(names)}"
        raise UserError(f"--compile needs a C++ compiler, and {asked}: install one, or leave --compile out")


def _allow_cuda_graphs_in_thread() -> None:
    """Give this thread somewhere to keep CUDA graphs: below 2.14 torch gives it to the main one, and Ray's are others.

    Any other thread would end in an assertion at its first step.
    """
    containers: dict[int, Any] = {}
    for name, kept in (("tree_manager_containers", containers), ("tree_manager_locks", defaultdict(threading.Lock))):
        if not torch._C._is_key_in_tls(name):
            setattr(_graphs.local, name, kept)
            torch._C._stash_obj_in_tls(name, kept)


def _prepare_torch() -> None:
    """Let torch compile as many networks as a plan has, and keep what it says of itself off the terminal."""
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
