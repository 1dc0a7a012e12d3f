"""Run the command line and say when it comes to a moment, so that whoever started it can kill it there.

    python tests/robustness/killable_command.py PIPE PHASE NUMBER RESULTS WORD ..
    python tests/robustness/killable_command.py SOCKET

What it does in the file system below RESULTS, and before that what it imports, are its events; each belongs to a phase.
At the event of that number in that phase a byte goes into PIPE, and at the next one the command waits to be killed: so
that the kill, a while after the byte, always meets it alive and where it was meant to. With the phase ``none`` nothing
waits, and every event goes into PIPE as a line of its phase and time; with ``unwatched`` nothing of this is done.

The second way imports what commands import, which takes longer than a small command, and forks a process for each
request that comes through SOCKET: a list of JSON, the files that its two streams go into and PHASE NUMBER RESULTS
WORD .., and with it the descriptor of PIPE. The answer is the process's id. To a request that is such an id the answer
is what `os.waitpid` says of it, or -1 while it runs. No start-up is seen in such a process.
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
PATIENCE = 60  # seconds in which the kill must come
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
            trainer.CHECKPOINT_INTERVAL = 0.0  # every epoch leaves one
        if self.waiting:
            time.sleep(PATIENCE)
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
        path = os.path.abspath(arguments[0])  # noqa: PTH100  (nothing that opens a file)
        if not path.startswith(self.results):
            return ""
        parts = path.removeprefix(self.results).split("/")[1:]
        if parts[:1] == ["cache"]:
            return "images"
        if parts[:1] == ["runs"]:
            return "training" if "tensorboard" in parts or "checkpoint" in parts[-1] else "record"
        return "tables"


def run(pipe: int, phase: str, number: str, results: str, *words: str) -> None:
    """Run a command in this process, watched."""
    sys.argv = ["run_ablation.py", *words]
    if phase != "unwatched":
        sys.addaudithook(Watch(pipe, phase, int(number), results))
    runpy.run_path(str(ROOT / "run_ablation.py"), run_name="__main__")


def serve(asked: socket.socket) -> NoReturn:
    """Import what takes long, and fork a process for each request."""
    for name in WARM:
        importlib.import_module(name)
    while True:
        said, descriptors, *_ = socket.recv_fds(asked, 2**16, 1)
        if not said:
            os._exit(0)
        request = json.loads(said)
        if isinstance(request, int):
            ended, status = os.waitpid(request, os.WNOHANG)
            answer = status if ended else -1
        elif not (answer := os.fork()):
            *logs, phase, number, results = request[:5]
            told = [os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for log in logs]
            for stream, file in enumerate((os.open(os.devnull, os.O_RDONLY), *told)):
                os.dup2(file, stream)
            asked.close()
            run(*descriptors, phase, number, results, *request[5:])
        else:
            os.close(*descriptors)
        asked.send(str(answer).encode())


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    if sys.argv[2:]:
        run(int(sys.argv[1]), *sys.argv[2:])
    else:
        serve(socket.socket(fileno=int(sys.argv[1])))
