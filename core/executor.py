"""Make a plan true: train every run that is not in the store, here, lot after lot."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

from filelock import Timeout

from core.config.run import Run
from core.errors import ResultsError, UserError, failure
from core.io.atomic_files import explain_write_errors
from core.io.background_writer import Writing
from core.plan import Plan
from core.session import Session
from core.store.runs import FAILED, FINISHED
from core.training import results
from core.training.heads.groups import lots
from core.training.heads.head_runs import Bases
from core.training.heads.heads_trainer import train_together
from core.training.trainer import train


@dataclass(frozen=True)
class Executed:
    """What the execution of a plan did.

    Attributes
    ----------
    trained
        Number of runs that were trained now and did not fail.
    found
        Number of runs that needed no training.
    failed
        Number of failed runs of the plan, now or earlier.
    new
        Ids of the runs that were tried now, failed ones included.
    """

    trained: int
    found: int
    failed: int
    new: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Work:
    """What the lots of a plan have in common while it is executed."""

    plan: Plan
    session: Session
    writing: Writing
    bases: Bases
    refused: list[tuple[Run, UserError]] = field(default_factory=list)  # runs that raised a `UserError`


def execute(plan: Plan, session: Session) -> Executed:
    """Train the missing runs of a plan.

    Other processes may execute the same plan at the same time: a run is trained by whoever holds its lock, and what
    others hold is waited for last, one by one. A run that fails is recorded with its reason and the others go on; it
    is tried again only where that is asked for. Runs that can be are trained together
    (`core.training.heads.heads_trainer`), and written while the next are trained.

    Raises
    ------
    ResultsError
        If the results folder cannot be read or written.
    UserError
        If every run that was tried raised one: then it is the first, and no run is recorded as failed.
    """
    new: set[str] = set()
    with session.store.cached_records():
        missing = unfinished(plan, session)
        looked_for = {run.id for run in missing}
        failed = sum(session.store.status(run) == FAILED for run in plan.runs if run.id not in looked_for)
    found = len(plan.runs) - len(missing)
    held: list[Run] = []
    with explain_write_errors(session.store.runs), ExitStack() as every, Writing() as writing:
        work = Work(plan, session, writing, Bases())
        for lot in lots(missing, plan.datasets):
            locks = every.enter_context(ExitStack())
            new |= _train_missing([run for run in lot if _locked(run, plan, session, locks, held)], work)
            writing.after(locks.close)
        writing.settle(until=0)  # who holds others may be waiting for these
        for run in held:
            with session.store.lock(run).acquire():
                new |= _train_missing([run], work)
    if work.refused and len(work.refused) == len(new):
        raise work.refused[0][1]
    for run, error in work.refused:
        record_failure(run, session, label=label(run, plan), **failure(error))
    now_failed = [run for run in missing if session.store.status(run) == FAILED]
    trained = len(new - {run.id for run in now_failed})
    return Executed(trained, found, failed + len(now_failed), frozenset(new))


def _locked(run: Run, plan: Plan, session: Session, locks: ExitStack, held: list[Run]) -> bool:
    """Take the lock of a run; one that another process has goes to `held`."""
    try:
        locks.enter_context(session.store.lock(run).acquire(blocking=False))
    except Timeout:
        session.report.note(f"{label(run, plan)}: another process is training it; coming back to it")
        held.append(run)
        return False
    return True


def _train_missing(lot: Sequence[Run], work: Work) -> set[str]:
    """Train what is missing of the runs of a lot, whose locks this process holds; return their ids."""
    missing = [run for run in lot if not settled(run, work.session)]
    say_damaged(missing, work.plan, work.session)
    alone = missing if len(missing) < 2 else _train_together(missing, work)
    if alone:
        work.writing.settle(until=0)  # nobody would hear of them for as long as this takes
    for run in alone:
        _train(run, work)
    return {run.id for run in missing}


def label(run: Run, plan: Plan) -> str:
    """Name a run for people: its place in the plan, condition, fold and seed."""
    number, condition = plan.places[run.id]
    return f"[{number}/{len(plan.runs)}] {run.data.name} {condition} fold {run.data.fold} seed {run.seed}"


def lot_label(labels: Sequence[str]) -> str:
    """Name runs that are trained together by the first of them."""
    return labels[0] + (f" and {len(labels) - 1} more" if len(labels) > 1 else "")


def unfinished(plan: Plan, session: Session) -> Sequence[Run]:
    """Return the runs still to be trained."""
    return [run for run in plan.runs if not settled(run, session)]


def settled(run: Run, session: Session) -> bool:
    """Tell whether a run needs no training: it has finished, or failed and is not to be tried again."""
    status = session.store.status(run)
    return status == FINISHED or (status == FAILED and not session.execution.retry_failed)


def say_damaged(runs: Sequence[Run], plan: Plan, session: Session) -> None:
    """Name each run that is trained again because its record or a file of it is not as it was written."""
    for run in runs:
        if why := session.store.problem(run):
            session.report.note(f"{label(run, plan)}: run {run.id} is damaged ({why}); training it again")


def _train_together(runs: Sequence[Run], work: Work) -> list[Run]:
    """Train runs of one lot together and let them be written; return those that have to be trained alone."""
    plan, session = work.plan, work.session
    dataset, left = plan.datasets[runs[0].data.content], {run.id: run for run in runs}
    name = lot_label([label(run, plan) for run in runs])
    try:
        for ended in train_together(runs, dataset, session, label=name, bases=work.bases):
            work.writing.settle()
            if ended is None:
                continue
            del left[ended.run.id]
            own = label(ended.run, plan)
            if ended.error:
                record_failure(ended.run, session, label=own, **failure(ended.error))
            else:
                then, lost = (
                    partial(say_accuracy, ended.run, session, label=own),
                    partial(_train_again, ended.run, work),
                )
                work.writing.add(ended.write, then, lost)
    except ResultsError:
        raise
    except UserError as error:  # it concerns one of the runs, which shows when each is trained alone
        session.report.note(f"{name}: cannot be trained together ({error}); one by one")
    return list(left.values())


def _train_again(run: Run, work: Work, error: Exception) -> None:
    """Train a run alone that could not be written: what that comes from shows where it meets it alone."""
    why = f"{type(error).__name__}: {error}"
    work.session.report.note(f"{label(run, work.plan)}: cannot be written ({why}); training it alone")
    _train(run, work)


def _train(run: Run, work: Work) -> None:
    plan, session = work.plan, work.session
    name = label(run, plan)
    try:
        with explain_write_errors(session.store.folder(run)):
            train(run, plan.datasets[run.data.content], session, label=name)
    except ResultsError:
        raise
    except UserError as error:
        session.report.drop(name)
        work.refused.append((run, error))
        return
    except Exception as error:
        record_failure(run, session, label=name, **failure(error))
        return
    say_accuracy(run, session, label=name)


def record_failure(run: Run, session: Session, *, label: str, reason: str, trace: str) -> None:
    """Record that a run failed for good, with its reason in one line and the whole trace beside it."""
    session.report.drop(label)
    session.store.write_failure(run, results.provenance(session, run.training), reason=reason, trace=trace)
    session.report.note(f"{label}: failed: {reason}")


def say_accuracy(run: Run, session: Session, *, label: str) -> None:
    """Tell what a finished run has reached."""
    done = session.store.finished(run)
    assert done is not None
    session.report.note(f"{label}: accuracy {done.metrics.accuracy:.1%}, {done.seconds.total:.1f} s")
