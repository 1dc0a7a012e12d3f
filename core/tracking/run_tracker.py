"""`RunTracker`: send the epochs and the results of runs to a client of an experiment tracker.

The trainer reports each epoch to `Session.on_epoch`, and the executor reports the end of each run. Both work in the
process of the command, also with Ray, so that the nodes of a cluster need neither the tracker nor its credentials.
"""

import dataclasses
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from core.config.run import Run, field_of
from core.errors import UserError, first_line
from core.store.run_store import FAILED, FINISHED, Store
from core.store.run_table import list_options
from core.tracking import CLIENTS

EPOCH = "epoch"
CHANGES = ("freeze", "fuse", "cut")  # fields that an ablation sets to change the network
CURVE = re.compile("lr|(train|validation|test)_(loss|accuracy)")  # columns of a history that are sent


class TrackerClient(ABC):
    """Connection to an experiment tracker.

    Parameters
    ----------
    results
        The results folder; files of the tracker go there unless its environment variables say otherwise.

    Raises
    ------
    UserError
        If the package is not installed, or the server cannot be reached.
    """

    @abstractmethod
    def __init__(self, results: Path) -> None: ...

    @abstractmethod
    def start(self, run_id: str, name: str, options: Mapping[str, Any]) -> set[int]:
        """Create a run of the tracker, or open the one that an earlier command created for the same run id.

        Returns
        -------
        epochs
            The epochs that an earlier command sent, as far as the tracker can tell.
        """

    @abstractmethod
    def log(self, run_id: str, epoch: int, values: Mapping[str, float]) -> None:
        """Add the values of an epoch (from 1) to the curves of a run."""

    @abstractmethod
    def end(self, run_id: str, metrics: Mapping[str, float], failure: str) -> None:
        """Write the final metrics and close a run; `failure` is the reason of a failed run, "" for a finished one."""


class RunTracker:
    """Sends runs to an experiment tracker. After an error of the tracker, training continues without it.

    Parameters
    ----------
    name
        Name of the tracker in `CLIENTS`, or "none" to send nothing.
    store
        Store of the runs.
    note
        Function that shows one line.
    """

    def __init__(self, name: str, store: Store, note: Callable[[str], None]) -> None:
        self.name, self.store, self.note = name, store, note
        self._client: TrackerClient | None = None
        self._sent: dict[str, set[int]] = {}  # numbers of the epochs that have been sent, by run id

    def connect(self) -> None:
        """Connect to the tracker before runs are trained; raise `UserError` if that is not possible."""
        if self.name != "none" and self._client is None:
            try:
                client = CLIENTS[self.name]
            except ImportError as error:
                install = f"pip install 'audio-ablation[{self.name}]'"
                raise UserError(f"--track {self.name}: {first_line(error)}; {install}") from None
            self._client = client(self.store.results)

    def log_epoch(self, run: Run, row: Mapping[str, Any]) -> None:
        """Send the curves of a row of a run's history, unless that epoch has been sent."""
        self._send(lambda client: self._log(client, run, row))

    def end_run(self, run: Run) -> None:
        """Send the epochs that have not been sent yet and the final metrics of a run, from its files in the store."""
        self._send(lambda client: self._end(client, run))

    def _send(self, send: Callable[[TrackerClient], None]) -> None:
        if self._client is None:
            return
        try:
            send(self._client)
        except Exception as error:
            self._client = None
            self.note(
                f"--track {self.name}: {first_line(error) or type(error).__name__}; training continues without tracking"
            )

    def _start(self, client: TrackerClient, run: Run) -> None:
        if run.id not in self._sent:
            self._sent[run.id] = client.start(run.id, name_run(run), list_options(run))

    def _log(self, client: TrackerClient, run: Run, row: Mapping[str, Any]) -> None:
        self._start(client, run)
        if (epoch := int(row[EPOCH])) not in self._sent[run.id]:
            self._sent[run.id].add(epoch)
            client.log(run.id, epoch, _numbers({name: row[name] for name in row if CURVE.fullmatch(name)}))

    def _end(self, client: TrackerClient, run: Run) -> None:
        record = self.store.record(run)
        if record is None:
            return
        if record.status == FINISHED:
            for row in self.store.history(run).to_dict("records"):
                self._log(client, run, {str(name): value for name, value in row.items()})
        self._start(client, run)
        metrics = {f"final/{name}": value for name, value in dataclasses.asdict(record.metrics).items()}
        client.end(run.id, _numbers(metrics), (record.reason or FAILED) if record.status == FAILED else "")
        del self._sent[run.id]


def name_run(run: Run) -> str:
    """Return the name of a run in a tracker, such as ``esc50 resnet50 freeze block3, fold 1, seed 0``."""
    values = list_options(run)
    changes = [f"{name} {values[name]}" for name in CHANGES if values[name] != field_of(f"model__{name}").default]
    words = [run.data.name, run.model.backbone, *changes]
    return f"{' '.join(words)}, fold {run.data.fold}, seed {run.seed}"


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite numbers of a mapping: trackers have no NaN."""
    return {
        name: float(value) for name, value in values.items() if isinstance(value, int | float) and math.isfinite(value)
    }
