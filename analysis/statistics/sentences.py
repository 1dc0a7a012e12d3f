"""The result of each comparison in one sentence: the difference, its interval, and what the test shows."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.output.number_format import format_p_value, format_percent, format_points
from analysis.statistics.hypothesis_tests import SIGNIFICANCE_LEVEL


def describe_comparisons(
    comparisons: pd.DataFrame, *, subject: str, reference: str, grid: Sequence[str] = (), margin: float | None = None
) -> list[str]:
    """Return one sentence for each comparison of a condition with the reference.

    Parameters
    ----------
    comparisons
        Result of `analysis.statistics.paired_comparisons.compare_with_reference`.
    subject
        Start of the sentences, with ``{condition}`` and ``{reference}`` in the place of the names, such as "Freezing
        through {condition}".
    reference
        Name of the reference.
    grid
        Columns of the options that distinguish several comparisons of one condition.
    margin
        Equivalence margin, 0 to 1, if equivalence was tested.
    """
    rows: list[dict[str, Any]] = comparisons.to_dict("records")  # type: ignore[assignment]
    p = "corrected p" if len(rows) > 1 else "p"
    return [_describe(row, subject=subject, reference=reference, grid=grid, margin=margin, p=p) for row in rows]


def _describe(
    row: Mapping[str, Any], *, subject: str, reference: str, grid: Sequence[str], margin: float | None, p: str
) -> str:
    start = subject.format(condition=row["condition"], reference=reference)
    if point := ", ".join(f"{name.replace('_', ' ')} {row[name]}" for name in grid):
        start = f"{start} ({point})"
    if math.isnan(row["difference"]):
        return f"{start}: no result, because no run of this condition has finished together with its reference."
    change = f"{start} changes accuracy by {format_points(row['difference'])} points"
    if row["pairs"] == 1:
        return f"{change} in one pair of runs: {_describe_clip_test(row, p)}."
    interval = f"95 % interval {format_points(row['low'])} to {format_points(row['high'])}"
    if row["over"] == "seeds":
        return (
            f"{change} ({interval}, {row['pairs']:.0f} seeds of one fold): no conclusion about other clips, because "
            "only the seed varies."
        )
    test = f"{p} {_equals(row['p_holm'])}" if not math.isnan(row["p_holm"]) else "no test"
    return f"{change} ({interval}, {row['folds']:.0f} folds, {test}): {_conclude(row, margin)}."


def _conclude(row: Mapping[str, Any], margin: float | None) -> str:
    """Return what the test over folds shows; p values are corrected for the number of comparisons."""
    if row["p_holm"] < SIGNIFICANCE_LEVEL:
        return "an increase" if row["difference"] > 0 else "a decrease"
    if margin is not None and row["equivalence_p_holm"] < SIGNIFICANCE_LEVEL:
        return f"equivalent within {100 * margin:g} points"
    if math.isnan(row["equal_within"]):
        return "no effect shown"
    return f"no effect shown; differences above {format_percent(row['equal_within'])} points are ruled out"


def _describe_clip_test(row: Mapping[str, Any], p: str) -> str:
    """Return what McNemar's test shows about two single networks."""
    value = row["mcnemar_p_holm"]
    if math.isnan(value):
        return "there is no test of the difference"
    differ = value < SIGNIFICANCE_LEVEL
    finding = "these two networks differ" if differ else "no difference between these two networks shown"
    return f"{finding} (McNemar's test, {p} {_equals(value)}); more folds or seeds are needed for the effect itself"


def _equals(p: float) -> str:
    text = format_p_value(p)
    return f"< {text[1:]}" if text.startswith("<") else f"= {text}"
