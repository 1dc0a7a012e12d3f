"""Write one HTML page of a results folder."""

from rich.console import Console

from analysis.output.writers import write_formats
from analysis.report.page import make_page
from commands.cli import study_schema
from commands.cli.parser import Call


def run(call: Call) -> int:
    """Write the page and print its path."""
    results = call.command.results
    answers, starts = study_schema.commands_by_item(), study_schema.preset_weights_lookup()
    page = make_page(results, answers=answers, starts=starts, folder=study_schema.STUDIES_FOLDER).encode(
        "utf-8", "replace"
    )
    (file,) = write_formats(results / "report" / "index", {".html": page})
    Console(highlight=False, soft_wrap=True).print(f"{file} ({len(page) / 2**20:.1f} MiB)", markup=False)
    return 0
