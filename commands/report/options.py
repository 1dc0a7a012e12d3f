"""Options of the command ``report``."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from core.config.options import option


@dataclass(frozen=True)
class Report:
    """Collect all tables, figures, maps and runs of a results folder on one page, report/index.html.

    Nothing is trained or computed. The page is a single file that works offline: all results with their commands,
    published numbers, learning curves, confusion matrices, and failed runs.

    Examples
    --------
    run_ablation.py report
    run_ablation.py report --results other_results
    """

    runs: ClassVar[str] = "commands.report.run:run"

    results: Path = option(Path("results"), "Folder of the runs, tables and figures.")
    output: Path | None = option(
        None, "Write the page below this folder instead, for example if --results is read-only."
    )
