"""The reports' own numbers for the data sets of a store, each with ours beside it where a table has the same thing."""

import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

from analysis.formats import magnitude, percent, points
from analysis.published import published, studies
from analysis.report.analyses import Analysis
from analysis.report.cells import Cell, Table, table
from analysis.tables import MISSING
from core.store import Record

ABLATIONS = {  # whose conditions an item of a report is about
    ("rethinking-cnn", "Table I"): "pretraining",
    ("rethinking-cnn", "Table II"): "ensemble",
    ("rethinking-cnn", "Figure 2b"): "fusion",
    ("rethinking-cnn", "Figure 2c"): "freeze",
    ("rethinking-cnn", "Model Cutoff"): "cutoff",
}
COUNTED = re.compile("clips|epochs|parameters|seconds|megabytes")  # metrics that are no fractions
HEADER = ("Report", "Data", "Backbone", "Condition", "Metric", "Published", "Ours", "Our table", "Source")
Key = tuple[str, str, str, str]  # ablation, data set, backbone, condition
Found = tuple[str, str, Mapping[str, Any]]  # a table's element and title, and one of its rows


def published_table(analyses: Iterable[Analysis], records: Mapping[str, Record], *, limit: int) -> Table:
    """Make the table of published numbers for the data sets and backbones that were run.

    Ours stand beside them where an ablation's table has the same data set, backbone, condition and metric; a
    condition with several rows in it, such as one for each learning rate, gives several.
    """
    data = {record.run.data.name for record in records.values()}
    backbones = {record.run.model.backbone for record in records.values()} | {""}
    ours: dict[Key, list[Found]] = {}
    for analysis in analyses:
        for key, found in _rows(analysis, records):
            ours.setdefault(key, []).append(found)
    rows: list[list[str | Cell]] = []
    for study in studies():
        numbers = published(study)
        numbers = numbers[numbers["data"].isin(data) & numbers["backbone"].isin(backbones)]
        for row in numbers.to_dict("records"):
            metric, ablation = str(row["metric"]), ABLATIONS.get((study, str(row["item"])), "")
            key = (ablation, str(row["data"]), str(row["backbone"]), str(row["condition"]))
            fixed = [f"{study} {row['item']}", *(name or MISSING for name in key[1:]), metric.replace("_", " ")]
            about = "about " * bool(row["approximate"])
            fixed.append(about + _shown(metric, row["value"], row["std"]))
            beside: list[list[str | Cell]] = [
                [_shown(metric, mine[metric], mine.get(f"{metric}_std")), Cell(title, target=target)]
                for target, title, mine in ours.get(key, [])
                if _is_number(mine.get(metric))
            ]
            rows += [[*fixed, *cells, str(row["source"])] for cells in beside or [[MISSING, MISSING]]]
    return table(HEADER, rows, limit=limit)


def _rows(analysis: Analysis, records: Mapping[str, Record]) -> Iterator[tuple[Key, Found]]:
    """Go through the rows of an analysis that name their runs, which say the data set and the backbone."""
    for item in analysis.tables:
        for row in (row for source in item.sources if source.label == "CSV" for row in _read(source.text)):
            record = next((records[id] for id in str(row.get("run_ids")).split() if id in records), None)
            if record is None:
                continue
            run, condition = record.run, str(row.get("condition"))
            if run.model.weights != "imagenet" and condition != "random":
                continue  # the reports' conditions are of pretrained networks, but for that one
            key = (analysis.ablation, run.data.name, run.model.backbone, condition)
            yield key, (item.id, item.title, row)


def _read(text: str) -> list[dict[str, Any]]:
    """Read the rows of a CSV text; none where it is damaged."""
    try:
        frame = pd.read_csv(io.StringIO(text), keep_default_na=False, na_values=[""], dtype={"condition": str})
    except ValueError:
        return []
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _shown(metric: str, value: Any, std: Any) -> str:
    """Write a metric as tables do: fractions as percentages, changes as points, counts with three digits."""
    if metric.startswith("delta"):
        return points(value)
    if COUNTED.search(metric):
        return magnitude(value) if value >= 1000 else f"{value:g}"
    return percent(value) + (f" ± {percent(std, digits=2)} %" if _is_number(std) else " %")
