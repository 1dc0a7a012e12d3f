import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from core.cache.array_file import ArrayReader
from core.session import DeviceCache
from core.training.batches import N_READERS, ArraySource

CPU = torch.device("cpu")


def arrays() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((10, 3, 4, 5)).astype(np.float32) for _ in range(3)]


def source(budget: int, *, channels_last: bool = True) -> ArraySource:
    return ArraySource(arrays(), key="k", device=CPU, channels_last=channels_last, device_cache=DeviceCache(budget))


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("budget", [10**9, 0], ids=["resident", "read ahead"])
def test_array_source_batches_are_the_rows(budget: int, channels_last: bool) -> None:
    whole = np.concatenate(arrays())
    rows = torch.tensor([3, 29, 0, 11, 12, 7, 25])
    batches = list(source(budget, channels_last=channels_last).batches(rows, 3))
    assert [len(batch) for batch in batches] == [3, 4]  # a last batch of one row is merged
    np.testing.assert_array_equal(torch.cat(batches).numpy(), whole[rows.numpy()])
    if channels_last:
        assert all(batch.is_contiguous(memory_format=torch.channels_last) for batch in batches)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("budget", [10**9, 0], ids=["resident", "read ahead"])
def test_array_source_of_float16_gives_float32(budget: int, channels_last: bool, tmp_path: Path) -> None:
    halves = [array.astype(np.float16) for array in arrays()]
    for number, array in enumerate(halves):
        np.save(tmp_path / f"{number}.npy", array)
    stored = [np.load(tmp_path / f"{number}.npy", mmap_mode="r") for number in range(len(halves))]
    made = ArraySource(stored, key="k", device=CPU, channels_last=channels_last, device_cache=DeviceCache(budget))
    assert made.on_device is None or made.on_device.dtype == torch.float16
    rows = torch.tensor([3, 29, 0, 11, 12, 7, 25])
    batches = list(made.batches(rows, 3))
    assert {batch.dtype for batch in batches} == {torch.float32}
    np.testing.assert_array_equal(torch.cat(batches).numpy(), np.concatenate(halves)[rows.numpy()].astype(np.float32))
    if channels_last:
        assert all(batch.is_contiguous(memory_format=torch.channels_last) for batch in batches)


@pytest.mark.parametrize("channels_last", [True, False])
def test_array_source_within_budget_copies_in_parts(tmp_path: Path, channels_last: bool) -> None:
    np.save(tmp_path / "a.npy", np.zeros((1000, 3, 8, 8), np.float32))
    stored = np.load(tmp_path / "a.npy", mmap_mode="r")
    tracemalloc.start()  # measures allocations of NumPy, not of torch
    whole = ArraySource(
        [stored], key="k", device=CPU, channels_last=channels_last, device_cache=DeviceCache(10**9)
    ).on_device
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert whole is not None
    assert whole.nbytes == stored.nbytes
    assert peak < stored.nbytes / 4


def test_array_source_above_budget_reads_few_batches_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of batches that are read ahead is limited."""
    np.save(tmp_path / "a.npy", np.arange(400, dtype=np.float32).reshape(100, 4))
    read: list[int] = []
    monkeypatch.setattr(ArrayReader, "read", lambda self, rows, out, places: read.extend(rows))
    stored = np.load(tmp_path / "a.npy", mmap_mode="r")
    batches = ArraySource([stored], key="k", device=CPU, channels_last=True, device_cache=DeviceCache(0)).batches(
        torch.arange(100), 5
    )
    next(batches)
    time.sleep(0.3)
    assert 5 <= len(read) <= 5 * (2 + N_READERS)


def test_array_source_single_row_is_one_batch() -> None:
    assert [len(batch) for batch in source(10**9).batches(torch.tensor([4]), 3)] == [1]


def test_device_cache_drops_least_recently_used() -> None:
    device_cache = DeviceCache(100)
    made: list[str] = []

    def make(name: str) -> torch.Tensor:
        made.append(name)
        return torch.zeros(40, dtype=torch.uint8)

    for name in ("a", "b", "a", "c", "a", "b"):
        assert device_cache.get(name, 40, lambda name=name: make(name)) is not None  # type: ignore[misc]
    assert made == ["a", "b", "c", "b"]
    assert device_cache.get("big", 101, lambda: make("big")) is None
