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
import shlex
import signal
import sys
from collections.abc import Sequence

from ablations import ABLATIONS
from core import options
from core.errors import UserError

STUDIES = {  # many ablations in one command
    "study": "ablations.study:Study",
    "figures": "ablations.study:Figures",
}
COMMANDS = {  # that plan no runs: a dataclass of options with a method `run`
    "data": "analysis.inventory:Inventory",
    "report": "analysis.report:Report",
}


def main(arguments: Sequence[str]) -> int:
    """Run one command; return the exit status."""
    classes = {name: pkgutil.resolve_name(path) for name, path in (ABLATIONS | STUDIES | COMMANDS).items()}
    makers = {name: options.plain if name in COMMANDS else options.command for name in classes}
    name, chosen = options.parse({name: makers[name](cls) for name, cls in classes.items()}, arguments)
    made = options.read(classes[name], chosen)
    if name in COMMANDS:
        status: int = made.run()
        return status
    if name in STUDIES:
        from ablations.run_study import run_study  # torch and pandas, which take seconds to import

        return run_study(made, arguments)
    from ablations.command import run

    return run(name, made, chosen, command=shlex.join(["python", "run_ablation.py", *arguments]))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"run_ablation.py: {error}", file=sys.stderr)
        sys.exit(2)
