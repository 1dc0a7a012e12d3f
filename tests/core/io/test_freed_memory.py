"""Freed memory is kept for the next tensor, and returned to the system on request."""

import os
import subprocess
import sys

import pytest

LARGE, TIMES, PAGE = 64 * 2**20, 20, 4096
KEEP = f"""
import resource
from core.io.memory import keep_freed_memory
keep_freed_memory()
faults = []
for _ in range({TIMES}):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    large = b"x" * {LARGE}
    del large
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sum(faults[1:]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
RETURN = f"""
from core.io.memory import keep_freed_memory, return_freed_memory
keep_freed_memory()
def resident():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmRSS"))
small = [bytearray(b"x") * 2000 for _ in range({LARGE} // 2000)]
end = bytearray(b"y") * 2000  # at the end of the heap, so that the heap cannot shrink
del small
before = resident()
return_freed_memory()
print(before - resident())
"""
pytestmark = pytest.mark.skipif(
    not hasattr(os, "confstr") or "CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="needs glibc"
)


def measure(script: str, **settings: str) -> list[int]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    process = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, env=inherited | settings)
    return [int(number) for number in process.stdout.split()]


def test_freed_memory_is_kept_unless_the_environment_configures_malloc() -> None:
    faults, peak = measure(KEEP)
    default_faults, default_peak = measure(KEEP, MALLOC_MMAP_THRESHOLD_="131072")
    assert default_faults > (TIMES - 1) * LARGE / PAGE / 600  # pages may be of 2 MiB
    assert faults < default_faults / 20
    assert peak < 1.1 * default_peak


def test_freed_memory_is_returned_on_request() -> None:
    assert measure(RETURN)[0] > 0.8 * LARGE
