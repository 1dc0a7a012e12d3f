"""Describe a data set: what it contains and which problems it has."""

import dataclasses
import json

from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.data_summary import DatasetSummary, summarise_dataset
from commands.cli.parser import Call
from commands.data.options import Data
from core import datasets
from core.config import run as config
from core.config.options import list_problems
from core.errors import UserError, printable
from core.progress import Reporter


def run(call: Call) -> int:
    """Print the summary; return 1 if there are problems."""
    data: Data = call.command
    if data.download:
        if data.data_root is None:
            raise UserError("--download needs --data-root: the folder to download it into")
        with Reporter() as report:
            datasets.download_dataset(data.data, data.data_root, report)
    asked = {name: getattr(data, name) for name in ("label", "folds", "set_aside", "per_class")}
    if wrong := list_problems(config.Data(**asked)):
        raise UserError("; ".join(wrong))
    with Reporter() as report:
        dataset = datasets.select(datasets.load_dataset(data.data, data.data_root), **asked)
        found = summarise_dataset(dataset, decode=data.decode, progress=report)
    if data.json:
        print(json.dumps(dataclasses.asdict(found), default=str))  # noqa: T201
    else:
        _show_summary(found, Console(highlight=False))
    return 1 if found.problems else 0


def _show_summary(found: DatasetSummary, console: Console) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    loader = datasets.LOADERS[found.name]
    lengths = ", ".join(f"{name} {value:.2f} s" for name, value in found.seconds.items())
    rows = {
        "Data set": f"{found.name} in {found.root}",
        "About": loader.about,
        "Clips": f"{found.clips} from {found.groups} recordings",
        "Classes": _format_counts(found.classes),
        "Folds": _format_counts(found.folds),
        "Set aside": f"{found.holdout} clips" if found.holdout else "",
        "Notes": "\n".join(found.remarks),
        "Features": f"{len(found.features)}: {', '.join(found.features)}" if found.features else "",
        "Lengths": "" if found.features else lengths,
        "Sampling rates": _format_counts(found.sample_rates, " Hz"),
        "Channels": _format_counts(found.channels),
        "Formats": _format_counts(found.formats),
        "Problems": "\n".join(found.problems) or ("none found" if found.seconds else "none found; no clip was opened"),
        "Known problems": "\n".join(loader.known_problems),
    }
    for title, value in filter(lambda row: row[1], rows.items()):
        table.add_row(Text(title, style="bold"), Text("\n".join(map(printable, value.split("\n")))))
    console.print(table)


def _format_counts(counts: dict[str, int] | dict[int, int], unit: str = "") -> str:
    return ", ".join(f"{name}{unit}: {count}" for name, count in counts.items())
