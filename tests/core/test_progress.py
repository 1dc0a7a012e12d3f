from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import core.datasets.fingerprint
import core.progress
from core.datasets.dataset import Dataset


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
