"""Describe a data set: its contents and its problems."""

import dataclasses
import json

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ablations.planning.call import Call
from analysis.data_summary import DatasetSummary, summarise_dataset
from commands.cli.console import EscapingConsole
from commands.data.options import Data
from core import datasets
from core.config import run as config
from core.config.options import list_problems
from core.datasets.dataset import TEST_FOLD, TRAIN_FOLD, VALIDATION_FOLD
from core.errors import UserError, printable
from core.progress import Reporter

SPLIT_NAMES = {TEST_FOLD: "test", TRAIN_FOLD: "training", VALIDATION_FOLD: "validation"}


def run(call: Call) -> int:
    """Print a summary of the data set; return 1 if it has problems, otherwise 0."""
    data: Data = call.command
    selection = {name: getattr(data, name) for name in config.Data().selection}
    if problems := list_problems(config.Data(**selection)):
        raise UserError("; ".join(problems))
    with Reporter() as report:
        if data.download:
            if data.data_root is None:
                raise UserError("--download needs --data-root: the folder to download it into")
            datasets.download_dataset(data.data, data.data_root, report)
        cache = data.results.absolute() / "cache"  # the cache of a `Store`, whose module would import torch
        columns = datasets.parse_columns(data.columns)
        loaded = datasets.load_dataset(data.data, data.data_root, columns=columns, cache=cache, progress=report)
        dataset = datasets.select(loaded, **selection).with_digests(cache, progress=report)
        summary = summarise_dataset(dataset, decode=data.decode, progress=report)
    if data.json:
        print(json.dumps(dataclasses.asdict(summary), default=str))  # noqa: T201
    else:
        _show_summary(summary, EscapingConsole())
    return 1 if summary.problems else 0


def _show_summary(summary: DatasetSummary, console: Console) -> None:
    """Print the summary as a table of two columns; empty rows are left out."""
    table = Table(show_header=False, box=None, pad_edge=False)
    loader = datasets.LOADERS[summary.name]
    lengths = ", ".join(f"{name} {value:.2f} s" for name, value in summary.seconds.items())
    rows = {
        "Data set": f"{summary.name} in {summary.root}",
        "About": loader.about,
        "Clips": f"{summary.clips}" + (f" of {summary.groups} groups" if summary.grouped_by else ""),
        "Classes": _format_counts(summary.classes),
        "Folds": "" if summary.has_fixed_split else _format_counts(summary.folds),
        "Split": _format_counts({SPLIT_NAMES[fold]: count for fold, count in summary.folds.items()})
        if summary.has_fixed_split
        else "",
        "Held out": f"{summary.holdout} clips" if summary.holdout else "",
        "Notes": "\n".join(summary.remarks),
        "Features": f"{len(summary.features)}: {', '.join(summary.features)}" if summary.features else "",
        "Lengths": "" if summary.features else lengths,
        "Sampling rates": _format_counts(summary.sample_rates, " Hz"),
        "Channels": _format_counts(summary.channels),
        "Formats": _format_counts(summary.formats),
        "Problems": "\n".join(summary.problems) or f"none found{'' if summary.seconds else '; no clip was opened'}",
        "Known problems": "\n".join(loader.known_problems),
    }
    for title, value in filter(lambda row: row[1], rows.items()):
        table.add_row(Text(title, style="bold"), Text("\n".join(map(printable, value.split("\n")))))
    console.print(table)


def _format_counts(counts: dict[str, int] | dict[int, int], unit: str = "") -> str:
    return ", ".join(f"{name}{unit}: {count}" for name, count in counts.items())
