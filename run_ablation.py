#!/usr/bin/env python
"""Ablations of transfer learning on sound: find out which part of a pretrained image CNN carries the knowledge.

    python run_ablation.py freeze --block 3                     instruments, nothing to download, about two minutes
    python run_ablation.py freeze --data urbansound8k --data-root DIR --fold all --seed 0 1 2
    python run_ablation.py study rethinking-cnn --scale quick   every experiment of a report, beside its numbers
    python run_ablation.py data --data esc50 --data-root DIR    what is in a data set, and what is wrong with it
    python run_ablation.py predict --run ID --from DIR          what a finished run says of new sounds
    python run_ablation.py report                               one page of all that is in the store

An ablation plans its runs, trains those that are not in the store yet (``results/runs``), and draws its tables and
figures from the store. The same command again trains nothing; an interrupted one goes on where it stopped.
"""

import gc
import os
import signal


def _too_early(number: int, frame: object) -> None:
    """Answer Ctrl-C before there is anything to leave in order."""
    os.write(2, b"run_ablation.py: interrupted\n")
    os._exit(128 + number)


if __name__ == "__main__":
    gc.disable()  # until all is imported: nothing of it is garbage, and to look for some takes a tenth of a start
    for _number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(_number) != signal.SIG_IGN:
            signal.signal(_number, _too_early)

import pkgutil  # noqa: E402
import sys  # noqa: E402
from collections.abc import Sequence  # noqa: E402

from core import door  # noqa: E402

OPTIONS, COMMANDS = (
    "commands.cli.parser:call",
    "commands:COMMANDS",
)  # imported behind the door, where Ctrl-C is answered
ABLATION = "commands.ablation:run"  # what runs a command that does not name its own, as an ablation does not


def main(arguments: Sequence[str]) -> int:
    """Run one command; return the exit status."""
    call = pkgutil.resolve_name(OPTIONS)(pkgutil.resolve_name(COMMANDS), arguments)
    run = pkgutil.resolve_name(getattr(call.command, "runs", ABLATION))
    if not gc.isenabled():
        gc.freeze()  # nor is any of it looked at later
        gc.enable()
    status: int = run(call)
    return status


if __name__ == "__main__":
    door.end(main, sys.argv[1:])
