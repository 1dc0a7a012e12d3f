"""Read a whole command line: help, version, or one command."""

import sys
from collections.abc import Sequence

from ablations.planning.call import Call
from commands import COMMANDS, grouped_commands
from commands.cli.help import get_version, print_help, print_overview
from commands.cli.parser import read_command_line

HELP = ("-h", "--help")
ALL_HELP = "--help-all"


def read_call(arguments: Sequence[str]) -> Call:
    """Read a command line.

    With ``--help``, ``--help-all`` or ``--version``, print the text and exit with status 0.

    Raises
    ------
    UserError
        As `commands.cli.parser.read_command_line`.
    """
    if not arguments or arguments[0] in (*HELP, ALL_HELP):
        print_overview(COMMANDS, grouped_commands())
        sys.exit(0)
    if arguments[0] == "--version":
        sys.stdout.write(f"audio-ablation {get_version()}\n")
        sys.exit(0)
    if arguments[0] in COMMANDS and {*HELP, ALL_HELP} & set(arguments):
        print_help(arguments[0], COMMANDS[arguments[0]], everything=ALL_HELP in arguments)
        sys.exit(0)
    return read_command_line(COMMANDS, arguments)
