"""Train every run of a plan that is not in the store yet, in this process."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass

from filelock import Timeout

from core.config.run import Run
from core.datasets.dataset import Dataset
from core.errors import ResultsError, UserError, describe_failure, first_line
from core.plan import Plan
from core.session import Session
from core.store.clip_tables import write_clip_table
from core.store.run_store import FAILED, FINISHED
from core.system.atomic_files import explain_write_errors, write_error_reason
from core.system.machine_errors import explain_machine_errors, find_machine_error
from core.system.user_code import isolate_user_code
from core.training import checkpoint, results
from core.training.evaluation import format_accuracy
from core.training.heads.groups import group_runs
from core.training.heads.heads_trainer import train_heads
from core.training.time_left import TimeLeft
from core.training.trainer import train


@dataclass(frozen=True)
class ExecutionSummary:
    """Number of runs that were trained, skipped and failed.

    Attributes
    ----------
    trained
        Number of runs that this command trained successfully.
    found
        Number of runs that had finished earlier.
    failed
        Number of runs of the plan that failed, in this command or an earlier one.
    new
        Ids of the runs that this command trained or tried to train.
    """

    trained: int
    found: int
    failed: int
    new: frozenset[str] = frozenset()


def execute(plan: Plan, session: Session) -> ExecutionSummary:
    """Train the missing runs of a plan.

    Several processes may execute the same plan. The process that holds the lock of a run trains it; the others wait
    for it after they have trained their own runs. If a run fails, the reason is recorded and the other runs are still
    trained. A failed run is trained again only with ``--retry-failed``.

    Raises
    ------
    ResultsError
        If the results folder cannot be read or written.
    UserError
        If training raised a `UserError` for every run. The first one is raised, and no failure is recorded.
    """
    with session.store.cached_records():
        missing = unfinished_runs(plan, session)
        missing_ids = {run.id for run in missing}
        failed = sum(session.store.status(run) == FAILED for run in plan.runs if run.id not in missing_ids)
    write_clip_tables(missing, plan, session)
    report_resumed_runs(missing, plan, session)
    session.time_left = TimeLeft(missing, plan.datasets, session, to_come=session.n_runs_to_come)
    session.time_left.announce_plan()
    if missing:
        session.tracker.connect()
    new: set[str] = set()
    locked_elsewhere: list[Run] = []
    user_errors: list[tuple[Run, UserError]] = []  # runs that raised a `UserError`
    with explain_write_errors(session.store.runs):
        for group in group_runs(missing, plan.datasets):
            with ExitStack() as locks:
                locked = [run for run in group if _try_lock(run, plan, session, locks)]
                locked_elsewhere += [run for run in group if run not in locked]
                new |= _train_missing(locked, plan, session, user_errors)
        for run in locked_elsewhere:
            with session.store.lock(run).acquire():
                new |= _train_missing([run], plan, session, user_errors)
    if user_errors and len(user_errors) == len(new):
        raise user_errors[0][1]
    for run, error in user_errors:
        record_failure(run, session, label=run_label(run, plan), **describe_failure(error))
    now_failed = [run for run in missing if session.store.status(run) == FAILED]
    trained = len(new - {run.id for run in now_failed})
    failed += len(now_failed)
    return ExecutionSummary(trained, len(plan.runs) - trained - failed, failed, frozenset(new))


def _try_lock(run: Run, plan: Plan, session: Session, locks: ExitStack) -> bool:
    """Lock a run until `locks` is closed; return False if another process holds the lock."""
    try:
        locks.enter_context(session.store.lock(run).acquire(blocking=False))
    except Timeout:
        session.store.check_locks()
        session.report.note(
            f"{run_label(run, plan)}: another process is training it; this command waits for it after its own runs"
        )
        return False
    return True


def _train_missing(
    runs: Sequence[Run], plan: Plan, session: Session, user_errors: list[tuple[Run, UserError]]
) -> set[str]:
    """Train the runs of a locked group that are still missing; return their ids.

    Runs that raise a `UserError` are appended to `user_errors`.
    """
    missing = [run for run in runs if not is_done(run, session)]
    report_damaged_runs(missing, plan, session)
    if missing:
        dataset = plan.datasets[missing[0].data.content]
        for run, error in train_runs(missing, dataset, session, {run.id: run_label(run, plan) for run in missing}):
            if session.time_left:
                session.time_left.end(run)
            if isinstance(error, UserError):
                user_errors.append((run, error))
            elif error:
                record_failure(run, session, label=run_label(run, plan), **describe_failure(error))
            else:
                report_accuracy(run, session, label=run_label(run, plan))
    return {run.id for run in missing}


def train_runs(
    runs: Sequence[Run], dataset: Dataset, session: Session, labels: Mapping[str, str]
) -> Iterator[tuple[Run, Exception | None]]:
    """Train the runs of a group (`core.training.heads.groups.group_runs`) and write them to the store.

    This is the only place that chooses how a run is trained. Several runs are trained together in one batched matrix
    product. A single run is trained alone, and so are runs whose joint training fails.

    Parameters
    ----------
    runs, dataset, session
        As in `core.training.trainer.train`.
    labels
        Name of each run for messages, by run id.

    Yields
    ------
    run, error
        Each run with None after its results are written, or with the error that it failed with.

    Raises
    ------
    ResultsError
        If the results folder cannot be written to, or the machine lacks memory, threads or open files.
    """
    remaining = {run.id: run for run in runs}
    if len(runs) > 1:
        name = group_label([labels[run.id] for run in runs])
        try:
            for run, error in _train_together(runs, dataset, session, label=name):
                yield remaining.pop(run.id), error
        except Exception as error:
            if isinstance(error, ResultsError) or write_error_reason(error):
                raise
            if fault := find_machine_error(error):
                raise fault from error
            session.report.drop(name)
            session.report.note(
                f"{name}: cannot be trained together ({type(error).__name__}: {error}); training one by one"
            )
    for run in remaining.values():
        try:
            isolated = isolate_user_code() if run.model.backbone_sha256 else nullcontext()  # code of a user
            with explain_write_errors(session.store.folder(run)), explain_machine_errors(), isolated:
                train(run, dataset, session, label=labels[run.id])
        except (ResultsError, KeyboardInterrupt):
            raise
        except Exception as error:
            yield run, _explain_small_batches(error) or error
        except BaseException as error:  # raised by a user's network, such as sys.exit()
            if session.is_ray_trial:  # Ray Tune ends a trial in this way
                raise
            failure = RuntimeError(f"the network raised {type(error).__name__} ({first_line(error)})")
            failure.__cause__ = error
            yield run, failure
        else:
            yield run, None


def _explain_small_batches(error: Exception) -> UserError | None:
    """Return an error with a remedy if a batch is too small for batch normalisation, otherwise None."""
    if "Expected more than 1 value per channel" not in first_line(error):  # the words of PyTorch
        return None
    return UserError(
        "batch normalisation needs several values per channel: use a larger --batch-size, larger images or longer clips"
    )


def _train_together(
    runs: Sequence[Run], dataset: Dataset, session: Session, *, label: str
) -> Iterator[tuple[Run, Exception | None]]:
    """Train runs in one batched matrix product, and write finished runs in two threads meanwhile."""
    being_written: dict[Run, Future[None]] = {}
    with ThreadPoolExecutor(2) as pool:
        for head_run, error in train_heads(runs, dataset, session, label=label):
            if error:
                yield head_run.run, error
            else:
                being_written[head_run.run] = pool.submit(head_run.write, dataset, session)
        for run, future in being_written.items():
            future.result()
            yield run, None


def run_label(run: Run, plan: Plan) -> str:
    """Return the name of a run for messages: its position in the plan, and its name in words."""
    return f"[{plan.numbers[run.id]}/{len(plan.runs)}] {plan.names[run.id]}"


def group_label(labels: Sequence[str]) -> str:
    """Return the name of a group of runs: the name of the first run and the number of others."""
    return labels[0] + (f" and {len(labels) - 1} more" if len(labels) > 1 else "")


def unfinished_runs(plan: Plan, session: Session) -> Sequence[Run]:
    """Return the runs of a plan that have to be trained."""
    return [run for run in plan.runs if not is_done(run, session)]


def write_clip_tables(runs: Sequence[Run], plan: Plan, session: Session) -> None:
    """Write the clips and digests of the data sets of runs (`core.store.clip_tables`)."""
    for content in {run.data.content for run in runs}:
        write_clip_table(plan.datasets[content], content, session.store)


def is_done(run: Run, session: Session) -> bool:
    """Return whether a run needs no training: it has finished, or it has failed and ``--retry-failed`` is not given."""
    status = session.store.status(run)
    return status == FINISHED or (status == FAILED and not session.execution.retry_failed)


def report_damaged_runs(runs: Sequence[Run], plan: Plan, session: Session) -> None:
    """Report in one line each run that is trained again because one of its files is damaged."""
    for run in runs:
        if damage := session.store.find_damage(run):
            session.report.note(f"{run_label(run, plan)}: run {run.id} is damaged ({damage}); training it again")


def report_resumed_runs(runs: Sequence[Run], plan: Plan, session: Session) -> None:
    """Report in one line each run that an interrupted command has begun, and the epoch after which it resumes."""
    for run in runs:
        if epochs := checkpoint.count_epochs(session.store.checkpoint(run)):
            label = run_label(run, plan)
            session.report.note(f"{label}: run {run.id} resumes after epoch {epochs} of {run.training.epochs}")


def record_failure(run: Run, session: Session, *, label: str, reason: str, trace: str) -> None:
    """Record that a run failed, with the reason (one line) and the traceback."""
    session.report.drop(label)
    session.store.write_failure(run, results.collect_provenance(session, run.training), reason=reason, trace=trace)
    session.tracker.end_run(run)
    session.report.note(f"{label}: failed: {reason}")


def report_accuracy(run: Run, session: Session, *, label: str) -> None:
    """Report the accuracy (`core.training.evaluation.format_accuracy`) and the duration of a finished run."""
    record = session.store.finished(run)
    assert record is not None
    session.tracker.end_run(run)
    accuracy = format_accuracy(validation=record.metrics.validation_accuracy, test=record.metrics.accuracy)
    session.report.note(f"{label}: {accuracy}, {record.seconds.total:.1f} s")
