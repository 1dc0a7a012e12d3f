"""The `data` command: what a data set holds and what is wrong with it, before anything is trained on it."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.config import option

if TYPE_CHECKING:
    from core.datasets.summary import Summary


@dataclass(frozen=True)
class Inventory:
    """Print what a data set holds: clips, classes, folds, lengths, sampling rates, and problems found.

    Every clip is decoded, so that what training would stumble over is seen first.

    Example: run_ablation.py data --data urbansound8k --data-root DIR
    """

    data: str = option("instruments", "Data set: instruments, urbansound8k, esc50, gtzan, gtzan-filtered or folder.")
    data_root: Path | None = option(None, "Its folder (for folder, also a CSV file of path,label[,fold][,group]).")
    download: bool = option(False, "Fetch it into --data-root first, where it can be fetched.")
    json: bool = option(False, "Print one JSON object.")

    def run(self) -> int:
        """Print the summary; return 1 where problems were found."""
        from rich.console import Console

        from core import datasets
        from core.datasets.summary import summary
        from core.errors import UserError
        from core.progress import Reporter

        if self.download:
            if self.data_root is None:
                raise UserError("--download needs --data-root: the folder to fetch it into")
            datasets.download(self.data, self.data_root)
        with Reporter() as report:
            found = summary(datasets.load(self.data, self.data_root), progress=report)
        if self.json:
            print(json.dumps(dataclasses.asdict(found), default=str))  # noqa: T201
        else:
            _show(found, Console(highlight=False))
        return 1 if found.problems else 0


def _show(found: "Summary", console: "object") -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    lengths = ", ".join(f"{name} {value:.2f} s" for name, value in found.seconds.items())
    rows = {
        "Data set": f"{found.name} in {found.root}",
        "Clips": f"{found.clips} from {found.groups} recordings",
        "Classes": _counts(found.classes),
        "Folds": _counts(found.folds),
        "Lengths": lengths,
        "Sampling rates": _counts(found.sample_rates, " Hz"),
        "Channels": _counts(found.channels),
        "Formats": _counts(found.formats),
        "Problems": "\n".join(found.problems) or "none found",
    }
    for title, value in rows.items():
        table.add_row(Text(title, style="bold"), Text(value))
    console.print(table)  # type: ignore[attr-defined]


def _counts(counts: "dict[str, int] | dict[int, int]", unit: str = "") -> str:
    return ", ".join(f"{name}{unit}: {count}" for name, count in counts.items())
