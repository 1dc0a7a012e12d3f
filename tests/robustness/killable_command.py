"""Run the command line and wait at a chosen moment, so that a test can kill the process there.

    python tests/robustness/killable_command.py PIPE PHASE NUMBER RESULTS WORD ..

How it works:

1. An audit hook of the interpreter (`sys.addaudithook`) sees every import and every change of a file in RESULTS. Each
   of these is an event of a phase: ``start-up`` (imports before the first write), ``images``, ``training``,
   ``record`` or ``tables``.
2. At event NUMBER (from 0) of PHASE, the hook writes a byte to the file descriptor PIPE and lets the command continue.
3. At the next event, the command sleeps until it is killed. The test reads the byte, waits a fraction of a second and
   kills the process. It is thus always alive, and between these two events.

With the phase ``none`` the command never waits and writes every event to PIPE, as a line of phase and time. While the
hook is active, the trainer writes a checkpoint after every epoch.

`tests/helpers/fork_server.py` uses the same functions in forked processes.
"""

import os
import runpy
import sys
import time
from pathlib import Path
from typing import NoReturn

PHASES = ("start-up", "images", "training", "record", "tables")
NO_PHASE = "none"
FILE_EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}  # besides "open" for writing
MAX_WAIT = 60  # seconds until the command exits with status 99 if nobody kills it
ROOT = Path(__file__).parents[2]


class EventHook:
    """Audit hook that counts events by phase, and waits at one of them."""

    def __init__(self, pipe: int, phase: str, number: int, results: str) -> None:
        self.pipe, self.phase, self.number, self.results = pipe, phase, number, results
        self.n_events = dict.fromkeys(PHASES, 0)
        self.waiting = False

    def __call__(self, event: str, arguments: tuple) -> None:
        phase = self._phase(event, arguments)
        if not phase:
            return
        if trainer := sys.modules.get("core.training.trainer"):
            trainer.CHECKPOINT_INTERVAL = 0.0
        if self.waiting:
            time.sleep(MAX_WAIT)
            os._exit(99)
        if self.phase == NO_PHASE:
            os.write(self.pipe, f"{phase} {time.monotonic()}\n".encode())
        elif phase == self.phase and self.n_events[phase] == self.number:
            self.waiting = True
            os.write(self.pipe, b"x")
        self.n_events[phase] += 1

    def _phase(self, event: str, arguments: tuple) -> str:
        """Return the phase of an event, or "" for an event that does not count."""
        if event == "import":
            return "" if any(self.n_events[later] for later in PHASES[1:]) else "start-up"
        writes = event in FILE_EVENTS or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if not writes or not isinstance(arguments[0], str | Path):
            return ""
        path = os.path.abspath(arguments[0])  # noqa: PTH100  (must not open a file: that would be an event)
        if not path.startswith(self.results):
            return ""
        parts = path.removeprefix(self.results).split("/")[1:]
        if parts[:1] == ["cache"]:
            return "images"
        if parts[:1] == ["runs"]:
            return "training" if "tensorboard" in parts or "checkpoint" in parts[-1] else "record"
        return "tables"


def run_watched(pipe: int, phase: str, number: int, results: str, *words: str) -> NoReturn:
    """Run a command in this process with an event hook."""
    sys.addaudithook(EventHook(pipe, phase, number, results))
    run_command(*words)


def run_command(*words: str) -> NoReturn:
    """Run ``run_ablation.py`` in this process, which ends with the command."""
    sys.argv = ["run_ablation.py", *words]
    runpy.run_path(str(ROOT / "run_ablation.py"), run_name="__main__")
    raise AssertionError("the command has not ended the process")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    descriptor, kill_phase, event_number, results_folder, *command_line = sys.argv[1:]
    run_watched(int(descriptor), kill_phase, int(event_number), results_folder, *command_line)
