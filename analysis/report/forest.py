"""The forest plot of the report page: the change in accuracy of every comparison of every analysis."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from analysis.output.number_format import format_point, format_points
from analysis.report.read_analyses import Analysis

COMPARISONS_FILE = "comparisons.csv"  # of `analysis.condition_report`
ENSEMBLE_FILE = "table.csv"  # of `analysis.ensembles`, whose rows have their change from a single network
MIN_LIMIT = 0.05  # of the axis, as a fraction of 1
MAX_TICKS = 4  # on each side of zero


@dataclass(frozen=True)
class ForestRow:
    """One comparison. Positions are percentages of the width of the plot; NaN in `low` and `high`: no interval."""

    analysis: str  # id of the analysis
    label: str
    setting: str  # networks and data sets
    datasets: tuple[str, ...]
    backbones: tuple[str, ...]
    change: str
    interval: str
    n: str
    x: float
    low: float
    high: float
    is_cut: bool  # whether the interval goes beyond the axis


@dataclass(frozen=True)
class Forest:
    """All comparisons, and the ticks of their common axis: position in percent and label."""

    rows: list[ForestRow]
    ticks: list[tuple[float, str]]


def make_forest(analyses: Sequence[Analysis]) -> Forest:
    """Return the forest plot of all analyses with a table of comparisons."""
    found = [(analysis, row) for analysis in analyses for row in _read_comparisons(analysis)]
    limit = _choose_limit([row for _, row in found])
    step = _choose_step(limit)
    ticks = [k * step for k in range(-MAX_TICKS, MAX_TICKS + 1) if abs(k * step) <= limit]
    return Forest(
        [_make_row(analysis, row, limit) for analysis, row in found],
        [(_position(value, limit), format_points(value).removesuffix(".0")) for value in ticks],
    )


def _read_comparisons(analysis: Analysis) -> list[dict[str, str]]:
    """Return the rows of the table of comparisons whose difference is a number."""
    name = ENSEMBLE_FILE if analysis.ablation == "ensemble" else COMPARISONS_FILE
    sources = [source for item in analysis.tables for source in item.sources if source.name == name]
    rows = [row for source in sources for row in csv.DictReader(io.StringIO(source.text))]
    if name == ENSEMBLE_FILE:
        rows = [
            row | {"difference": row.get("delta", ""), "condition": f"{row.get('members')} networks"} for row in rows
        ]
    return [row for row in rows if row.get("condition") and math.isfinite(_number(row, "difference"))]


def _make_row(analysis: Analysis, row: Mapping[str, str], limit: float) -> ForestRow:
    grid = {name: row[name] for name in takewhile(lambda name: name != "condition", row)}
    datasets = (row["dataset"],) if row.get("dataset") in analysis.datasets else analysis.datasets
    backbones = (grid["backbone"],) if grid.get("backbone") in analysis.backbones else analysis.backbones
    options = {name: value for name, value in grid.items() if name not in ("data", "backbone")}
    difference, low, high = (_number(row, name) for name in ("difference", "low", "high"))
    has_interval = math.isfinite(low) and math.isfinite(high)
    return ForestRow(
        analysis=analysis.id,
        label=f"{analysis.title}: {format_point({**options, 'condition': row['condition']})}",
        setting=f"{', '.join(backbones)} on {', '.join(datasets)}",
        datasets=datasets,
        backbones=backbones,
        change=format_points(difference),
        interval=f"{format_points(low)} to {format_points(high)}" if has_interval else "no interval",
        n=_describe_size(row),
        x=_position(difference, limit),
        low=_position(low, limit),
        high=_position(high, limit),
        is_cut=has_interval and (low < -limit or high > limit),
    )


def _describe_size(row: Mapping[str, str]) -> str:
    """Return what a comparison is over: "5 folds", "3 seeds" (of one fold) or "1 run each"."""
    folds, pairs = (int(value) if math.isfinite(value := _number(row, name)) else 0 for name in ("folds", "pairs"))
    if folds > 1:
        return f"{folds} folds"
    return f"{pairs} seeds" if pairs > 1 else "1 run each"


def _number(row: Mapping[str, str], name: str) -> float:
    try:
        return float(row.get(name) or math.nan)
    except ValueError:
        return math.nan


def _choose_limit(rows: Sequence[Mapping[str, str]]) -> float:
    """Return the limit of the axis: it includes all differences, and intervals up to three times the largest one."""
    differences = [abs(_number(row, "difference")) for row in rows]
    ends = [abs(value) for row in rows for name in ("low", "high") if math.isfinite(value := _number(row, name))]
    largest = max([MIN_LIMIT, *differences])
    return 1.05 * max(largest, min(max([largest, *ends]), 3 * largest))


def _choose_step(limit: float) -> float:
    """Return the distance between ticks: 1, 2 or 5 times a power of ten."""
    base = 10 ** math.floor(math.log10(limit / MAX_TICKS))
    return next(factor * base for factor in (1, 2, 5, 10) if factor * base * MAX_TICKS >= 0.9 * limit)


def _position(value: float, limit: float) -> float:
    return round(50 + 50 * max(-limit, min(limit, value)) / limit, 2) if math.isfinite(value) else math.nan
