"""Batches of random rows of a set that the device has no room for, against the memory map read by one thread.

Images of 3 x 128 x 250 in float32, 384 kB each: those of a training with `resnet50` on a GPU, which takes 2,000 a
second and more. Read twice: from the disk, and from the memory that the system keeps files in.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.session import DeviceCache
from core.training.batches import ArraySource
from tests.benchmarks.comparison import REPEATS, row

SHAPE, ROWS, BATCH, BATCHES = (3, 128, 250), 6000, 32, 60
NEEDED = 2000.0  # images a second


def measure() -> Iterator[dict[str, Any]]:
    """Yield, from the disk and from memory: ours against the plain recipe, and against what a GPU needs."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "images.npy"
        array = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=(ROWS, *SHAPE))
        some = np.random.default_rng(0).standard_normal((64, *SHAPE)).astype(np.float32)
        for start in range(0, ROWS, len(some)):
            array[start : start + len(some)] = some[: ROWS - start]
        array.flush()
        del array
        for place in ("disk", "memory"):
            seconds: dict[str, list[float]] = {"ours": [], "plain": []}
            for k in range(REPEATS):
                for name, side in (("ours", _ours), ("plain", _plain)):
                    seconds[name].append(_timed(side, file, cold=place == "disk", seed=k))
            what = f"random images from {place}: one thread and a memory map, against ours"
            yield row(what, seconds["plain"], seconds["ours"], 1.5)
            what = f"random images from {place}: a second, against {NEEDED:,.0f}"
            yield row(what, BATCH * BATCHES / NEEDED, seconds["ours"], 1.0)


def _timed(side: Callable[[np.ndarray, torch.Tensor], int], file: Path, *, cold: bool, seed: int) -> float:
    with file.open("rb") as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED if cold else os.POSIX_FADV_WILLNEED)
    if not cold:
        with file.open("rb") as opened:
            while opened.read(2**24):
                pass
    array = np.load(file, mmap_mode="r")
    rows = torch.from_numpy(np.random.default_rng(seed).permutation(ROWS)[: BATCH * BATCHES])
    begun = time.perf_counter()
    assert side(array, rows) == BATCHES
    return time.perf_counter() - begun


def _ours(array: np.ndarray, rows: torch.Tensor) -> int:
    source = ArraySource([array], key="k", device=torch.device("cpu"), channels_last=False, device_cache=DeviceCache(0))
    return sum(1 for _ in source.batches(rows, BATCH))


def _plain(array: np.ndarray, rows: torch.Tensor) -> int:
    """Look rows up in the memory map, a batch ahead."""
    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(lambda part: torch.from_numpy(array[part]), part.numpy()) for part in rows.split(BATCH)]
        return sum(1 for each in waiting if len(each.result()))
