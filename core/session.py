"""The store, the device and the cached tensors that all runs of one command share."""

import math
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from core.config.execution import ExecutionOptions
from core.config.options import parse_whole_number
from core.config.run import Run
from core.errors import UserError
from core.io.torch_settings import set_up_torch
from core.progress import NullReporter, Reporter
from core.store.runs import Store

# Limits of a container (Linux control groups, versions 2 and 1): memory in bytes, and processor time.
CONTAINER_LIMIT_FILES = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
CPU_QUOTA_FILES = (
    (Path("/sys/fs/cgroup/cpu.max"),),  # "quota period" in microseconds, or "max period"
    (Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")),
)


class DeviceCache:
    """Tensors that stay on the device between runs; the least recently used are dropped first.

    Parameters
    ----------
    budget
        Maximum size of all tensors together, in bytes.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._tensors: OrderedDict[str, torch.Tensor] = OrderedDict()

    def get(self, key: str, size: int, make: Callable[[], torch.Tensor]) -> torch.Tensor | None:
        """Return the tensor of `key`, computed by `make` if missing, or None if `size` bytes exceed the budget."""
        if size > self.budget:
            return None
        if key not in self._tensors:
            while self._tensors and size + sum(t.nbytes for t in self._tensors.values()) > self.budget:
                self._tensors.popitem(last=False)
            self._tensors[key] = make()
        self._tensors.move_to_end(key)
        return self._tensors[key]


class Session:
    """The store, the device and the threads that the runs of a command use.

    Parameters
    ----------
    execution
        Options for device, threads and folders.
    reporter
        Shows progress.

    Raises
    ------
    UserError
        If the device does not exist, or the results folder cannot be written to.
    """

    def __init__(self, execution: ExecutionOptions, reporter: Reporter | None = None) -> None:
        self.execution = execution
        self.report = reporter or NullReporter()
        self.store = Store(execution.results, execution.output)
        on_workers = execution.cluster.ray and execution.device == "cuda"  # this machine may have no GPU
        self.device = find_device("auto" if on_workers else execution.device)
        self.threads = execution.threads or count_cores()
        set_up_torch(self.device, self.threads)
        self.device_cache = DeviceCache(_available_memory(self.device) // 2)
        self.on_epoch: Callable[[Run, dict[str, Any]], None] | None = None  # called after each epoch with its row


def count_cores() -> int:
    """Return the number of CPU cores that this process may use; in a container, its CPU quota is rounded up."""
    cores = len(os.sched_getaffinity(0))
    for files in CPU_QUOTA_FILES:
        numbers = [word for file in files if file.is_file() for word in file.read_text().split()]
        if len(numbers) == 2 and numbers[0].isdecimal() and int(numbers[1]) > 0:  # otherwise no limit: "max" or -1
            cores = min(cores, max(1, math.ceil(int(numbers[0]) / int(numbers[1]))))
    return cores


def find_device(name: str) -> torch.device:
    """Return the device called ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises
    ------
    UserError
        If there is no such device.
    """
    gpus = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda" if gpus else "cpu")
    kind, _, number = name.partition(":")
    if kind == "cpu" and not number:
        return torch.device("cpu")
    if kind != "cuda" or (number and parse_whole_number(number) is None):
        raise UserError(f"--device {name}: choose from auto, cpu, cuda, cuda:N")
    if int(number or 0) >= gpus:
        raise UserError(f"--device {name}: this machine has {gpus} CUDA devices; give --device cpu")
    return torch.device(name)


def _available_memory(device: torch.device) -> int:
    """Return the free bytes of a GPU, or the bytes that this process may use on a CPU (in a container: its limit)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    limits = [path.read_text().strip() for path in CONTAINER_LIMIT_FILES if path.is_file()]
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([installed, *(int(text) for text in limits if text.isdecimal())])  # "max" means no limit
