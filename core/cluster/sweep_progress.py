"""Display the progress of a sweep, and record failures of trials that were killed."""

import re
import time
from collections.abc import Callable
from typing import Any

from core.cluster.storage import Storage
from core.cluster.trial_source import TrialSource
from core.config.run import Run
from core.errors import MachineError
from core.executor import group_label, record_failure, report_accuracy
from core.progress import format_duration
from core.session import Session
from core.store.run_store import FAILED, FINISHED, RECORD, STOPPED
from core.training.evaluation import format_accuracy
from core.training.time_left import TimeLeft

SHOW_SECONDS = 0.5  # seconds between two updates of the display
NODE_CHECK_SECONDS = 30.0  # seconds between two checks for a suitable node, while no trial runs
MEMORY_MESSAGE = "its process was killed because memory ran out; lower --max-concurrent or raise --cpus-per-trial"
DEATH_MESSAGES = {  # regular expression for the message of Ray: message for the user
    "out.of.memory|OutOfMemory|low on memory|memory pressure": MEMORY_MESSAGE,
    "node (?:has |was )?(?:died|dead|terminated|failed|removed)|not schedulable.*[Nn]ode": "its node was lost",
    "actor (?:has )?died|actor is dead|worker (?:process )?(?:has )?died|unexpectedly": "its process was killed",
}


class SweepProgress:
    """Displays a line for each ended run, a bar for each running one, and a bar for the sweep.

    Parameters
    ----------
    source
        The runs; its `run_ended` is called after the end of each run.
    session
        Provides the store and the display.
    storage
        The storage to fetch finished runs from, or None.
    time_left
        Estimate of the time that the runs still take.
    schedulable
        Function that returns whether a node can run a trial.

    Attributes
    ----------
    fatal_error
        Message of an error that affects every trial, or "". The sweep stops after such an error.
    """

    def __init__(
        self,
        source: TrialSource,
        session: Session,
        storage: Storage | None,
        time_left: TimeLeft,
        *,
        schedulable: Callable[[], bool],
    ) -> None:
        self.source, self.session, self.storage, self.schedulable = source, session, storage, schedulable
        self.running: set[str] = set()
        self.done = self.failures = 0
        self.fatal_error = ""
        self.time_left = time_left
        self.display_time = self.node_check_time = time.monotonic()

    def on_start(self, config: dict[str, Any]) -> None:
        """Count the runs of a trial as running."""
        runs = _runs_of_trial(config)
        self.running |= {run.id for run in runs}
        for run in runs:
            self.time_left.start(run)

    def on_report(self, config: dict[str, Any], result: dict[str, Any]) -> None:
        """Show an epoch, or store an error that stops the sweep."""
        if "fatal_error" in result:
            self.fatal_error = result["fatal_error"]
        elif "epoch" in result:
            accuracy = format_accuracy(validation=result.get("validation_accuracy"), test=result["test_accuracy"])
            run = Run.from_dict(config["runs"][0])
            self.session.tracker.log_epoch(run, result)
            self.session.show_epoch(run, {run.id: result}, config["labels"][0], accuracy)

    def on_death(self, config: dict[str, Any], trace: str) -> None:
        """Report a killed trial, which resumes from its last checkpoint."""
        self.running -= {run.id for run in _runs_of_trial(config)}
        name = group_label(config["labels"])
        self.session.report.drop(name)
        self.session.report.note(f"{name}: {trial_end_reason(trace)}; resuming from its last checkpoint")

    def on_end(self, config: dict[str, Any], result: dict[str, Any]) -> None:
        """Record the state of the runs of an ended trial: finished, failed (non-finite loss) or stopped early."""
        if "fatal_error" in result:
            return
        for run, name in zip(_runs_of_trial(config), config["labels"], strict=True):
            self.session.report.drop(name)
            if failure := result.get("failed", {}).get(run.id):
                record_failure(run, self.session, label=name, reason=failure["reason"], trace=failure["trace"])
            elif not self._finished(run, name):
                self._stop(run, name, result)
            self._end_run(run)

    def on_failure(self, config: dict[str, Any], trace: str) -> None:
        """Record the unfinished runs of a trial as failed after its last attempt; stop if the machine is the reason."""
        reason = trial_end_reason(trace)
        for run, name in zip(_runs_of_trial(config), config["labels"], strict=True):
            if not self._finished(run, name):
                if reason == MEMORY_MESSAGE or MachineError.__name__ in reason:
                    self.fatal_error = f"{name}: {reason}"
                else:
                    record_failure(run, self.session, label=name, reason=reason, trace=trace)
            self._end_run(run)

    def _finished(self, run: Run, name: str) -> bool:
        """Return whether a run has finished; if so, show its accuracy."""
        if self.storage:
            fetch_run(run, self.session, self.storage)
        finished = self.session.store.status(run) == FINISHED
        if finished:
            report_accuracy(run, self.session, label=name)
        return finished

    def tick(self) -> None:
        """Update the display, and write a line if no node is left that can run a trial."""
        now = time.monotonic()
        if now - self.display_time >= SHOW_SECONDS:
            self._show()
        if self.running:
            self.node_check_time = now
        elif now - self.node_check_time >= NODE_CHECK_SECONDS:
            self.node_check_time = now
            if not self.schedulable():
                self.session.report.note("No node can run a trial; waiting for one (Ctrl-C stops).")

    def _stop(self, run: Run, name: str, row: dict[str, Any]) -> None:
        scores = {key: row[key] for key in ("epoch", "validation_accuracy", "validation_loss")}
        why = f"stopped early, after epoch {row['epoch']} of {run.training.epochs}"
        self.session.store.write_record(run, STOPPED, {"reason": why, "metrics": scores})
        self.session.tracker.end_run(run)
        self.session.report.note(f"{name}: {why}, with a validation accuracy of {row['validation_accuracy']:.1%}")

    def _end_run(self, run: Run) -> None:
        self.running.discard(run.id)
        self.done += 1
        self.time_left.end(run)
        if record := self.session.store.record(run):
            self.failures += record.status == FAILED
        self.source.run_ended(run)
        self._show()

    def _show(self) -> None:
        self.display_time = time.monotonic()
        done, total = self.source.found + self.done, self.source.total
        parts = [f"{len(self.running)} running, {self.failures} failed"]
        if done < total and (seconds := self.time_left.compute_seconds()):
            parts.append(f"about {format_duration(seconds)} left")
        self.session.report(done, total, "runs", ", ".join(parts))


def fetch_run(run: Run, session: Session, storage: Storage) -> None:
    """Copy a finished run from the storage into the store, if it is there."""
    if storage.has(f"runs/{run.id}/{RECORD}"):
        storage.get_run(session.store.folder(run))


def trial_end_reason(trace: str) -> str:
    """Return the reason why a trial ended in one line, from the last failure in Ray's error file."""
    last = re.split(r"^Failure # \d+.*$", trace, flags=re.MULTILINE)[-1]
    # The traceback of an error in the trial begins with "ray::"; in Ray's list of processes no line begins with it.
    has_traceback = "Traceback" in last or re.search(r"^\S*ray::", last, flags=re.MULTILINE)
    for pattern, message in DEATH_MESSAGES.items():
        if not has_traceback and re.search(pattern, last, flags=re.IGNORECASE):
            return message
    lines = [line.strip() for line in last.splitlines() if line.strip()]
    return lines[-1] if lines else "it ended without a message"


def _runs_of_trial(config: dict[str, Any]) -> list[Run]:
    return [Run.from_dict(run) for run in config["runs"]]
