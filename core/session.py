"""The store, the device and the cached tensors that all runs of one command share."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

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


class EpochTimer(Protocol):
    """Estimate of the time that runs still take (`core.training.time_left.TimeLeft`)."""

    def add_epoch(self, rows: Mapping[str, Mapping[str, Any]]) -> str:
        """Take the rows of an epoch by run id into account; return the time left in words."""

    def watch(self, batches: Iterable[torch.Tensor], run: Run) -> Iterable[torch.Tensor]:
        """Yield the batches of an epoch and measure its first steps."""

    def end(self, run: Run) -> None:
        """Count a run as done."""


class Session:
    """The store, the device and the threads that the runs of a command use.

    Parameters
    ----------
    execution
        Options for device, threads and folders.
    reporter
        Progress display; by default a `NullReporter`, which shows nothing.

    Raises
    ------
    UserError
        If the device does not exist, or the results folder cannot be written to.
    """

    def __init__(self, execution: ExecutionOptions, reporter: Reporter | None = None) -> None:
        self.execution = execution
        self.report = reporter or NullReporter()
        self.store = Store(execution.results, execution.output)
        on_workers = execution.cluster.ray and execution.device == "cuda"  # only the Ray workers need a GPU
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
        self.n_runs_to_come = 0  # number of runs that a search will choose after the next plan
        self.time_left: EpochTimer | None = None  # set before runs are trained

    def show_epoch(self, run: Run, rows: Mapping[str, Mapping[str, Any]], label: str, detail: str = "") -> None:
        """Show an epoch of a run, or of runs that are trained together, and the time left for all runs.

        Parameters
        ----------
        run
            One of the runs.
        rows
            Row of the history by run id.
        label
            Name of the run or of the group.
        detail
            Loss and accuracy.
        """
        left = self.time_left.add_epoch(rows) if self.time_left else ""
        epoch = max(row["epoch"] for row in rows.values())
        self.report(epoch, run.training.epochs, label, ", ".join(filter(None, [detail, left])), unit="epoch")

    def watch_batches(self, batches: Iterable[torch.Tensor], run: Run) -> Iterable[torch.Tensor]:
        """Return the batches of an epoch; their times give the first estimate of the time of all runs."""
        return self.time_left.watch(batches, run) if self.time_left else batches
