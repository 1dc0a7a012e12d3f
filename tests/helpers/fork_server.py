"""Commands as processes of their own that start at once: what they import is there, which takes longer than they do."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DOOMED = str(ROOT / "tests" / "robustness" / "killable_command.py")
UNWATCHED = ("unwatched", "0", "")  # phase, number and results of a command that nobody waits for


class Warm:
    """Starts commands as processes of an interpreter that has imported what takes longer than they do."""

    def __init__(self, asked: socket.socket) -> None:
        self.asked = asked

    def start(self, *words: str | Path, out: Path, err: Path) -> "Forked":
        """Start a command as its users type it; its streams go into files."""
        with open(os.devnull, "wb") as nothing:  # noqa: PTH123
            return self.forked([*map(str, (out, err, *UNWATCHED, *words))], nothing.fileno(), (out, err))

    def forked(self, request: list[str], pipe: int, streams: tuple[Path, ...] = ()) -> "Forked":
        """Start a command as `killable_command` says."""
        return Forked(self, self.answer(request, pipe), streams)

    def answer(self, request: Any, *descriptors: int) -> int:
        """Ask that interpreter."""
        socket.send_fds(self.asked, [json.dumps(request).encode()], descriptors)
        return int(self.asked.recv(99))


@dataclass
class Forked:
    """A process of that interpreter."""

    of: Warm
    pid: int
    streams: tuple[Path, ...]
    status: int | None = field(default=None, init=False)

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        """Return the status of a process that has ended."""
        if self.status is None and (said := self.of.answer(self.pid)) >= 0:
            self.status = os.waitstatus_to_exitcode(said)
        return self.status

    def wait(self, seconds: float = 240) -> int:
        """Wait for the end; return the status."""
        end = time.monotonic() + seconds
        while (status := self.poll()) is None:
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.01)
        return status

    def finish(self) -> tuple[int, str, str]:
        """Wait for the end; return the status and both streams."""
        status = self.wait()
        out, err = (file.read_text() for file in self.streams)
        return status, out, err


@contextmanager
def started() -> Iterator[Warm]:
    """Start that interpreter, and end it after the block."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, DOOMED, str(its.fileno())]
    with ours, subprocess.Popen(command, pass_fds=[its.fileno()], cwd=ROOT) as server:
        its.close()
        yield Warm(ours)
        ours.close()
        assert server.wait(60) == 0
