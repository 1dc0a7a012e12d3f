"""Write one page with everything in a results folder."""

from ablations.planning.call import Call
from analysis.output.writers import write_formats
from analysis.report.page import make_page
from commands.cli.console import EscapingConsole


def run(call: Call) -> int:
    """Write the page, and print its path and size."""
    options = call.command
    page = make_page(options.results).encode("utf-8", "replace")
    (file,) = write_formats((options.output or options.results) / "report" / "index", {".html": page})
    EscapingConsole(soft_wrap=True).print(f"{file} ({len(page) / 2**20:.1f} MiB)", markup=False)
    return 0
