"""The entry point: parse a command line, import the command it names, and run it."""

import pkgutil
from collections.abc import Sequence

from commands.cli.process_setup import resume_garbage_collection
from core.io.interrupts import exit_at_once

READ_CALL = "commands.cli.command_line:read_call"
ABLATION = "commands.ablation:run"  # runs commands that do not name a function of their own, as the ablations


def main(arguments: Sequence[str]) -> int:
    """Run one command.

    Parameters
    ----------
    arguments
        The words after the program's name.

    Returns
    -------
    status
        0 if everything went well.
    """
    with exit_at_once():
        call = pkgutil.resolve_name(READ_CALL)(arguments)
        run = pkgutil.resolve_name(getattr(call.command, "runs", ABLATION))
    resume_garbage_collection()
    status: int = run(call)
    return status
