"""The entry point: parse a command line, import the command, and run it."""

import pkgutil
from collections.abc import Sequence

from commands.cli.process_setup import resume_garbage_collection
from core.io.interrupts import exit_at_once

READ_CALL = "commands.cli.command_line:read_call"
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
    """
    with exit_at_once():
        call = pkgutil.resolve_name(READ_CALL)(arguments)
        run = pkgutil.resolve_name(getattr(call.command, "runs", ABLATION))
    resume_garbage_collection()
    status: int = run(call)
    return status
