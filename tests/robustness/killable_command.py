"""Run the command line and stop it at a given event, so that a test can kill it there.

    python tests/robustness/killable_command.py PIPE PHASE NUMBER RESULTS WORD ..
    python tests/robustness/killable_command.py SOCKET

Events are imports, and later changes of files below RESULTS; each event belongs to a phase. At event NUMBER of PHASE a
byte is written to PIPE, and at the next event the command waits to be killed. With the phase ``none`` the command never
waits, and writes phase and time of every event to PIPE; with ``unwatched`` it has no events.

The second form imports slow packages once and forks a process for each request that arrives at SOCKET: a JSON list of
the files for stdout and stderr, PHASE, NUMBER, RESULTS and words, with the file descriptor of PIPE. The answer is the
id of the process. The answer to a request that is such an id is the status of `os.waitpid`, or -1 while it
runs. Forked processes have no events of the phase start-up.
"""

import importlib
import json
import os
import runpy
import socket
import sys
import time
from pathlib import Path
from typing import NoReturn

PHASES = ("start-up", "images", "training", "record", "tables")
WRITES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}
KILL_TIMEOUT = 60  # seconds
ROOT = Path(__file__).parents[2]
WARM = ("commands.ablation", "commands.cli.parser", "ablations.freeze", "timm", "torch.utils.tensorboard", "sklearn",
        "matplotlib.backends.backend_agg", "matplotlib.backends.backend_pdf", "librosa.util")  # fmt: skip


class Watch:
    """Counts events by phase, as an audit hook of the interpreter."""

    def __init__(self, pipe: int, phase: str, number: int, results: str) -> None:
        self.pipe, self.phase, self.number, self.results = pipe, phase, number, results
        self.seen = dict.fromkeys(PHASES, 0)
        self.waiting = False

    def __call__(self, event: str, arguments: tuple) -> None:
        phase = self._phase(event, arguments)
        if not phase:
            return
        if trainer := sys.modules.get("core.training.trainer"):
            trainer.CHECKPOINT_INTERVAL = 0.0  # a checkpoint after every epoch
        if self.waiting:
            time.sleep(KILL_TIMEOUT)
            os._exit(99)
        if self.phase == "none":
            os.write(self.pipe, f"{phase} {time.monotonic()}\n".encode())
        elif phase == self.phase and self.seen[phase] == self.number:
            self.waiting = True
            os.write(self.pipe, b"x")
        self.seen[phase] += 1

    def _phase(self, event: str, arguments: tuple) -> str:
        if event == "import":
            return "" if any(self.seen[later] for later in PHASES[1:]) else "start-up"
        writes = event in WRITES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if not writes or not isinstance(arguments[0], str | Path):
            return ""
        path = os.path.abspath(arguments[0])  # noqa: PTH100  (must not open a file)
        if not path.startswith(self.results):
            return ""
        parts = path.removeprefix(self.results).split("/")[1:]
        if parts[:1] == ["cache"]:
            return "images"
        if parts[:1] == ["runs"]:
            return "training" if "tensorboard" in parts or "checkpoint" in parts[-1] else "record"
        return "tables"


def run(pipe: int, phase: str, number: str, results: str, *words: str) -> None:
    """Run a command in this process and count its events."""
    sys.argv = ["run_ablation.py", *words]
    if phase != "unwatched":
        sys.addaudithook(Watch(pipe, phase, int(number), results))
    runpy.run_path(str(ROOT / "run_ablation.py"), run_name="__main__")


def serve(requests: socket.socket) -> NoReturn:
    """Import slow packages and fork a process for each request."""
    for name in WARM:
        importlib.import_module(name)
    while True:
        message, descriptors, *_ = socket.recv_fds(requests, 2**16, 1)
        if not message:
            os._exit(0)
        request = json.loads(message)
        if isinstance(request, int):
            ended, status = os.waitpid(request, os.WNOHANG)
            answer = status if ended else -1
        elif not (answer := os.fork()):
            *logs, phase, number, results = request[:5]
            streams = [os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for log in logs]
            for stream, file in enumerate((os.open(os.devnull, os.O_RDONLY), *streams)):
                os.dup2(file, stream)
            requests.close()
            run(*descriptors, phase, number, results, *request[5:])
        else:
            os.close(*descriptors)
        requests.send(str(answer).encode())


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    if sys.argv[2:]:
        run(int(sys.argv[1]), *sys.argv[2:])
    else:
        serve(socket.socket(fileno=int(sys.argv[1])))
