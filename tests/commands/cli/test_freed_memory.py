"""Memory that was freed is used again, not asked of the system anew."""

import os
import subprocess
import sys

import pytest

LARGE, TIMES, PAGE = 64 * 2**20, 20, 4096
SCRIPT = f"""
import resource
import core
faults = []
for _ in range({TIMES}):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    large = b"x" * {LARGE}
    del large
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sum(faults[1:]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.skipif(not hasattr(os, "confstr") or "CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="not GNU's C")
def test_freed_memory_is_kept_unless_somebody_has_said_otherwise() -> None:
    def measured(**said: str) -> tuple[int, int]:
        own = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
        found = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, env=own | said)
        faults, peak = map(int, found.stdout.split())
        return faults, peak

    ours, peak = measured()
    left_alone, its_peak = measured(MALLOC_MMAP_THRESHOLD_="131072")
    assert left_alone > (TIMES - 1) * LARGE / PAGE / 600  # pages may be of 2 MiB
    assert ours < left_alone / 20
    assert peak < 1.1 * its_peak


HELD = """
import core
def held():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmRSS"))
{}
del small
before = held()
core.hand_back_freed()
print(before - held())
"""
SMALL = {
    "bytes": f"""
small = [bytearray(b"x") * 2000 for _ in range({LARGE} // 2000)]
end = bytearray(b"y") * 2000  # behind them
""",
    "texts": f"""
import ctypes
import pandas as pd
names = [f"{{i:0200}}" for i in range({LARGE} // 200)]
small = [pd.Series(names).sort_values() for _ in range(2)]
del names
ctypes.CDLL(None).malloc_trim(0)  # Arrow's are elsewhere
""",
}


@pytest.mark.skipif(not hasattr(os, "confstr") or "CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="not GNU's C")
@pytest.mark.parametrize("what", SMALL)
def test_freed_memory_is_handed_back_when_it_is_asked_for(what: str) -> None:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    script = HELD.format(SMALL[what])
    found = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, env=own)
    assert int(found.stdout) > 0.8 * LARGE
