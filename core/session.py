"""The store, the device and the cached tensors that all runs of one command share."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch

from core.config.execution import ExecutionOptions
from core.config.run import Run
from core.progress import NullReporter, Reporter
from core.store.run_store import Store
from core.system.devices import available_memory, count_cores, find_device
from core.system.torch_settings import set_up_torch
from core.tracking.run_tracker import RunTracker


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
        self.device_cache = DeviceCache(available_memory(self.device) // 2)
        self.tracker = RunTracker(execution.track, self.store, self.report.note)
        # Called after each epoch with its row of the history.
        self.on_epoch: Callable[[Run, dict[str, Any]], None] | None = (
            self.tracker.log_epoch if execution.track != "none" else None
        )
        self.is_ray_trial = False
