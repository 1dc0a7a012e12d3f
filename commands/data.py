"""The `data` command: what a data set holds and what is wrong with it, before anything is trained on it."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from commands.cli.parser import Call
from core import datasets
from core.config import run as config
from core.config.options import option, problems, same_option
from core.errors import UserError, printable
from core.progress import Reporter
from core.registry import Lazy

if TYPE_CHECKING:
    from analysis.data_summary import Summary

summary = Lazy("analysis.data_summary:summary")  # imports pandas and librosa


@dataclass(frozen=True)
class Data:
    """Print what a data set holds: clips, classes, folds, lengths, sampling rates, and problems found.

    Every clip is decoded, so that what training would stumble over is seen first (--no-decode opens none). With
    --label, --folds, --set-aside and --clips-per-class it is the set that runs with these options see.

    Example: run_ablation.py data --data urbansound8k --data-root DIR
    """

    runs: ClassVar[str] = "commands.data:run"

    data: str = option("instruments", f"Data set: {', '.join(datasets.LOADERS)}.")
    data_root: Path | None = option(None, "Its folder (for folder, also a CSV file of path,label[,fold][,group]).")
    label: str = same_option(config.Data, "label")
    folds: int = same_option(config.Data, "folds")
    set_aside: float = same_option(config.Data, "set_aside")
    per_class: int = same_option(config.Data, "per_class")
    decode: bool = option(True, "Decode every clip; --no-decode opens none, for sets of hundreds of thousands.")
    download: bool = option(False, "Fetch it into --data-root first, where it can be fetched.")
    json: bool = option(False, "Print one JSON object.")


def run(call: Call) -> int:
    """Print the summary; return 1 where problems were found."""
    data: Data = call.command
    if data.download:
        if data.data_root is None:
            raise UserError("--download needs --data-root: the folder to fetch it into")
        with Reporter() as report:
            datasets.download_dataset(data.data, data.data_root, report)
    asked = {name: getattr(data, name) for name in ("label", "folds", "set_aside", "per_class")}
    if wrong := problems(config.Data(**asked)):
        raise UserError("; ".join(wrong))
    with Reporter() as report:
        dataset = datasets.select(datasets.load(data.data, data.data_root), **asked)
        found = summary(dataset, decode=data.decode, progress=report)
    if data.json:
        print(json.dumps(dataclasses.asdict(found), default=str))  # noqa: T201
    else:
        _show(found, Console(highlight=False))
    return 1 if found.problems else 0


def _show(found: "Summary", console: Console) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    loader = datasets.LOADERS[found.name]
    lengths = ", ".join(f"{name} {value:.2f} s" for name, value in found.seconds.items())
    rows = {
        "Data set": f"{found.name} in {found.root}",
        "About": loader.about,
        "Clips": f"{found.clips} from {found.groups} recordings",
        "Classes": _counts(found.classes),
        "Folds": _counts(found.folds),
        "Set aside": f"{found.holdout} clips" if found.holdout else "",
        "Notes": "\n".join(found.remarks),
        "Features": f"{len(found.features)}: {', '.join(found.features)}" if found.features else "",
        "Lengths": "" if found.features else lengths,
        "Sampling rates": _counts(found.sample_rates, " Hz"),
        "Channels": _counts(found.channels),
        "Formats": _counts(found.formats),
        "Problems": "\n".join(found.problems) or ("none found" if found.seconds else "none found; no clip was opened"),
        "Known problems": "\n".join(loader.known_problems),
    }
    for title, value in filter(lambda row: row[1], rows.items()):
        table.add_row(Text(title, style="bold"), Text("\n".join(map(printable, value.split("\n")))))
    console.print(table)


def _counts(counts: "dict[str, int] | dict[int, int]", unit: str = "") -> str:
    return ", ".join(f"{name}{unit}: {count}" for name, count in counts.items())
