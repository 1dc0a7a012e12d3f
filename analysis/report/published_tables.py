"""The table of published numbers on the report page, with our numbers beside them."""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
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


def assume_imagenet(study: str, data: str, backbone: str) -> str:
    """Return ``imagenet``: the starting weights of a study if nothing else is known."""
    return "imagenet"


@dataclass(frozen=True)
class Studies:
    """The studies whose published numbers a page shows.

    Attributes
    ----------
    folder
        Folder of all studies.
    commands_by_item
        Commands that reproduce an item of a study, by ``(study, item)``.
    starting_weights
        Function from (study, data set, backbone) to the starting weights of the study.
    """

    folder: Path
    commands_by_item: Mapping[tuple[str, str], Set[str]]
    starting_weights: Callable[[str, str, str], str] = assume_imagenet


def make_published_table(
    analyses: Iterable[Analysis], records: Mapping[str, Record], studies: Studies | None, *, limit: int
) -> Table:
    """Return the table of published numbers for the data sets and backbones of our runs.

    Ours is a number from a table of a command that reproduces the item, for the same data set, backbone, condition,
    metric and epoch, and for the starting weights of the study (or random weights in the condition ``random``). A
    condition with several rows in that table, such as one for each learning rate, gives several rows here.
    """
    own_rows: dict[str, list[dict[str, Any]]] = {}
    for analysis in analyses:
        own_rows.setdefault(analysis.ablation, []).extend(_iterate_rows(analysis, records))
    data = {record.run.data.display_name for record in records.values()}
    data |= {row["data"] for rows in own_rows.values() for row in rows}
    backbones = {record.run.model.backbone for record in records.values()} | {""}
    table_rows: list[list[str | Cell]] = []
    for study, all_numbers in (load_all_published(studies.folder) if studies else {}).items():
        numbers = all_numbers[all_numbers["data"].isin(data) & all_numbers["backbone"].isin(backbones)]
        for published in ({str(key): value for key, value in row.items()} for row in numbers.to_dict("records")):
            assert studies
            metric = str(published["metric"])
            candidates = [
                row
                for command in studies.commands_by_item.get((study, str(published["item"])), ())
                for row in own_rows.get(command, ())
                if row["condition"] == "random"
                or row["weights"] == studies.starting_weights(study, row["data"], row["backbone"])
            ]
            value = "about " * bool(published["approximate"])
            value += _format_value(published["value"], published["std"], metric)
            first_cells: list[str | Cell] = [
                f"{study} {published['item']}",
                *(str(published[name]) or MISSING for name in ("data", "backbone", "condition")),
                metric_title(metric) + " %" * _is_fraction(metric),
                str(published["epoch"]) or MISSING,
                Cell(value, float(published["value"])),
            ]
            our_cells: list[list[str | Cell]] = [
                [
                    Cell(_format_value(match.value, match.std, metric), match.value),
                    Cell(match.row["table"].title, target=match.row["table"].id),
                ]
                for match in find_matches(published, candidates)
            ]
            for cells in our_cells or [[MISSING, MISSING]]:
                table_rows.append([*first_cells, *cells, str(published["source"])])
    return make_table(HEADER, table_rows, limit=limit)


def _iterate_rows(analysis: Analysis, records: Mapping[str, Record]) -> Iterator[dict[str, Any]]:
    """Yield the rows of the CSV tables of an analysis, with data set, backbone and weights of their runs."""
    for item in analysis.tables:
        for row in (row for source in item.sources if source.label == "CSV" for row in _parse_csv(source.text)):
            record = next((records[id] for id in str(row.get("run_ids")).split() if id in records), None)
            if record is None:
                continue
            model = record.run.model
            yield row | {
                "data": analysis.published_as or record.run.data.display_name,
                "backbone": model.backbone,
                "weights": model.weights,
                "condition": str(row.get("condition")),
                "table": item,
            }


def _parse_csv(text: str) -> list[dict[str, Any]]:
    """Return the rows of a CSV text; no rows if it is damaged."""
    try:
        frame = pd.read_csv(io.StringIO(text), keep_default_na=False, na_values=[""], dtype={"condition": str})
    except ValueError:
        return []
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _format_value(value: float, std: float, metric: str) -> str:
    return format_metric(value, metric) + (PLUS_MINUS + format_metric(std, metric) if std == std else "")


def _is_fraction(metric: str) -> bool:
    return format_metric(1.0, metric) == "100.0"
