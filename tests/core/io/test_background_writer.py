"""Writing beside training: in order, bounded, and of every error it is clear whose it is and what it ends."""

import errno
import threading
from collections.abc import Callable

import pytest

from core.errors import UserError
from core.io import background_writer as module
from core.io.background_writer import Writing

LONG = 20.0  # seconds that nothing here takes


def refusing(error: BaseException) -> Callable[[], None]:
    def write() -> None:
        raise error

    return write


def test_what_follows_keeps_the_order_and_this_thread() -> None:
    second, said, threads = threading.Event(), [], set()

    def then(name: str) -> Callable[[], None]:
        return lambda: (said.append(name), threads.add(threading.get_ident()))[0]

    with Writing() as writing:
        writing.add(lambda: second.wait(LONG) and None, then("first"))
        writing.add(second.set, then("second"))
        writing.after(then("behind both"))
        writing.settle(until=0)
        assert said == ["first", "second", "behind both"]
        writing.after(then("at once"))
        assert said[-1] == "at once"
    assert threads == {threading.get_ident()}


def test_settling_waits_for_nobody_unless_told() -> None:
    go, said = threading.Event(), []
    with Writing() as writing:
        writing.add(lambda: go.wait(LONG) and None, lambda: said.append(1))
        writing.after(lambda: said.append(2))
        writing.settle()
        assert said == []
        go.set()
    assert said == [1, 2]


def test_no_more_than_so_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    written: list[int] = []
    go = threading.Event()
    with Writing() as writing:
        for k in range(3):
            writing.add(lambda k=k: (go.wait(LONG), written.append(k))[1])
        threading.Timer(0.1, go.set).start()
        writing.add(lambda: None)  # waits for the first
        assert go.is_set()
        assert 0 in written
    assert sorted(written) == [0, 1, 2]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), UserError("in the way"), KeyboardInterrupt()]
)
def test_where_nothing_can_be_written_it_is_said_and_the_rest_given_up(error: BaseException) -> None:
    lost: list[Exception] = []
    said: list[str] = []
    with pytest.raises(type(error)) as raised, Writing() as writing:
        writing.add(refusing(error), lambda: said.append("written"), lost.append)
        writing.add(lambda: None, lambda: said.append("the next"))
        writing.settle(until=0)
    assert raised.value is error
    assert (said, lost) == ([], [])


def test_another_failure_is_told_to_whom_it_concerns_and_the_others_go_on() -> None:
    error, lost, said = ValueError("no parquet"), [], []
    with Writing() as writing:
        writing.add(refusing(error), lambda: said.append("written"), lost.append)
        writing.add(lambda: None, lambda: said.append("the next"))
    assert (said, lost) == (["the next"], [error])
    with pytest.raises(ValueError, match="no parquet"), Writing() as writing:
        writing.add(refusing(error))


@pytest.mark.parametrize(("error", "rest"), [(UserError("bad weights"), [0, 1, 2, 3]), (KeyboardInterrupt(), [0, 1])])
def test_an_error_of_this_thread_loses_nothing_and_an_interrupt_waits_for_what_has_begun(
    error: BaseException, rest: list[int]
) -> None:
    written: list[int] = []
    begun, go = threading.Barrier(3), threading.Event()

    def write(k: int) -> None:
        if k < 2:  # the two threads
            begun.wait(LONG)
        go.wait(LONG)
        written.append(k)

    with pytest.raises(type(error)), Writing() as writing:
        for k in range(4):
            writing.add(lambda k=k: write(k))
        begun.wait(LONG)
        threading.Timer(0.1, go.set).start()
        raise error
    assert sorted(written) == rest
