#!/usr/bin/env python
"""Ablations of transfer learning on sound: find out which part of a pretrained image CNN carries the knowledge.

    python run_ablation.py freeze --block 3                     instruments, nothing to download, about two minutes
    python run_ablation.py freeze --data urbansound8k --data-root DIR --fold all --seed 0 1 2
    python run_ablation.py data --data esc50 --data-root DIR    what is in a data set, and what is wrong with it

A command plans its runs, trains those that are not in the store yet (``results/runs``), and draws its table and its
figure from the store. The same command again trains nothing; an interrupted one goes on where it stopped.
"""

import shlex
import signal
import sys
from collections.abc import Sequence

from ablations import ABLATIONS, load
from core import options
from core.errors import UserError


def main(arguments: Sequence[str]) -> int:
    """Run one command; return the exit status."""
    classes = {name: load(name) for name in ABLATIONS}
    name, chosen = options.parse({name: options.command(cls) for name, cls in classes.items()}, arguments)
    from ablations.command import run  # torch and pandas, seconds to import

    return run(name, classes[name], chosen, command=shlex.join(["python", "run_ablation.py", *arguments]))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"run_ablation.py: {error}", file=sys.stderr)
        sys.exit(2)
