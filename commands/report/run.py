"""Write one page with everything in a results folder."""

from rich.console import Console

import ablations
from analysis.output.writers import write_formats
from analysis.report.page import make_page
from analysis.report.published_tables import Studies
from commands.cli.parser import Call
from commands.cli.study_schema import commands_by_item, preset_weights_lookup


def run(call: Call) -> int:
    """Write the page, and print its path and size."""
    results = call.command.results
    studies = Studies(ablations.STUDIES_FOLDER, commands_by_item(), preset_weights_lookup())
    page = make_page(results, studies=studies).encode("utf-8", "replace")
    (file,) = write_formats(results / "report" / "index", {".html": page})
    Console(highlight=False, soft_wrap=True).print(f"{file} ({len(page) / 2**20:.1f} MiB)", markup=False)
    return 0
