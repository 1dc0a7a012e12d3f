"""Whatever has become of an entry of the cache, it is made again or found whole, and never waited for."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from core.cache import entries
from core.cache.array_writer import ArrayWriter
from core.cache.entries import key_of, load_or_make

MADE_FROM = {"what": "numbers", "version": 1}
NUMBERS = np.arange(12, dtype=np.float32).reshape(4, 3)


def make(writer: ArrayWriter) -> dict[str, int]:
    writer.append(NUMBERS)
    return {"rows": 4}


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def written(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


DAMAGES: dict[str, Callable[[Path], None]] = {
    "missing": Path.unlink,
    "a pipe": pipe,
    "a folder": folder,
    "a link to itself": loop,
    "empty": written(b""),
    "zeros": written(bytes(300)),
    "JSON nested deep": written(b"[" * 10**5),
    "other JSON": written(b'{"checksum": 3}'),
    "a number": written(b"3"),
    "no text": written(b"\xff\xfe"),
}


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let every test be a process that has seen no entry yet."""
    monkeypatch.setattr(entries, "_verified", set())
    monkeypatch.setattr(entries, "SETTLED_SECONDS", 0.0)
    yield


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("name", ["array.npy", "manifest.json", "seen.json"])
def test_a_damaged_entry_is_made_again(name: str, kind: str, tmp_path: Path) -> None:
    load_or_make(tmp_path, made_from=MADE_FROM, make=make)
    entries._verified.clear()
    load_or_make(tmp_path, made_from=MADE_FROM, make=make)  # which notes that it was found whole
    entries._verified.clear()
    path = tmp_path / key_of(MADE_FROM) / name
    assert path.is_file()
    DAMAGES[kind](path)
    made = []

    def again(writer: ArrayWriter) -> dict[str, int]:
        made.append(1)
        return make(writer)

    stored = load_or_make(tmp_path, made_from=MADE_FROM, make=again)
    assert np.array_equal(stored.array, NUMBERS)
    assert stored.facts == {"rows": 4}
    assert len(made) == (name != "seen.json")
    shutil.rmtree(tmp_path)
