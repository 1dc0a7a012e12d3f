"""What every ablation needs: runs and their store, audio in, images out, models in blocks, training."""

import ctypes
import os
import sys
from contextlib import suppress

# Threads of OpenMP that wait for others turn in a circle for a while before they sleep. On a machine of one's own that
# saves microseconds; beside any other busy process they hold the core that the others need, and a second training makes
# both several times slower. It has to be said before torch is imported; who has said it already is left alone.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # GNU's, which torch comes with: turns
os.environ.setdefault("KMP_BLOCKTIME", "0")  # Intel's and LLVM's: milliseconds

# GNU's C library gives a large tensor memory of its own and hands it back to the system when the tensor is freed. The
# next layer gets other memory, every page of which the system clears at its first use: up to a fifth of a step. What
# was freed is kept for the next tensor instead; the most that is held at once stays about the same. All threads have
# memory from one place, since what is freed elsewhere is handed back whatever is said. Who has set it already
# (mallopt(3)) is left alone.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX, _NEVER = -1, -4, -8, -1
if not any(name.startswith("MALLOC_") for name in os.environ) and "malloc" not in os.environ.get("GLIBC_TUNABLES", ""):
    with suppress(OSError, AttributeError, TypeError):  # another system, or another C library
        _libc = ctypes.CDLL(None)
        if _libc.gnu_get_libc_version:
            _libc.mallopt(_M_MMAP_MAX, 0)
            _libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)
            _libc.mallopt(_M_ARENA_MAX, 1)


def hand_back_freed() -> None:
    """Give the system what was freed and is kept for later, where other processes are about to need it."""
    with suppress(OSError, AttributeError, TypeError):  # another system, or another C library
        ctypes.CDLL(None).malloc_trim(0)
    if arrow := sys.modules.get("pyarrow"):  # whose memory pandas' texts are in
        arrow.default_memory_pool().release_unused()
