"""What the runs of one command share: the store, the device, and the tensors already on it."""

import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from core.config.execution import Execution
from core.config.options import whole_number
from core.errors import UserError
from core.progress import Reporter, Silent
from core.store.runs import Store

# What a container may take, as versions 2 and 1 of Linux's control groups say it.
CONTAINER = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


class Residents:
    """Tensors kept on the device between runs, the least recently used dropped first.

    Parameters
    ----------
    budget
        Bytes all of them may take together.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._kept: OrderedDict[str, torch.Tensor] = OrderedDict()

    def get(self, key: str, size: int, make: Callable[[], torch.Tensor]) -> torch.Tensor | None:
        """Return the tensor of `key`, made where it is not there yet, or None where `size` bytes can never fit."""
        if size > self.budget:
            return None
        if key not in self._kept:
            while self._kept and size + sum(t.nbytes for t in self._kept.values()) > self.budget:
                self._kept.popitem(last=False)
            self._kept[key] = make()
        self._kept.move_to_end(key)
        return self._kept[key]


class Session:
    """The store, the device and the threads that a command's runs use.

    Parameters
    ----------
    execution
        Where and on what to run.
    reporter
        Shows progress.

    Raises
    ------
    UserError
        For a device that is not there, or a results folder that cannot be written to.
    """

    def __init__(self, execution: Execution, reporter: Reporter | None = None) -> None:
        self.execution = execution
        self.report = reporter or Silent()
        self.store = Store(execution.results)
        elsewhere = execution.cluster.ray and execution.device == "cuda"  # the head of a cluster may have no GPU
        self.device = find_device("auto" if elsewhere else execution.device)
        self.threads = execution.threads or len(os.sched_getaffinity(0))
        torch.set_num_threads(self.threads)
        torch.backends.cudnn.benchmark = self.device.type == "cuda"
        allow_tf32(False)  # analyses compute in fp32; a run says what it allows
        self.residents = Residents(_memory(self.device) // 2)
        self.on_epoch: Callable[[dict[str, Any]], None] | None = None  # told every row of a history as it is made


def find_device(name: str) -> torch.device:
    """Return the device called ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises
    ------
    UserError
        Where there is no such device.
    """
    gpus = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda" if gpus else "cpu")
    kind, _, number = name.partition(":")
    if kind == "cpu" and not number:
        return torch.device("cpu")
    if kind != "cuda" or (number and whole_number(number) is None):
        raise UserError(f"--device {name}: choose from auto, cpu, cuda, cuda:N")
    if int(number or 0) >= gpus:
        raise UserError(f"--device {name}: this machine has {gpus} CUDA devices; say --device cpu")
    return torch.device(name)


def allow_tf32(allow: bool) -> None:
    """Let a GPU shorten the factors of fp32 products to 10 bits, or not; torch would, in convolutions, unasked."""
    torch.backends.cudnn.allow_tf32 = allow
    torch.backends.cuda.matmul.allow_tf32 = allow


def _memory(device: torch.device) -> int:
    """Return the bytes of memory free on a GPU, or for a CPU those there are: in a container what that may take."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    said = [path.read_text().strip() for path in CONTAINER if path.is_file()]
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([there, *(int(text) for text in said if text.isdecimal())])  # without a limit it says "max"
