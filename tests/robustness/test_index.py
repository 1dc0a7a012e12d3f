"""The README beside this file says where each attack is tested: every test that it names is there."""

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NAMED = re.findall(r"`([^`]+\.py)::(\w+)`", (HERE / "README.md").read_text())


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_what_is_named_is_there(file: str, name: str) -> None:
    assert f"\ndef {name}(" in (HERE / file).read_text()


def test_every_file_of_this_folder_is_named() -> None:
    files = {path.name for path in HERE.glob("test_*.py")} - {Path(__file__).name}
    assert files <= {file for file, _ in NAMED}
