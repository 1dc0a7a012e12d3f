"""Settings of the C library's malloc: keep freed memory for the next tensor, or return it to the system.

By default glibc returns the memory of a large tensor to the system when it is freed. The next tensor then gets new
pages, which the kernel clears at their first use. Gain of keeping the memory: without it, a training step of
EfficientNet-Lite0 takes 1.55 times as long and one of ResNet-50 1.33 times (``python -m tests.benchmarks evaluation``,
`docs/speed.md`). The peak memory stays about the same.
"""

import ctypes
import os
import sys
from contextlib import suppress

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX, _NEVER = -1, -4, -8, -1  # malloc.h


def keep_freed_memory() -> None:
    """Set up glibc's malloc to keep freed memory, in one arena for all threads.

    Does nothing with another C library, or if the environment configures malloc (``MALLOC_*``, ``GLIBC_TUNABLES``; see
    mallopt(3)). Only one arena is used, because glibc ignores these settings in other arenas.
    """
    if any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    with suppress(OSError, AttributeError, TypeError):  # another system, or another C library
        libc = ctypes.CDLL(None)
        if libc.gnu_get_libc_version:
            libc.mallopt(_M_MMAP_MAX, 0)
            libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)
            libc.mallopt(_M_ARENA_MAX, 1)


def return_freed_memory() -> None:
    """Return freed memory to the system, for example before other processes start."""
    with suppress(OSError, AttributeError, TypeError):  # another system, or another C library
        ctypes.CDLL(None).malloc_trim(0)
    if arrow := sys.modules.get("pyarrow"):  # pandas keeps strings in a memory pool of pyarrow
        arrow.default_memory_pool().release_unused()
