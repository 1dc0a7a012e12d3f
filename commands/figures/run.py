"""Redraw the tables and figures of a folder of results."""

from analysis.output.redraw import redraw_folders
from commands.cli.console import EscapingConsole
from commands.cli.parser import Call
from commands.figures.options import Figures
from core.errors import UserError


def run(call: Call) -> int:
    """Redraw, and print how many tables and figures each folder has."""
    options: Figures = call.command
    if options.folder is None:
        raise UserError("figures needs the folder of results, such as results/freeze/NAME; results/index.md lists them")
    console = EscapingConsole(soft_wrap=True)
    for done in redraw_folders(options.folder, options.style, options.output):
        kept = f"; {done.kept} maps and images are as they were" if done.kept else ""
        counts = f"{done.tables} tables and {done.figures} figures redrawn{kept}"
        console.print(f"{done.folder}: {counts}", markup=False)
    return 0
