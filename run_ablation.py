#!/usr/bin/env python
"""Ablations of transfer learning on sound: find out which part of a pretrained image CNN carries the knowledge.

    python run_ablation.py freeze --block 3                     instruments, nothing to download, about two minutes
    python run_ablation.py freeze --data urbansound8k --data-root DIR --fold all --seed 0 1 2
    python run_ablation.py data --data esc50 --data-root DIR    what is in a data set, and what is wrong with it

An ablation plans its runs, trains those that are not in the store yet (``results/runs``), and draws its tables and
figures from the store. The same command again trains nothing; an interrupted one goes on where it stopped.
"""

import pkgutil
import shlex
import signal
import sys
from collections.abc import Sequence

from ablations import ABLATIONS
from core import options
from core.errors import UserError

COMMANDS = {  # that are no ablations: a dataclass of options with a method `run`
    "data": "analysis.inventory:Inventory",
}


def main(arguments: Sequence[str]) -> int:
    """Run one command; return the exit status."""
    ablations = {name: pkgutil.resolve_name(path) for name, path in ABLATIONS.items()}
    others = {name: pkgutil.resolve_name(path) for name, path in COMMANDS.items()}
    named = {name: options.command(cls) for name, cls in ablations.items()}
    named |= {name: options.plain(cls) for name, cls in others.items()}
    name, chosen = options.parse(named, arguments)
    if name in others:
        status: int = options.read(others[name], chosen).run()
        return status
    from ablations.command import run  # torch and pandas, which take seconds to import

    command = shlex.join(["python", "run_ablation.py", *arguments])
    return run(name, options.read(ablations[name], chosen), chosen, command=command)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"run_ablation.py: {error}", file=sys.stderr)
        sys.exit(2)
