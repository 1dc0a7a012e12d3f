"""Where a plan runs: in this process, or on Ray where the command says so. Nothing below this room knows of both."""

from typing import Any

from core import executor
from core.executor import Executed, unfinished
from core.plan import Plan
from core.registry import Lazy
from core.session import Session

INTERRUPTED = 130  # the shell's status for Ctrl-C
sweep = Lazy("core.cluster.sweep:sweep")  # Ray takes seconds to import and need not be installed
execute_on_ray = Lazy("core.cluster.sweep:execute_on_ray")


def execute(plan: Plan, session: Session, *, scheduler: Any = None) -> Executed:
    """Make a plan true; a scheduler of Ray Tune's may stop runs early, there."""
    if session.execution.cluster.ray:
        executed: Executed = execute_on_ray(plan, session, scheduler=scheduler)
        return executed
    return executor.execute(plan, session)


def execute_or_stop(plan: Plan, session: Session) -> Executed | None:
    """Execute a plan; where Ctrl-C ends it, say how to go on and return None."""
    try:
        return execute(plan, session)
    except KeyboardInterrupt:
        left = len(unfinished(plan, session))
        session.report.note(
            f"Interrupted with {left} of {len(plan.runs)} runs to do; the same command goes on from here."
        )
        return None
