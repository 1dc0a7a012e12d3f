import errno
from typing import Any

import pytest

from core import executor
from core.config.run import Run
from core.datasets.dataset import Dataset
from core.errors import UserError
from core.executor import execute
from core.plan import Plan, Planned
from core.session import Session
from core.store.runs import FAILED, FINISHED


def two(run: Run, dataset: Dataset) -> tuple[Plan, Run, Run]:
    first, second = (run.replace(seed=seed, training__epochs=1) for seed in (0, 1))
    planned = (Planned("first", first, first), Planned("second", second, first))
    return Plan("test", planned, {run.data.content: dataset}), first, second


def first_raises(error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert (executed.trained, executed.failed) == (2, 1)
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
