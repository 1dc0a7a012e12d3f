"""The device of a command, and the CPU cores and memory that this process may use, also in a container."""

import math
import os
from pathlib import Path

import torch

from core.errors import UserError

# Limits of a container (Linux control groups, versions 2 and 1): memory in bytes, and processor time.
CONTAINER_LIMIT_FILES = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
CPU_QUOTA_FILES = (
    (Path("/sys/fs/cgroup/cpu.max"),),  # "quota period" in microseconds, or "max period"
    (Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")),
)


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
    if kind != "cuda" or (number and not number.isdecimal()):
        raise UserError(f"--device {name}: choose from auto, cpu, cuda, cuda:N")
    if int(number or 0) >= gpus:
        raise UserError(f"--device {name}: this machine has {gpus} CUDA devices; give --device cpu")
    return torch.device(name)


def available_memory(device: torch.device) -> int:
    """Return the free bytes of a GPU, or the bytes that this process may use on a CPU (in a container: its limit)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    limits = [path.read_text().strip() for path in CONTAINER_LIMIT_FILES if path.is_file()]
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([installed, *(int(text) for text in limits if text.isdecimal())])  # "max" means no limit
