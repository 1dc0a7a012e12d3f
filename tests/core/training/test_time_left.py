import io
from dataclasses import replace
from typing import Any

import pytest
import torch
from rich.console import Console

from core.config.run import Run
from core.datasets.dataset import Dataset
from core.executor import execute
from core.plan import Plan, PlannedRun
from core.progress import Reporter, format_duration
from core.session import Session
from core.training import time_left
from core.training.time_left import TimeLeft, cost_key


def epoch_row(epoch: int, seconds: float) -> dict[str, Any]:
    return {"epoch": epoch, "train_seconds": seconds * 0.75, "evaluation_seconds": seconds * 0.25}


def make_runs(run: Run) -> list[Run]:
    """Return two seeds of one setting with 4 epochs, and one run frozen through block 3."""
    first, second = (run.replace(seed=seed, training__epochs=4, training__lr=0.01 * (seed + 1)) for seed in (0, 1))
    return [first, second, first.replace(model__freeze="block3")]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (8, "8 s"), (43, "45 s"), (240, "4 min"), (7900, "2 h 10 min"), (260_000, "3 days")],
)
def test_format_duration_rounds(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_time_left_counts_the_epochs_of_all_unfinished_runs(run: Run, dataset: Dataset, session: Session) -> None:
    first, second, _ = make_runs(run)
    left = TimeLeft([first, second], {run.data.content: dataset}, session)
    assert left.compute_seconds() is left.predict_seconds() is None
    assert left.add_epoch({first.id: epoch_row(1, 2.0)}) == "15 s left"  # 3 + 4 epochs of 2 s
    assert left.compute_seconds() == pytest.approx(14.0)
    left.end(first)
    assert left.compute_seconds() == pytest.approx(8.0)
    left.end(second)
    assert left.compute_seconds() is None


def test_time_left_divides_by_concurrent_runs_and_adds_later_runs(run: Run, dataset: Dataset, session: Session) -> None:
    first, second, _ = make_runs(run)
    left = TimeLeft([first, second], {run.data.content: dataset}, session, concurrent=2, to_come=2)
    left.add_epoch({first.id: epoch_row(1, 2.0)})
    assert left.compute_seconds() == pytest.approx((14 + 2 * 8) / 2)
    left.start(first.replace(seed=7))  # one of the two later runs
    assert left.compute_seconds() == pytest.approx((14 + 2 * 8) / 2)


def test_time_left_of_long_plan_scales_unknown_settings_by_work(run: Run, dataset: Dataset, session: Session) -> None:
    first, _, frozen = make_runs(run)
    left = TimeLeft([first, frozen], {run.data.content: dataset}, session)
    left.add_epoch({first.id: epoch_row(4, 1.0)})
    assert left.compute_seconds() == pytest.approx(4.0)  # a short plan: as long as the known setting
    state = torch.random.get_rng_state()
    left.add_epoch({first.id: epoch_row(4, 100.0)})
    left.measured[cost_key(first)] = [left.measured[cost_key(first)][-1]]
    seconds = left.compute_seconds()
    assert seconds is not None
    assert 20 < seconds < 200  # without the three blocks whose outputs are stored, instead of 400 s
    assert torch.equal(torch.random.get_rng_state(), state)  # training stays reproducible


def test_execute_prints_estimate_from_first_steps_then_from_earlier_runs(
    run: Run, dataset: Dataset, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.progress.LINE_SECONDS", 0.0)
    first, second, _ = make_runs(run)
    texts = []
    for runs in ([first], [first, second]):
        session.report = Reporter(Console(file=io.StringIO(), soft_wrap=True))
        session.time_left = None
        planned = tuple(PlannedRun("none", one, one, words="nothing frozen") for one in runs)
        execute(Plan("freeze", planned, {run.data.content: dataset}), session)
        texts.append(session.report.console.file.getvalue())  # type: ignore[attr-defined]
    assert "for 1 run (from the first steps)" in texts[0]
    assert "[1/1] nothing frozen, fold 1: epoch 1/4, loss" in texts[0]
    assert " s left" in texts[0]
    lines = texts[1].splitlines()
    assert lines[0].endswith("for 1 run (from earlier runs)")
    assert any(line.startswith("[2/2] nothing frozen, lr 0.02, fold 1, seed 1: epoch 4/4") for line in lines)
    assert texts[1].count("About") == 1


def test_earlier_runs_count_only_with_the_same_settings_and_threads(
    run: Run, dataset: Dataset, session: Session
) -> None:
    datasets = {run.data.content: dataset}
    done, new, frozen = make_runs(run)
    execute(Plan("freeze", (PlannedRun("none", done, done),), datasets), session)
    record = session.store.finished(done)
    assert record is not None
    assert TimeLeft([new], datasets, session).predict_seconds() == pytest.approx(record.seconds.total, rel=0.01)
    assert TimeLeft([new.replace(training__batch_size=4)], datasets, session).predict_seconds() is None
    assert TimeLeft([frozen], datasets, session).predict_seconds() is None
    assert TimeLeft([new], datasets, session, threads=session.threads + 1).predict_seconds() is None


def test_watch_announces_estimate_within_the_first_epoch(
    run: Run, dataset: Dataset, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_left, "FIRST_STEPS_SECONDS", 0.0)
    session.report = Reporter(Console(file=io.StringIO(), soft_wrap=True))
    first = replace(run, seed=3)
    left = TimeLeft([first], {run.data.content: dataset}, session)
    batches = [torch.zeros(4, 1)] * 6
    assert len(list(left.watch(batches, first))) == 6
    text = session.report.console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count("for 1 run (from the first steps)") == 1
