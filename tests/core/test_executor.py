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
from core.store.runs import FAILED, FINISHED


def two(run: Run, dataset: Dataset) -> tuple[Plan, Run, Run]:
    first, second = (run.replace(seed=seed, training__epochs=1) for seed in (0, 1))
    planned = (PlannedRun("first", first, first), PlannedRun("second", second, first))
    return Plan("test", planned, {run.data.content: dataset}), first, second


def first_raises(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    train = executor.train

    def raise_once(*given: Any, **named: Any) -> None:
        monkeypatch.setattr(executor, "train", train)
        raise error

    monkeypatch.setattr(executor, "train", raise_once)


def test_file_that_vanishes_fails_its_run_alone(
    run: Run, dataset: Dataset, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, first, second = two(run, dataset)
    first_raises(FileNotFoundError(errno.ENOENT, "No such file or directory", "array.npy"), monkeypatch)
    executed = execute(plan, session)
    assert (executed.trained, executed.failed) == (1, 1)
    assert executed.new == {first.id, second.id}
    assert [session.store.status(one) for one in (first, second)] == [FAILED, FINISHED]


def test_full_disk_ends_the_command_and_fails_no_run(
    run: Run, dataset: Dataset, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, first, second = two(run, dataset)
    first_raises(OSError(errno.ENOSPC, "No space left on device"), monkeypatch)
    with pytest.raises(UserError, match=rf"cannot write to .*{first.id} \(.*No space left on device\); free space"):
        execute(plan, session)
    assert FAILED not in [session.store.status(one) for one in (first, second)]
    assert execute(plan, session).trained == 2


def test_user_error_of_one_run_fails_it_alone_and_that_of_all_ends_the_command(
    run: Run, dataset: Dataset, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, first, second = two(run, dataset)

    def refuse(*given: Any, **named: Any) -> None:
        raise UserError("no usable clip is left")

    with monkeypatch.context() as patch, pytest.raises(UserError, match="no usable clip is left"):
        patch.setattr(executor, "train", refuse)
        execute(plan, session)
    assert FAILED not in [session.store.status(one) for one in (first, second)]
    first_raises(UserError("no usable clip is left"), monkeypatch)
    executed = execute(plan, session)
    assert (executed.trained, executed.failed) == (1, 1)
    assert [session.store.status(one) for one in (first, second)] == [FAILED, FINISHED]
