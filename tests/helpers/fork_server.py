"""Start commands quickly, as forks of a server process that has already imported the libraries.

A small command takes about a second, but importing torch and the other libraries takes several. With the fork server
they are imported once for all commands:

1. `start_fork_server` runs this file in a new interpreter, which imports PRELOADED and waits on a Unix socket.
2. `ForkServer.start` sends a request, which is one JSON object. The server forks. The child opens its stdout and stderr
   files and runs ``run_ablation.py`` with the given words; the server answers with the child's process id.
3. A request ``{"poll": PID}`` is answered with the wait status of that child, or -1 while it runs. Only the server can
   ask, because only a parent process can wait for its children.
4. When the socket closes, the server exits.

A fork does not repeat the imports, so tests of start-up have to start a new interpreter instead.
"""

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[2]
PRELOADED = (
    "commands.ablation",
    "commands.cli.parser",
    "ablations.freeze",
    "timm",
    "torch.utils.tensorboard",
    "sklearn",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_pdf",
    "librosa.util",
)
RUNNING = -1  # answer of the server about a child that has not ended


class ForkServer:
    """Client of a server process: starts commands there.

    Parameters
    ----------
    connection
        Socket whose other end the server has.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def start(self, words: Sequence[str | Path], *, out: Path, err: Path) -> "ForkedCommand":
        """Start ``run_ablation.py`` with these words; its stdout and stderr are appended to two files."""
        return self._fork({"words": words, "out": out, "err": err})

    def start_watched(
        self, words: Sequence[str | Path], *, log: Path, phase: str, number: int, results: Path, pipe: int
    ) -> "ForkedCommand":
        """Start a command that `killable_command.run_watched` runs; stdout and stderr are appended to `log`.

        Parameters
        ----------
        phase, number, results
            See `killable_command`.
        pipe
            File descriptor that the command writes to.
        """
        watch = [phase, number, results]
        return self._fork({"words": words, "out": log, "err": log, "watch": watch}, pipe)

    def _fork(self, request: dict[str, Any], *descriptors: int) -> "ForkedCommand":
        streams = Path(request["out"]), Path(request["err"])
        return ForkedCommand(self, self.send(request, *descriptors), streams)

    def send(self, request: dict[str, Any], *descriptors: int) -> int:
        """Send a request with file descriptors; return the server's answer."""
        socket.send_fds(self.connection, [json.dumps(request, default=str).encode()], descriptors)
        return int(self.connection.recv(99))


@dataclass
class ForkedCommand:
    """A command that runs as a child of the fork server, with the methods of `subprocess.Popen`."""

    server: ForkServer
    pid: int
    streams: tuple[Path, Path]
    status: int | None = field(default=None, init=False)

    def send_signal(self, number: int) -> None:
        """Send a signal to the process."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL to the process."""
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        """Return the exit status, or None while the process runs."""
        if self.status is None and (status := self.server.send({"poll": self.pid})) != RUNNING:
            self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def wait(self, seconds: float = 240) -> int:
        """Wait for the end of the process; return its exit status."""
        end = time.monotonic() + seconds
        while (status := self.poll()) is None:
            assert time.monotonic() < end, f"process {self.pid} has not ended after {seconds} s"
            time.sleep(0.01)
        return status

    def communicate(self) -> tuple[int, str, str]:
        """Wait for the end of the process; return its exit status and the text of stdout and stderr."""
        status = self.wait()
        out, err = (file.read_text() for file in self.streams)
        return status, out, err


@contextmanager
def start_fork_server() -> Iterator[ForkServer]:
    """Start a server process; stop it at the end of the block."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, __file__, str(theirs.fileno())]
    with ours, subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=ROOT) as process:
        theirs.close()
        yield ForkServer(ours)
        ours.close()
        assert process.wait(60) == 0


# --- The server process ---


def serve(connection: socket.socket) -> NoReturn:
    """Import the libraries, and answer requests until the socket closes."""
    for name in PRELOADED:
        importlib.import_module(name)
    while True:
        message, descriptors, *_ = socket.recv_fds(connection, 2**16, 1)
        if not message:
            os._exit(0)
        request = json.loads(message)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = status if pid else RUNNING
        elif answer := os.fork():
            for descriptor in descriptors:
                os.close(descriptor)
        else:
            connection.close()
            run_request(request, descriptors)
        connection.send(str(answer).encode())


def run_request(request: dict[str, Any], descriptors: list[int]) -> NoReturn:
    """In a forked child: redirect the standard streams and run the command."""
    from killable_command import run_command, run_watched

    logs = [os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND) for name in ("out", "err")]
    for stream, file in enumerate((os.open(os.devnull, os.O_RDONLY), *logs)):
        os.dup2(file, stream)
    if "watch" in request:
        run_watched(*descriptors, *request["watch"], *request["words"])
    run_command(*request["words"])


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "robustness")]
    serve(socket.socket(fileno=int(sys.argv[1])))
