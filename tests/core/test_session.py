"""What a session takes of the machine."""

from pathlib import Path

import pytest

from core import session
from core.config.execution import ExecutionOptions
from core.session import Session


@pytest.mark.parametrize(("said", "taken"), [("2000000\n", 10**6), ("max\n", None), (f"{2**63 - 4096}\n", None)])
def test_images_take_half_of_what_a_container_may(
    said: str, taken: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "limit").write_text(said)
    open_one = ExecutionOptions(results=tmp_path / "results", device="cpu", threads=1)
    monkeypatch.setattr(session, "CONTAINER_LIMIT_FILES", ())
    unlimited = Session(open_one).device_cache.budget
    monkeypatch.setattr(session, "CONTAINER_LIMIT_FILES", (tmp_path / "none", tmp_path / "limit"))
    assert Session(open_one).device_cache.budget == (taken or unlimited)
