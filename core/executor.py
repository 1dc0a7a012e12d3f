"""Make a plan true: train every run that is not in the store, here, lot after lot."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from filelock import Timeout

from core.config import Run
from core.errors import UserError, failure
from core.files import written_below
from core.plan import Plan
from core.session import Session
from core.store import FAILED, FINISHED
from core.training import record
from core.training.lots import lots
from core.training.members import Bases
from core.training.together import train_together
from core.training.trainer import train


@dataclass(frozen=True)
class Executed:
    """How many runs of a plan were trained now, were there already, and failed; and which were trained now."""

    trained: int
    found: int
    failed: int
    new: frozenset[str] = frozenset()  # ids


def execute(plan: Plan, session: Session) -> Executed:
    """Train the missing runs of a plan.

    Other processes may execute the same plan at the same time: a run is trained by whoever holds its lock, and what
    others hold is waited for last, one by one. A run that fails is recorded with its reason and the others go on; it
    is tried again only where that is asked for. Runs that can be are trained together (`core.training.together`).
    """
    new: set[str] = set()
    with session.store.at_rest():
        missing = unfinished(plan, session)
        looked_for = {run.id for run in missing}
        failed = sum(session.store.status(run) == FAILED for run in plan.runs if run.id not in looked_for)
    found = len(plan.runs) - len(missing)
    held: list[Run] = []
    bases = Bases()
    for lot in lots(missing, plan.datasets):
        with ExitStack() as locks:
            mine = [run for run in lot if _locked(run, plan, session, locks, held)]
            new |= _train_missing(mine, plan, session, bases)
    for run in held:
        with session.store.lock(run).acquire():
            new |= _train_missing([run], plan, session, bases)
    failed += sum(session.store.status(run) == FAILED for run in missing)
    return Executed(len(new), found, failed, frozenset(new))


def _locked(run: Run, plan: Plan, session: Session, locks: ExitStack, held: list[Run]) -> bool:
    """Take the lock of a run; one that another process has goes to `held`."""
    try:
        locks.enter_context(session.store.lock(run).acquire(blocking=False))
    except Timeout:
        session.report.note(f"{label(run, plan)}: another process is training it; coming back to it")
        held.append(run)
        return False
    return True


def _train_missing(lot: Sequence[Run], plan: Plan, session: Session, bases: Bases) -> set[str]:
    """Train what is missing of the runs of a lot, whose locks this process holds; return their ids."""
    missing = [run for run in lot if not settled(run, session)]
    say_damaged(missing, plan, session)
    alone = missing if len(missing) < 2 else _train_together(missing, plan, session, bases)
    for run in alone:
        _train(run, plan, session)
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


def _train_together(runs: Sequence[Run], plan: Plan, session: Session, bases: Bases) -> list[Run]:
    """Train runs of one lot together, and return those that have to be trained alone."""
    dataset, left = plan.datasets[runs[0].data.content], {run.id: run for run in runs}
    name = lot_label([label(run, plan) for run in runs])
    with written_below(session.store.runs):
        for run, error in train_together(runs, dataset, session, label=name, bases=bases):
            del left[run.id]
            if error:
                record_failure(run, session, label=label(run, plan), **failure(error))
            else:
                say_accuracy(run, session, label=label(run, plan))
    return list(left.values())


def _train(run: Run, plan: Plan, session: Session) -> None:
    name = label(run, plan)
    try:
        with written_below(session.store.folder(run)):
            train(run, plan.datasets[run.data.content], session, label=name)
    except UserError:
        raise
    except Exception as error:
        record_failure(run, session, label=name, **failure(error))
        return
    say_accuracy(run, session, label=name)


def record_failure(run: Run, session: Session, *, label: str, reason: str, trace: str) -> None:
    """Record that a run failed for good, with its reason in one line and the whole trace beside it."""
    session.report.drop(label)
    session.store.write_failure(run, record.provenance(session, run.training), reason=reason, trace=trace)
    session.report.note(f"{label}: failed: {reason}")


def say_accuracy(run: Run, session: Session, *, label: str) -> None:
    """Tell what a finished run has reached."""
    done = session.store.finished(run)
    assert done is not None
    session.report.note(f"{label}: accuracy {done.metrics.accuracy:.1%}, {done.seconds.total:.1f} s")
