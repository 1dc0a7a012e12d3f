"""Cache entries: built once by one process, resumed after a kill, and rebuilt if damaged."""

import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import core
from core.cache.array_file import ArrayWriter
from core.cache.entries import cache_key, find_entry, load_or_build
from core.errors import UserError

KEY = {"what": "numbers", "version": 1}
NUMBERS = np.arange(12, dtype=np.float32).reshape(4, 3)


def build(writer: ArrayWriter, numbers: np.ndarray = NUMBERS) -> tuple[int, dict[str, int]]:
    writer.write(0, numbers)
    return len(numbers), {"rows": len(numbers)}


def list_folders(path: Path) -> list[str]:
    return [each.name for each in path.iterdir() if each.is_dir()]


@pytest.mark.parametrize("dtype", ["float16", "int64"])
def test_entry_is_a_read_only_npy_file(dtype: str, tmp_path: Path) -> None:
    numbers = NUMBERS.astype(dtype)
    found = load_or_build(tmp_path, key_fields=KEY, build=lambda writer: build(writer, numbers))
    assert isinstance(found.array, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        found.array[0] = 0
    loaded = np.load(tmp_path / cache_key(KEY) / "array.npy")
    assert loaded.dtype == found.array.dtype == dtype
    np.testing.assert_array_equal(loaded, numbers)
    assert {path.name for path in (tmp_path / found.key).iterdir()} == {"array.npy", "manifest.json"}


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def overwrite(content: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def change_header(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"(4, 3)", b"(3, 4)"))


DAMAGES: list[tuple[str, Callable[[Path], Any]]] = [
    ("array.npy", Path.unlink),
    ("array.npy", truncate),
    ("array.npy", change_header),
    ("array.npy", make_pipe),
    ("manifest.json", Path.unlink),
    ("manifest.json", truncate),
    ("manifest.json", overwrite(b"[" * 10**5)),
    ("manifest.json", overwrite(b'{"shape": 3}')),
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_damaged_entry_is_named_and_rebuilt(name: str, damage: Callable[[Path], Any], tmp_path: Path) -> None:
    load_or_build(tmp_path, key_fields=KEY, build=build)
    path = tmp_path / cache_key(KEY) / name
    damage(path)
    assert find_entry(tmp_path, key_fields=KEY) is None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = load_or_build(tmp_path, key_fields=KEY, build=build)
    np.testing.assert_array_equal(found.array, NUMBERS)
    assert found.facts == {"rows": 4}
    named = [f"{path.parent} is damaged ({name}" in str(warning.message) for warning in caught]
    assert named == [True] * (name == "array.npy" or damage is not Path.unlink)


def test_error_of_the_builder_leaves_no_entry(tmp_path: Path) -> None:
    def fail(writer: ArrayWriter) -> Any:
        writer.write(0, NUMBERS)
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        load_or_build(tmp_path, key_fields=KEY, build=fail)
    assert list_folders(tmp_path) == []


def test_folder_that_is_not_writable_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(UserError, match=rf"cannot write to {tmp_path}/cache/images.*allow writing"):
        load_or_build(tmp_path / "cache" / "images", key_fields=KEY, build=build)


def run_python(code: str, *arguments: Any) -> "subprocess.Popen[str]":
    words = [sys.executable, "-c", code, *map(str, arguments)]
    root, pipe = Path(core.__file__).parents[1], subprocess.PIPE
    return subprocess.Popen(words, cwd=root, stdout=pipe, stderr=pipe, text=True)


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from core.cache.entries import load_or_build
from core.errors import UserError

resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))  # maximum bytes of a file, like a full disk

def build(writer):
    if "known" in sys.argv:
        writer.create((20, 1000), np.float64)
        sys.exit("the space was not reserved")
    for row in range(20):
        writer.write(row, np.ones((1, 1000)))

try:
    load_or_build(Path(sys.argv[1]), key_fields={}, build=build)
except UserError as error:
    sys.stdout.write(str(error))
"""


@pytest.mark.parametrize("length", ["known", "unknown"])
def test_full_disk_is_an_error_and_leaves_no_entry(length: str, tmp_path: Path) -> None:
    message, errors = run_python(FULL_DISK, tmp_path, length).communicate()
    assert message.startswith(f"cannot write to {tmp_path}: ") and "free space" in message, errors
    assert list_folders(tmp_path) == []


BUILDER = """
import sys, time
from pathlib import Path
import numpy as np
from core.cache.array_file import Part
from core.cache.entries import load_or_build

folder, log, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])

def note(text):
    with log.open("a") as file:
        file.write(text + "\\n")

def build(writer):
    if not writer.parts:
        writer.write(0, np.zeros((2, 3)))
        writer.record_part(Part(0, 2, {}))
    note(f"building after {len(writer.parts)}")
    time.sleep(seconds)
    writer.write(2, np.ones((2, 3)))
    return 4, {"fact": 1}

found = load_or_build(folder, key_fields={"what": "test"}, build=build, on_wait=lambda: note("waiting"))
note(f"{found.array.sum():g} {found.facts}")
"""


def wait_for(log: Path, line: str) -> None:
    deadline = time.monotonic() + 60
    while not (log.exists() and line in log.read_text()):
        assert time.monotonic() < deadline, "the other process did not start"
        time.sleep(0.02)


def test_second_process_waits_and_resumes_after_a_kill(tmp_path: Path) -> None:
    cache, log = tmp_path / "cache", tmp_path / "log"
    first = run_python(BUILDER, cache, log, 60)
    wait_for(log, "building")
    second = run_python(BUILDER, cache, log, 0)
    wait_for(log, "waiting")
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert second.wait() == 0, second.communicate()
    assert log.read_text().splitlines() == ["building after 1", "waiting", "building after 1", "6 {'fact': 1}"]
    assert list_folders(cache) == [cache_key({"what": "test"})]
