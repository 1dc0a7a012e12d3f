"""Write one page with everything in a results folder."""

import ablations
from analysis.output.writers import write_formats
from analysis.report.page import make_page
from analysis.report.published_tables import Studies
from commands.cli.console import EscapingConsole
from commands.cli.parser import Call
from commands.cli.study_schema import commands_by_item, preset_weights_lookup


def run(call: Call) -> int:
    """Write the page, and print its path and size."""
    options = call.command
    studies = Studies(ablations.STUDIES_FOLDER, commands_by_item(), preset_weights_lookup())
    page = make_page(options.results, studies=studies, output=options.output).encode("utf-8", "replace")
    (file,) = write_formats((options.output or options.results) / "report" / "index", {".html": page})
    EscapingConsole(soft_wrap=True).print(f"{file} ({len(page) / 2**20:.1f} MiB)", markup=False)
    return 0
