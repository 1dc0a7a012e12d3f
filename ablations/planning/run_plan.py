"""Execute a plan in this process or on Ray, and analyse it."""

from collections.abc import Callable
from typing import Any, TypeVar

from core import executor
from core.cluster.sweep import execute_on_ray
from core.executor import ExecutionSummary, unfinished_runs
from core.plan import Plan
from core.session import Session
from core.store.run_store import FAILED, DamagedFile

T = TypeVar("T")


def execute(plan: Plan, session: Session, *, scheduler: Any = None) -> ExecutionSummary:
    """Train the missing runs of a plan, on Ray with ``--ray``, where a scheduler of Ray Tune may stop runs early."""
    if session.execution.cluster.ray:
        return execute_on_ray(plan, session, scheduler=scheduler)
    return executor.execute(plan, session)


def execute_or_stop(plan: Plan, session: Session) -> ExecutionSummary | None:
    """Execute a plan and return the summary; after Ctrl-C, print how to resume and return None."""
    try:
        return execute(plan, session)
    except KeyboardInterrupt:
        left = len(unfinished_runs(plan, session))
        session.report.note(
            f"Interrupted; {left} of {len(plan.runs)} runs are left. Run the same command again to resume."
        )
        return None


def analyse_with_repair(
    analyse: Callable[[], T], plan: Plan, session: Session, executed: ExecutionSummary, *, again: bool = True
) -> tuple[T, ExecutionSummary]:
    """Analyse an executed plan; if a file of a run is damaged, train the run again and repeat the analysis.

    Planning compares sizes of files only, which is fast for thousands of runs; checksums are compared when a file is
    read. With ``again=False`` nothing is trained, and damage raises an error.

    Returns
    -------
    analysis, executed
        Result of `analyse`, and the updated summary of the execution.
    """
    repaired: set[str] = set()
    while True:
        try:
            with session.store.cached_records():
                return analyse(), executed
        except DamagedFile as damage:
            if not again or damage.run_id in repaired or damage.run_id not in {run.id for run in plan.runs}:
                raise
            repaired.add(damage.run_id)
            session.report.note(f"{damage.path}: {damage.reason}; training run {damage.run_id} again")
            session.store.discard_damaged(damage)
            more = execute(plan, session)
            new = executed.new | more.new
            failed = sum(session.store.status(id) == FAILED for id in new)
            trained = len(new) - failed
            executed = ExecutionSummary(trained, len(plan.runs) - trained - more.failed, more.failed, new)
