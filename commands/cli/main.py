"""The entry point: parse a command line, import the command, and run it."""

import pkgutil
import time
from collections.abc import Sequence

from commands.cli.process_setup import resume_garbage_collection
from core.errors import UserError
from core.registry import Lazy
from core.system.interrupts import exit_at_once

read_call = Lazy("commands.cli.command_line:read_call")  # imports the parser and rich
MAX_YEAR = 9999  # later dates cannot be represented
ABLATION = "commands.ablation:run"  # runs commands without a class variable `runs`: the ablations


def main(arguments: Sequence[str]) -> int:
    """Run one command.

    Parameters
    ----------
    arguments
        The arguments after the name of the program.

    Returns
    -------
    status
        Exit status; see `commands.cli.exit_handling`.

    Raises
    ------
    UserError
        If the command line is wrong, or the clock of this machine shows an impossible year.
    """
    with exit_at_once():
        call = read_call(arguments)
        run = pkgutil.resolve_name(getattr(call.command, "runs", ABLATION))
    resume_garbage_collection()
    if (year := time.gmtime(time.time()).tm_year) > MAX_YEAR:
        raise UserError(f"the clock of this machine shows the year {year}; set its date")
    status: int = run(call)
    return status
