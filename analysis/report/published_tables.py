"""The reports' own numbers for the data sets of a store, each with ours beside it where a table has the same thing."""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.output.number_format import format_metric, metric_title
from analysis.output.tables import MISSING, PLUS_MINUS
from analysis.published.numbers import find_matches, load_all_published
from analysis.report.reader import Analysis
from analysis.report.table_model import Cell, Table, make_table
from core.store.runs import Record

HEADER = ("Report", "Data", "Backbone", "Condition", "Metric", "Epoch", "Published", "Ours", "Our table", "Source")
WeightsLookup = Callable[
    [str, str, str], str
]  # the weights that a report starts from, by report, data set and backbone
CommandsByItem = Mapping[tuple[str, str], Set[str]]  # the commands that answer an item of a report


def assume_imagenet(report: str, data: str, backbone: str) -> str:
    """Say that every report starts from ImageNet's weights."""
    return "imagenet"


def make_published_table(
    analyses: Iterable[Analysis],
    records: Mapping[str, Record],
    answers: CommandsByItem,
    starts: WeightsLookup,
    *,
    folder: Path,
    limit: int,
) -> Table:
    """Make the table of published numbers for the data sets and backbones that were run.

    Ours stand beside them where a table of a command that answers the item has the same data set, backbone, condition,
    metric and epoch, from the weights that the report starts from, or from random ones in the condition of that name;
    a condition with several rows in it, such as one for each learning rate, gives several.
    """
    ours: dict[str, list[dict[str, Any]]] = {}
    for analysis in analyses:
        ours.setdefault(analysis.ablation, []).extend(_iterate_rows(analysis, records))
    every = [row for rows in ours.values() for row in rows]
    data = {record.run.data.display_name for record in records.values()} | {row["data"] for row in every}
    backbones = {record.run.model.backbone for record in records.values()} | {""}
    rows: list[list[str | Cell]] = []
    for study, every_number in load_all_published(folder).items():
        numbers = every_number[every_number["data"].isin(data) & every_number["backbone"].isin(backbones)]
        for stated in numbers.to_dict("records"):
            metric = str(stated["metric"])
            own = [
                row
                for name in answers.get((study, str(stated["item"])), ())
                for row in ours.get(name, ())
                if row["condition"] == "random" or row["weights"] == starts(study, row["data"], row["backbone"])
            ]
            names = [str(stated[name]) or MISSING for name in ("data", "backbone", "condition")]
            about = "about " * bool(stated["approximate"])
            theirs = about + _format_value(stated["value"], stated["std"], metric)
            title = metric_title(metric) + " %" * _is_fraction(metric)
            fixed: list[str | Cell] = [f"{study} {stated['item']}", *names, title, str(stated["epoch"]) or MISSING]
            fixed.append(Cell(theirs, float(stated["value"])))
            found: list[list[str | Cell]] = [
                [
                    Cell(_format_value(match.value, match.std, metric), match.value),
                    Cell(match.row["table"].title, target=match.row["table"].id),
                ]
                for match in find_matches({str(name): value for name, value in stated.items()}, own)
            ]
            rows += [[*fixed, *cells, str(stated["source"])] for cells in found or [[MISSING, MISSING]]]
    return make_table(HEADER, rows, limit=limit)


def _iterate_rows(analysis: Analysis, records: Mapping[str, Record]) -> Iterator[dict[str, Any]]:
    """Go through the rows of an analysis that name their runs, which say the data set and the backbone."""
    for item in analysis.tables:
        for row in (row for source in item.sources if source.label == "CSV" for row in _parse_csv(source.text)):
            record = next((records[id] for id in str(row.get("run_ids")).split() if id in records), None)
            if record is None:
                continue
            run, condition = record.run, str(row.get("condition"))
            data = analysis.published_as or run.data.display_name
            about = {"data": data, "backbone": run.model.backbone, "weights": run.model.weights}
            yield row | about | {"condition": condition, "table": item}


def _parse_csv(text: str) -> list[dict[str, Any]]:
    """Read the rows of a CSV text; none where it is damaged."""
    try:
        frame = pd.read_csv(io.StringIO(text), keep_default_na=False, na_values=[""], dtype={"condition": str})
    except ValueError:
        return []
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _format_value(value: float, std: float, metric: str) -> str:
    return format_metric(value, metric) + (PLUS_MINUS + format_metric(std, metric) if std == std else "")


def _is_fraction(metric: str) -> bool:
    return format_metric(1.0, metric) == "100.0"
