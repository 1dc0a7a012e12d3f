from pathlib import Path
from typing import Any

import pytest

import core.datasets.fingerprint
import core.progress
from core.datasets.dataset import Dataset
from core.progress import show_if_slow


def show_steps(steps: list[tuple[int, float]], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the steps that are shown, of (number, time in seconds)."""
    now, shown = [0.0], []
    monkeypatch.setattr(core.progress.time, "monotonic", lambda: now[0])
    report = show_if_slow(lambda done, total, what: shown.append(done))
    for done, seconds in steps:
        now[0] = seconds
        report(done, 3, "what")
    return shown


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([(1, 0.1), (2, 0.2), (3, 0.3)], []),
        ([(1, 1.0), (2, 2.5), (3, 9.0)], [2, 3]),
        ([(1, 1.0), (2, 1.5), (3, 9.0)], []),  # slow in its last step only
    ],
)
def test_show_if_slow_hides_short_tasks(
    steps: list[tuple[int, float]], expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert show_steps(steps, monkeypatch) == expected


def test_compute_fingerprint_shows_progress_of_reading(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core.progress, "SLOW_SECONDS", 0.0)
    monkeypatch.setattr(core.datasets.fingerprint, "FILES_PER_TASK", 16)
    calls: list[Any] = []
    for _ in range(2):  # nothing is read the second time
        dataset.compute_fingerprint(tmp_path, progress=lambda *call: calls.append(call))
    assert calls == [(16, 30, "reading the files of folder"), (30, 30, "reading the files of folder")]
