"""The entry point: parse a command line, import the command, and run it."""

import pkgutil
import resource
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

from commands.cli.exit_handling import run_and_exit
from commands.cli.process_setup import resume_garbage_collection
from core.errors import UserError
from core.registry import Lazy
from core.system.interrupts import exit_at_once

read_call = Lazy("commands.cli.command_line:read_call")  # imports the parser and rich
MAX_YEAR = 9999  # later dates cannot be represented
MIN_ADDRESS_SPACE = 4 * 2**30  # bytes; with less, OpenBLAS may wait for memory without end while it is imported
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
        If the command line is wrong, or this machine cannot run the command (`_check_machine`).
    """
    with exit_at_once():
        call = read_call(arguments)
        _check_machine(trains=getattr(call.command, "plans", False))
        run = pkgutil.resolve_name(getattr(call.command, "runs", ABLATION))
    resume_garbage_collection()
    status: int = run(call)
    return status


def run_program() -> NoReturn:
    """Run the command line of this process and exit: the console script ``run-ablation``."""
    run_and_exit(main, sys.argv[1:])


def _check_machine(*, trains: bool) -> None:
    """Raise a `UserError` if the clock or the locale is wrong, or the address space too small for training."""
    if (year := time.gmtime(time.time()).tm_year) > MAX_YEAR:
        raise UserError(f"the clock of this machine shows the year {year}; set its date")
    if (encoding := sys.getfilesystemencoding()) != "utf-8":  # classes would have other names than elsewhere
        raise UserError(f"this locale reads file names as {encoding}; set the environment variable PYTHONUTF8=1")
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if trains and limit != resource.RLIM_INFINITY and limit < MIN_ADDRESS_SPACE:
        raise UserError(
            f"the address space is limited to {limit / 2**30:.1f} GiB (ulimit -v), and the libraries alone need "
            f"{MIN_ADDRESS_SPACE // 2**30} GiB; raise the limit to at least 8 GiB"
        )
