"""Where a plan runs: in this process, or on Ray where the command says so. Nothing below this room knows of both."""

from collections.abc import Callable
from typing import Any, TypeVar

from core import executor
from core.executor import ExecutionSummary, unfinished_runs
from core.plan import Plan
from core.registry import Lazy
from core.session import Session
from core.store.runs import FAILED, DamagedFile

T = TypeVar("T")
INTERRUPTED = 130  # the shell's status for Ctrl-C
sweep = Lazy("core.cluster.sweep:sweep")  # Ray takes seconds to import and need not be installed
execute_on_ray = Lazy("core.cluster.sweep:execute_on_ray")


def execute(plan: Plan, session: Session, *, scheduler: Any = None) -> ExecutionSummary:
    """Make a plan true; a scheduler of Ray Tune's may stop runs early, there."""
    if session.execution.cluster.ray:
        executed: ExecutionSummary = execute_on_ray(plan, session, scheduler=scheduler)
        return executed
    return executor.execute(plan, session)


def execute_or_stop(plan: Plan, session: Session) -> ExecutionSummary | None:
    """Execute a plan; where Ctrl-C ends it, say how to go on and return None."""
    try:
        return execute(plan, session)
    except KeyboardInterrupt:
        left = len(unfinished_runs(plan, session))
        session.report.note(
            f"Interrupted with {left} of {len(plan.runs)} runs to do; the same command goes on from here."
        )
        return None


def analyse_with_repair(
    analyse: Callable[[], T], plan: Plan, session: Session, executed: ExecutionSummary, *, again: bool = True
) -> tuple[T, ExecutionSummary]:
    """Analyse a plan that was executed; a run of which a file turns out to be damaged is trained again first.

    Planning looks at sizes alone, so that a store of thousands of runs is planned at once; content is checked when it
    is read. Without `again` nothing is trained, and the damage is said instead.

    Returns
    -------
    analysis, executed
        What `analyse` returns, and what was trained and found in all.
    """
    mended: set[str] = set()
    while True:
        try:
            with session.store.cached_records():
                return analyse(), executed
        except DamagedFile as damage:
            if not again or damage.run_id in mended or damage.run_id not in {run.id for run in plan.runs}:
                raise
            mended.add(damage.run_id)
            session.report.note(f"{damage.path}: {damage.reason}; training run {damage.run_id} again")
            session.store.discard_damaged(damage)
            more = execute(plan, session)
            new = executed.new | more.new
            failed = sum(session.store.status(id) == FAILED for id in new)
            executed = ExecutionSummary(len(new) - failed, len(plan.runs) - len(new), more.failed, new)
