"""Train the runs of one Ray Tune trial into the store.

A worker process runs many trials one after the other and keeps imported packages, the session and the tensors on the
device. With a storage, the store of a worker is a folder on its node, and files are copied through the storage.
"""

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from filelock import FileLock

from core.cache.entries import MANIFEST_FILE
from core.cluster.storage import Storage, node_folder
from core.config.execution import ExecutionOptions
from core.config.run import Run
from core.datasets.dataset import Dataset
from core.errors import MachineError, UserError, describe_failure
from core.executor import train_runs
from core.registry import Lazy
from core.session import Session
from core.store.run_store import CHECKPOINT, FINISHED, Store
from core.system.atomic_files import write_error_reason
from core.system.memory import keep_freed_memory
from core.training.step import NonFiniteLoss

tune = Lazy("ray.tune")
REPORT_SECONDS = 1.0  # seconds between two reports of a trial, unless a scheduler needs every epoch
UPLOAD_SECONDS = 30.0  # seconds between two checkpoints copied to the storage


@dataclass(frozen=True)
class TrialContext:
    """Settings that all trials of a sweep share.

    Attributes
    ----------
    datasets
        The data set of each run, by the content hash in its configuration (``data.content``).
    execution
        Device, threads of one trial and absolute results folder.
    share
        Fraction of the memory of its node (or of its GPU) that a trial may use, 0 to 1.
    every_epoch
        Whether to report every epoch, which a scheduler requires.
    """

    datasets: Mapping[str, Dataset]
    execution: ExecutionOptions
    share: float
    every_epoch: bool


_sessions: dict[ExecutionOptions, Session] = {}


class EpochReports:
    """Reports epochs to Ray Tune and copies checkpoints to the storage.

    Parameters
    ----------
    context
        The shared settings.
    store
        Store with the checkpoints.
    storage
        Storage that checkpoints are copied to, or None.
    """

    def __init__(self, context: TrialContext, store: Store, storage: Storage | None) -> None:
        self.context, self.store, self.storage = context, store, storage
        self.report_time = self.upload_time = time.monotonic()

    def __call__(self, run: Run, row: Mapping[str, Any]) -> None:
        """Report an epoch; a scheduler may end the trial here."""
        now, checkpoint = time.monotonic(), self.store.checkpoint(run)
        if self.storage and now - self.upload_time >= UPLOAD_SECONDS and checkpoint.exists():
            self.storage.put(checkpoint, f"runs/{run.id}/{CHECKPOINT}")
            self.upload_time = now
        if self.context.every_epoch or now - self.report_time >= REPORT_SECONDS:
            tune.report({"id": run.id, **row})
            self.report_time = time.monotonic()


def train_trial(config: Mapping[str, Any], context: TrialContext) -> dict[str, Any]:
    """Train the runs of a trial that have not finished yet.

    Parameters
    ----------
    config
        ``runs`` as dictionaries (`Run.to_dict`), and ``images``, the names of their cache entries.
    context
        Settings that all trials share.

    Returns
    -------
    result
        ``id``: id of the first run. ``failed``: ``reason`` and ``trace`` of failed runs, by run id. ``fatal_error``: an
        error that affects every trial. Errors that another attempt may avoid are raised instead.
    """
    runs = [Run.from_dict(run) for run in config["runs"]]
    result: dict[str, Any] = {"id": runs[0].id}
    try:
        session = get_session(context)
        torch.set_num_threads(session.threads)  # a setting per thread, and each trial has a new thread
        storage = Storage(context.execution.cluster.storage) if context.execution.cluster.storage else None
        with ExitStack() as locks:
            for run in sorted(runs, key=lambda run: run.id):  # the same order in all trials, to avoid deadlocks
                locks.enter_context(session.store.lock(run))
            missing = [run for run in runs if session.store.status(run) != FINISHED]
            failed = {
                run.id: failure for run, failure in _train_missing(missing, config["images"], context, session, storage)
            }
        if storage:
            for run in (run for run in runs if run.id not in failed):
                storage.put_run(session.store.folder(run))
                storage.remove(f"runs/{run.id}/{CHECKPOINT}")
    except MachineError:
        raise
    except UserError as error:
        return result | {"fatal_error": str(error)}
    except Exception as error:
        if not (reason := write_error_reason(error)):
            raise
        return result | {"fatal_error": f"cannot write run {runs[0].id} ({reason}); free space or change access rights"}
    return result | ({"failed": failed} if failed else {})


def get_session(context: TrialContext) -> Session:
    """Return the session of this process."""
    execution = context.execution
    if execution.cluster.storage:
        execution = dataclasses.replace(execution, results=node_folder())
    if execution not in _sessions:
        keep_freed_memory()  # this process runs nothing but trials
        session = Session(execution)
        session.device_cache.budget = int(session.device_cache.budget * context.share)
        _sessions.clear()
        _sessions[execution] = session
    return _sessions[execution]


def _train_missing(
    runs: Sequence[Run], images: list[str], context: TrialContext, session: Session, storage: Storage | None
) -> Iterator[tuple[Run, dict[str, str]]]:
    """Train the runs of a trial; yield each run that would fail again, with ``reason`` and ``trace`` of its failure.

    Any other error is raised, because another attempt may avoid it.
    """
    if not runs:
        return
    if storage:
        _fetch_inputs(runs, images, session, storage)
    session.on_epoch = EpochReports(context, session.store, storage)
    session.is_ray_trial = True
    dataset = context.datasets[runs[0].data.content]
    for run, error in train_runs(runs, dataset, session, {run.id: run.id for run in runs}):
        if isinstance(error, NonFiniteLoss | UserError):
            yield run, describe_failure(error)
        elif error:
            raise error


def _fetch_inputs(runs: Sequence[Run], images: list[str], session: Session, storage: Storage) -> None:
    """Copy the inputs and checkpoints of runs from the storage to this node."""
    for entry in images:
        fetch_entry(entry, session, storage)
    for run in runs:
        checkpoint = session.store.folder(run) / CHECKPOINT
        if not checkpoint.exists() and storage.has(f"runs/{run.id}/{CHECKPOINT}"):
            storage.get(f"runs/{run.id}/{CHECKPOINT}", checkpoint)


def fetch_entry(entry: str, session: Session, storage: Storage) -> None:
    """Copy a cache entry from the storage to this node, once for all processes."""
    folder = session.store.cache / entry
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".fetch")):
        if not (folder / MANIFEST_FILE).exists():
            storage.get_entry(folder)
