"""The `report` command: one page of all that is in a results folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rich.console import Console

from analysis.output.writers import write_formats
from commands.cli import study_schema
from commands.cli.parser import Call
from core.config.options import option
from core.registry import Lazy

make_page = Lazy("analysis.report.page:make_page")  # imports pandas and torch


@dataclass(frozen=True)
class Report:
    """Gather every table, figure, map and run of a results folder on one page, report/index.html in it.

    Nothing is trained or computed anew. The page is one file to open, mail or print: what was run, all results with
    the command behind each, published numbers beside ours, learning curves, confusion matrices, and what failed.

    Example: run_ablation.py report --results results
    """

    runs: ClassVar[str] = "commands.report:run"

    results: Path = option(Path("results"), "Folder of the runs, tables and figures.")


def run(call: Call) -> int:
    """Write the page and say where it is."""
    results = call.command.results
    reports = {
        "answers": study_schema.answers(),
        "starts": study_schema.starting_weights(),
        "folder": study_schema.FOLDER,
    }
    page = make_page(results, **reports).encode("utf-8", "replace")
    (file,) = write_formats(results / "report" / "index", {".html": page})
    Console(highlight=False, soft_wrap=True).print(f"{file} ({len(page) / 2**20:.1f} MiB)", markup=False)
    return 0
