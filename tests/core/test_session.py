from pathlib import Path

import pytest

from core import session
from core.config.execution import ExecutionOptions
from core.session import Session


@pytest.mark.parametrize(("limit", "budget"), [("2000000\n", 10**6), ("max\n", None)])
def test_session_device_cache_is_half_the_memory_limit(
    limit: str, budget: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "limit").write_text(limit)
    options = ExecutionOptions(results=tmp_path / "results", device="cpu", threads=1)
    monkeypatch.setattr(session, "CONTAINER_LIMIT_FILES", ())
    unlimited = Session(options).device_cache.budget
    monkeypatch.setattr(session, "CONTAINER_LIMIT_FILES", (tmp_path / "none", tmp_path / "limit"))
    assert Session(options).device_cache.budget == (budget or unlimited)
