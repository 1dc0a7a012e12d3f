"""What happens to the runs of a sweep: shown while it happens, and written to the store where a trial could not."""

import re
import time
from collections.abc import Callable
from typing import Any

from core.cluster.storage import Storage
from core.cluster.trial_source import Feed
from core.config.run import Run
from core.executor import lot_label, record_failure, say_accuracy
from core.session import Session
from core.store.runs import FAILED, FINISHED, RECORD, STOPPED

SHOW_EVERY = 0.5  # seconds
NODES_EVERY = 30.0  # seconds between two looks for a node that could run a trial, while none runs
DEATHS = {  # what Ray says of a process that is gone: what we say
    "out.of.memory|OutOfMemory|low on memory|memory pressure": "its process was killed because memory ran out; lower "
    "--max-concurrent or raise --cpus-per-trial",
    "node (?:has |was )?(?:died|dead|terminated|failed|removed)|not schedulable.*[Nn]ode": "its node was lost",
    "actor (?:has )?died|actor is dead|worker (?:process )?(?:has )?died|unexpectedly": "its process was killed",
}


class Watch:
    """Follows trials: a line for each that ends, a moving one for each that runs, and one for the whole sweep.

    Parameters
    ----------
    feed
        Where the runs come from; it is told of each that is settled.
    session
        Store and progress.
    storage
        What finished runs are fetched from, if anything.
    schedulable
        Tells whether any node could run a trial.

    Attributes
    ----------
    refused
        What no trial can mend, once one has met it; the sweep then stops.
    """

    def __init__(
        self, feed: Feed, session: Session, storage: Storage | None, *, schedulable: Callable[[], bool]
    ) -> None:
        self.feed, self.session, self.storage, self.schedulable = feed, session, storage, schedulable
        self.running: set[str] = set()
        self.done = self.failures = 0
        self.best = 0.0
        self.refused = ""
        self.begun = self.shown = self.looked = time.monotonic()

    def started(self, config: dict[str, Any]) -> None:
        """Note that a run is being trained."""
        self.running |= {run.id for run in _runs(config)}

    def reported(self, config: dict[str, Any], result: dict[str, Any]) -> None:
        """Show an epoch, or stop for what no trial can mend."""
        if "refused" in result:
            self.refused = result["refused"]
        elif "epoch" in result:
            epochs, accuracy = config["runs"][0]["training"]["epochs"], result["test_accuracy"]
            self.session.report(result["epoch"], epochs, config["labels"][0], f"test accuracy {accuracy:.1%}")

    def died(self, config: dict[str, Any], trace: str) -> None:
        """Tell that a trial has died and will go on."""
        self.running -= {run.id for run in _runs(config)}
        name = lot_label(config["labels"])
        self.session.report.drop(name)
        self.session.report.note(f"{name}: {reason(trace)}; going on from its last checkpoint")

    def ended(self, config: dict[str, Any], result: dict[str, Any]) -> None:
        """Settle runs that have finished, failed by their own numbers, or were stopped early."""
        if "refused" in result:
            return
        for run, name in zip(_runs(config), config["labels"], strict=True):
            self.session.report.drop(name)
            if failure := result.get("failed", {}).get(run.id):
                record_failure(run, self.session, label=name, reason=failure["reason"], trace=failure["trace"])
            elif not self._finished(run, name):
                self._stop(run, name, result)
            self._settle(run)

    def failed(self, config: dict[str, Any], trace: str) -> None:
        """Record what a trial has not finished that failed for good."""
        for run, name in zip(_runs(config), config["labels"], strict=True):
            if not self._finished(run, name):
                record_failure(run, self.session, label=name, reason=reason(trace), trace=trace)
            self._settle(run)

    def _finished(self, run: Run, name: str) -> bool:
        """Tell whether a run has finished, and what it has reached."""
        if self.storage:
            collect(run, self.session, self.storage)
        finished = self.session.store.status(run) == FINISHED
        if finished:
            say_accuracy(run, self.session, label=name)
        return finished

    def tick(self) -> None:
        """Show how far the sweep is, and whether there is still a node to run it."""
        now = time.monotonic()
        if now - self.shown >= SHOW_EVERY:
            self._show()
        if self.running:
            self.looked = now
        elif now - self.looked >= NODES_EVERY:
            self.looked = now
            if not self.schedulable():
                self.session.report.note("No node is left that could run a trial; waiting for one (Ctrl-C stops).")

    def _stop(self, run: Run, name: str, row: dict[str, Any]) -> None:
        scores = {key: row[key] for key in ("epoch", "validation_accuracy", "validation_loss")}
        why = f"stopped early, after epoch {row['epoch']} of {run.training.epochs}"
        self.session.store.write_record(run, STOPPED, {"reason": why, "metrics": scores})
        self.session.report.note(f"{name}: {why}, with a validation accuracy of {row['validation_accuracy']:.1%}")

    def _settle(self, run: Run) -> None:
        self.running.discard(run.id)
        self.done += 1
        if record := self.session.store.record(run):
            self.failures += record.status == FAILED
            if record.finished:
                self.best = max(self.best, record.metrics.accuracy)
        self.feed.settled(run)
        self._show()

    def _show(self) -> None:
        self.shown = time.monotonic()
        done, total = self.feed.found + self.done, self.feed.total
        parts = [f"{len(self.running)} running, {self.failures} failed"]
        if self.best:
            parts.append(f"best {self.best:.1%}")
        if self.done and done < total:
            left = (self.shown - self.begun) / self.done * (total - done)
            parts.append(f"about {max(1, round(left / 60))} min left" if left >= 60 else f"about {left:.0f} s left")
        self.session.report(done, total, "runs", ", ".join(parts))


def collect(run: Run, session: Session, storage: Storage) -> None:
    """Bring a finished run from the storage into the store, if it is there."""
    if storage.has(f"runs/{run.id}/{RECORD}"):
        storage.get_run(session.store.folder(run))


def reason(trace: str) -> str:
    """Say in one line why a trial ended, from what Ray noted of it; the last failure counts."""
    last = re.split(r"^Failure # \d+.*$", trace, flags=re.MULTILINE)[-1]
    # An error of the trial's own begins its trace with "ray::"; Ray's list of processes has it further along its lines.
    own = "Traceback" in last or re.search(r"^\S*ray::", last, flags=re.MULTILINE)
    for said, meant in DEATHS.items():
        if not own and re.search(said, last, flags=re.IGNORECASE):
            return meant
    lines = [line.strip() for line in last.splitlines() if line.strip()]
    return lines[-1] if lines else "it ended without saying why"


def _runs(config: dict[str, Any]) -> list[Run]:
    return [Run.from_dict(run) for run in config["runs"]]
