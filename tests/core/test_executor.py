import errno
from typing import Any

import pytest

from core import executor
from core.config.run import Run
from core.datasets.dataset import Dataset
from core.errors import UserError
from core.executor import execute
from core.plan import Plan, PlannedRun
from core.session import Session
from core.store.run_store import FAILED, FINISHED
from core.training import trainer
from core.training.checkpoint import count_epochs


def plan_two_runs(run: Run, dataset: Dataset) -> tuple[Plan, Run, Run]:
    first, second = (run.replace(seed=seed, training__epochs=1) for seed in (0, 1))
    planned = (PlannedRun("first", first, first), PlannedRun("second", second, first))
    return Plan("test", planned, {run.data.content: dataset}), first, second


def let_first_run_raise(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    train = executor.train

    def raise_once(*arguments: Any, **named: Any) -> None:
        monkeypatch.setattr(executor, "train", train)
        raise error

    monkeypatch.setattr(executor, "train", raise_once)


def test_execute_error_of_one_run_fails_this_run_only(
    run: Run, dataset: Dataset, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, first, second = plan_two_runs(run, dataset)
    let_first_run_raise(FileNotFoundError(errno.ENOENT, "No such file or directory", "array.npy"), monkeypatch)
    executed = execute(plan, session)
    assert (executed.trained, executed.failed) == (1, 1)
    assert executed.new == {first.id, second.id}
    again = execute(plan, session)
    assert (again.trained, again.found, again.failed) == (0, 1, 1)  # each run is counted once
    assert [session.store.status(one) for one in (first, second)] == [FAILED, FINISHED]


def test_execute_reports_the_epoch_after_which_an_interrupted_run_resumes(
    run: Run, dataset: Dataset, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, first, _ = plan_two_runs(run.replace(training__epochs=3), dataset)
    first = first.replace(training__epochs=3)
    planned = (PlannedRun("first", first, first),)
    plan = Plan("test", planned, plan.datasets)
    notes: list[str] = []
    monkeypatch.setattr(session.report, "note", notes.append)
    monkeypatch.setattr(trainer, "CHECKPOINT_INTERVAL", 0.0)

    def interrupt(run: Run, row: dict[str, Any]) -> None:
        if row["epoch"] == 3:
            raise KeyboardInterrupt

    session.on_epoch = interrupt
    with pytest.raises(KeyboardInterrupt):
        execute(plan, session)
    assert not any("resumes" in note for note in notes)
    notes.clear()
    session.on_epoch = None
    execute(plan, session)
    assert notes[0].endswith(f"run {first.id} resumes after epoch 2 of 3")
    checkpoint = session.store.checkpoint(first)
    checkpoint.write_bytes(b"damaged")
    assert count_epochs(checkpoint) == 0


def test_execute_full_disk_raises_and_records_no_failure(
    run: Run, dataset: Dataset, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, first, second = plan_two_runs(run, dataset)
    let_first_run_raise(OSError(errno.ENOSPC, "No space left on device"), monkeypatch)
    with pytest.raises(UserError, match=rf"cannot write to .*{first.id} \(.*No space left on device\); free space"):
        execute(plan, session)
    assert FAILED not in [session.store.status(one) for one in (first, second)]
    assert execute(plan, session).trained == 2


def test_execute_user_error_of_all_runs_is_raised(
    run: Run, dataset: Dataset, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, first, second = plan_two_runs(run, dataset)

    def refuse(*arguments: Any, **named: Any) -> None:
        raise UserError("no usable clip is left")

    with monkeypatch.context() as patch, pytest.raises(UserError, match="no usable clip is left"):
        patch.setattr(executor, "train", refuse)
        execute(plan, session)
    assert FAILED not in [session.store.status(one) for one in (first, second)]
    let_first_run_raise(UserError("no usable clip is left"), monkeypatch)
    executed = execute(plan, session)
    assert (executed.trained, executed.failed) == (1, 1)
    assert [session.store.status(one) for one in (first, second)] == [FAILED, FINISHED]
