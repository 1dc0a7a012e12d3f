"""Fixtures of the robustness tests."""

from pathlib import Path

import pytest


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run commands in an empty folder: without ``--results``, or with an odd name, they write to the current one."""
    monkeypatch.chdir(tmp_path)
