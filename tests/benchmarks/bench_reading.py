"""Random batches of an array that is larger than device memory, against a memory map read by one thread.

Images of 3 x 128 x 250 in float32 (384 kB each), as for training on a GPU at 2,000 images a second or more. They are
read from the disk and from the page cache.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch

from core.session import DeviceCache
from core.training.batches import ArraySource
from tests.benchmarks.comparison import REPEATS, Row, compare, time_once

SHAPE, N_IMAGES, BATCH_SIZE, BATCHES = (3, 128, 250), 6000, 32, 60
NEEDED = 2000.0  # images a second


def measure() -> Iterator[Row]:
    """Yield two rows per place, disk and page cache: ours against the memory map, and against 2,000 images a second."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "images.npy"
        array = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=(N_IMAGES, *SHAPE))
        noise = np.random.default_rng(0).standard_normal((64, *SHAPE)).astype(np.float32)
        for start in range(0, N_IMAGES, len(noise)):
            array[start : start + len(noise)] = noise[: N_IMAGES - start]
        array.flush()
        del array
        for place in ("disk", "page cache"):
            seconds: dict[str, list[float]] = {"ours": [], "memory map": []}
            for seed in range(REPEATS):
                for name, read in (("ours", _read_ours), ("memory map", _read_memory_map)):
                    seconds[name].append(_time_reading(read, file, cached=place == "page cache", seed=seed))
            what = f"random images from the {place}: memory map and one thread / ours"
            yield compare(what, seconds["memory map"], seconds["ours"], 1.5)
            what = f"random images from the {place}: images a second / {NEEDED:,.0f}"
            yield compare(what, BATCH_SIZE * BATCHES / NEEDED, seconds["ours"], 1.0)


def _time_reading(read: Callable[[np.ndarray, torch.Tensor], int], file: Path, *, cached: bool, seed: int) -> float:
    with file.open("rb") as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_WILLNEED if cached else os.POSIX_FADV_DONTNEED)
        while cached and opened.read(2**24):
            pass
    array = np.load(file, mmap_mode="r")
    rows = torch.from_numpy(np.random.default_rng(seed).permutation(N_IMAGES)[: BATCH_SIZE * BATCHES])
    return time_once(partial(read, array, rows))


def _read_ours(array: np.ndarray, rows: torch.Tensor) -> int:
    source = ArraySource([array], key="k", device=torch.device("cpu"), channels_last=False, device_cache=DeviceCache(0))
    return sum(1 for _ in source.batches(rows, BATCH_SIZE))


def _read_memory_map(array: np.ndarray, rows: torch.Tensor) -> int:
    """Index the memory map in one thread."""
    with ThreadPoolExecutor(1) as pool:
        read = lambda part: torch.from_numpy(array[part.numpy()])  # noqa: E731
        return sum(len(batch) for batch in pool.map(read, rows.split(BATCH_SIZE)))
