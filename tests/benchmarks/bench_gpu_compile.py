"""CUDA graphs (``--compile``) where launches take the time: epochs of small batches with them, against without.

A network takes minutes to compile, so this is a file of its own; how it is measured stands in `bench_gpu`.
"""

from collections.abc import Iterator
from typing import Any

from tests.benchmarks import bench_gpu


def measure() -> Iterator[dict[str, Any]]:
    """Yield a row per network, none without a GPU."""
    yield from bench_gpu.on_gpu(bench_gpu.compiled_rows)
