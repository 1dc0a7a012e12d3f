"""What a trial does in its process: train one run into the store, and say how far it is.

A process serves many trials one after the other and keeps what they share: the imported packages, the session, and
the tensors already on the device. Where the node does not see the results folder, the store is a folder of its own
and everything passes through the storage.
"""

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from core.cluster.storage import Storage, node_folder
from core.config.execution import Execution
from core.config.run import Run
from core.datasets.dataset import Dataset
from core.errors import UserError, failure
from core.io.atomic_files import write_failure
from core.io.background_writer import Writing
from core.io.memory import keep_freed_memory
from core.registry import Lazy
from core.session import Session
from core.store.runs import CHECKPOINT, FINISHED
from core.training.heads.head_runs import Bases
from core.training.heads.heads_trainer import train_together
from core.training.step import NonFiniteLoss
from core.training.trainer import train

tune = Lazy("ray.tune")
REPORT_EVERY = 1.0  # seconds between two reports of one trial, where no scheduler needs them all
UPLOAD_EVERY = 30.0  # seconds between two checkpoints sent to the storage


@dataclass(frozen=True)
class Work:
    """What all trials of a sweep have in common.

    Attributes
    ----------
    datasets
        Clips by ``data.content``.
    execution
        Where and on what to run, with the threads of a trial and an absolute results folder.
    share
        Part of its node's memory, or of one GPU's, that a trial may take.
    every_epoch
        Whether each epoch is reported, for a scheduler to judge by.
    """

    datasets: Mapping[str, Dataset]
    execution: Execution
    share: float
    every_epoch: bool


_sessions: dict[Execution, Session] = {}


class Progress:
    """Reports epochs to Ray Tune, and sends checkpoints to the storage.

    Parameters
    ----------
    run, work, storage, folder
        The run, what its trial knows, the storage if there is one, and the run's folder.
    """

    def __init__(self, run: Run, work: Work, storage: Storage | None, folder: Path) -> None:
        self.run, self.work, self.storage, self.folder = run, work, storage, folder
        self.reported = self.sent = time.monotonic()

    def __call__(self, row: Mapping[str, Any]) -> None:
        """Report an epoch; a scheduler may end the trial here."""
        now = time.monotonic()
        if self.storage and now - self.sent >= UPLOAD_EVERY and (self.folder / CHECKPOINT).exists():
            self.storage.put(self.folder / CHECKPOINT, f"runs/{self.run.id}/{CHECKPOINT}")
            self.sent = now
        if self.work.every_epoch or now - self.reported >= REPORT_EVERY:
            tune.report({"id": self.run.id, **row})
            self.reported = time.monotonic()


def trial(config: Mapping[str, Any], work: Work) -> dict[str, Any]:
    """Train one run, or several together, unless they are finished already.

    Parameters
    ----------
    config
        ``runs``, as `Run.to_dict` gives them; ``images``, the entries of the cache they read.
    work
        What all trials have in common.

    Returns
    -------
    result
        The first run's id; under ``failed`` the ``reason`` and the ``trace`` of each run, by its id, that cannot be
        trained at all; under ``refused`` what none can be trained for. What another attempt may mend is raised instead.
    """
    runs = [Run.from_dict(run) for run in config["runs"]]
    result: dict[str, Any] = {"id": runs[0].id}
    try:
        session = session_of(work)
        torch.set_num_threads(session.threads)  # of this thread, which is another one for each trial
        storage = Storage(work.execution.cluster.storage) if work.execution.cluster.storage else None
        with ExitStack() as locks:
            for run in sorted(runs, key=lambda run: run.id):  # in one order everywhere, so that none waits for ever
                locks.enter_context(session.store.lock(run))
            missing = [run for run in runs if session.store.status(run) != FINISHED]
            failed = {run.id: why for run, why in _trained(missing, config["images"], work, session, storage)}
        if storage:
            for run in (run for run in runs if run.id not in failed):
                storage.put_run(session.store.folder(run))
                storage.remove(f"runs/{run.id}/{CHECKPOINT}")
    except UserError as error:
        return result | {"refused": str(error)}
    except Exception as error:
        if not (why := write_failure(error)):
            raise
        return result | {"refused": f"cannot write run {runs[0].id} ({why}); free space or mend the folder's rights"}
    return result | ({"failed": failed} if failed else {})


def session_of(work: Work) -> Session:
    """Return this process's session, made once."""
    execution = work.execution
    if execution.cluster.storage:
        execution = dataclasses.replace(execution, results=node_folder())
    if execution not in _sessions:
        keep_freed_memory()  # this process belongs to the sweep alone
        session = Session(execution)
        session.residents.budget = int(session.residents.budget * work.share)
        _sessions.clear()
        _sessions[execution] = session
    return _sessions[execution]


def _trained(
    runs: Sequence[Run], images: list[str], work: Work, session: Session, storage: Storage | None
) -> Iterator[tuple[Run, dict[str, str]]]:
    """Train runs, together where that can be; go through those that failed by their own numbers, and why."""
    if storage:
        _bring(runs, images, session, storage)
    left = {run.id: run for run in runs}
    if len(runs) > 1:
        dataset = work.datasets[runs[0].data.content]
        with Writing() as writing:
            for ended in train_together(runs, dataset, session, label=runs[0].id, bases=Bases()):
                if ended is None:
                    continue
                del left[ended.run.id]
                if ended.error:
                    yield ended.run, failure(ended.error)
                else:
                    writing.add(ended.write)
    for run in left.values():
        session.on_epoch = Progress(run, work, storage, session.store.folder(run))
        try:
            train(run, work.datasets[run.data.content], session, label=run.id)
        except NonFiniteLoss as error:
            yield run, failure(error)


def _bring(runs: Sequence[Run], images: list[str], session: Session, storage: Storage) -> None:
    """Bring what runs read, and their checkpoints, to this node."""
    for entry in images:
        fetch(entry, session, storage)
    for run in runs:
        checkpoint = session.store.folder(run) / CHECKPOINT
        if not checkpoint.exists() and storage.has(f"runs/{run.id}/{CHECKPOINT}"):
            storage.get(f"runs/{run.id}/{CHECKPOINT}", checkpoint)


def fetch(entry: str, session: Session, storage: Storage) -> None:
    """Bring an entry of the cache to this node, once for all of its processes."""
    folder = session.store.cache / entry
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".fetch")):
        if not (folder / "manifest.json").exists():
            storage.get_entry(folder)
