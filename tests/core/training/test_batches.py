from pathlib import Path

import numpy as np
import pytest
import torch

from core.session import DeviceCache
from core.training.batches import ArraySource

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
