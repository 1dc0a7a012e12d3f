import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import core.datasets.fingerprint
import core.progress
from core.datasets.dataset import Dataset
from core.progress import Reporter


def test_compute_fingerprint_shows_progress_of_reading(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core.progress, "SLOW_SECONDS", 0.0)
    monkeypatch.setattr(core.datasets.fingerprint, "FILES_PER_TASK", 16)
    calls: list[Any] = []
    dataset = replace(dataset, digests={})  # those of its loading
    for _ in range(2):  # nothing is read the second time
        dataset.compute_fingerprint(tmp_path, progress=lambda *call: calls.append(call))
    assert calls == [(16, 30, "reading the files of folder"), (30, 30, "reading the files of folder")]


def test_note_once_writes_a_line_once() -> None:
    console = Console(file=io.StringIO())
    report = Reporter(console)
    for text in ("a", "b", "a"):
        report.note_once(text)
    report.note("a")
    assert console.file.getvalue() == "a\nb\na\n"  # type: ignore[attr-defined]
