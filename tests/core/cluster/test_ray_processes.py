"""What was started under a mark is ended, whoever its parent is by then; nothing else is."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from core.cluster import ray_processes
from core.cluster.ray_processes import MARK, end_marked, marked

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
orphan = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(orphan.pid, flush=True)
if len(sys.argv) > 1:
    time.sleep(60)
"""


def start(*words: str) -> tuple["subprocess.Popen[str]", psutil.Process]:
    """Start a process that does not answer a request to end, and one of its own, which does."""
    process = subprocess.Popen([sys.executable, "-c", STUBBORN, *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, psutil.Process(int(process.stdout.readline()))


@pytest.mark.timeout(60)
def test_marked_processes_are_ended_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_processes, "GRACE", 0.5)
    with marked() as other:
        theirs, _ = start("waits")
    with marked() as mark:
        stubborn, child = start("waits")
        gone, orphan = start()
    assert MARK not in os.environ
    plain, _ = start("waits")
    assert gone.wait() == 0
    try:
        assert orphan.is_running()
        end_marked(mark)
        assert not psutil.pid_exists(stubborn.pid)
        psutil.wait_procs([child, orphan], timeout=5)
        assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in (child, orphan))
        assert (theirs.poll(), plain.poll()) == (None, None)
        begun = time.monotonic()
        end_marked("none")
        assert time.monotonic() - begun < 0.4  # nobody is waited for
    finally:
        end_marked(other)
        for process in psutil.Process(plain.pid).children():
            process.kill()
        plain.kill()
    assert not psutil.pid_exists(theirs.pid)
