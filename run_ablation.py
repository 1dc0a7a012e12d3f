#!/usr/bin/env python
"""Ablations of transfer learning on sound: find out which part of a pretrained image CNN carries the knowledge.

    python run_ablation.py freeze --block 3                     instruments, nothing to download, about two minutes
    python run_ablation.py freeze --data urbansound8k --data-root DIR --fold all --seed 0 1 2
    python run_ablation.py study rethinking-cnn --scale quick   every experiment of a report, beside its numbers
    python run_ablation.py data --data esc50 --data-root DIR    what is in a data set, and what is wrong with it
    python run_ablation.py report                               one page of all that is in the store

An ablation plans its runs, trains those that are not in the store yet (``results/runs``), and draws its tables and
figures from the store. The same command again trains nothing; an interrupted one goes on where it stopped.
"""

import pkgutil
import signal
import sys
from collections.abc import Sequence

from commands import COMMANDS, options
from core.errors import UserError

ABLATION = "commands.ablation:run"  # what runs a command that does not name its own, as an ablation does not


def main(arguments: Sequence[str]) -> int:
    """Run one command; return the exit status."""
    call = options.call(COMMANDS, arguments)
    status: int = pkgutil.resolve_name(getattr(call.command, "runs", ABLATION))(call)
    return status


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"run_ablation.py: {error}", file=sys.stderr)
        sys.exit(2)
