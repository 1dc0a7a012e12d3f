"""The result of each condition in one sentence: the difference, its interval, and what the test shows."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.output.number_format import format_number, format_p_value, format_percent, format_point, format_points
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
        Start of the sentences, such as "Freezing through {condition}"; ``{condition}`` and ``{reference}`` are replaced
        by the names.
    reference
        Name of the reference.
    grid
        Columns with the values of further options, if a condition is compared at several of them.
    margin
        Equivalence margin, 0 to 1, if equivalence was tested.
    """
    rows: list[dict[str, Any]] = comparisons.to_dict("records")  # type: ignore[assignment]
    p = "corrected p" if len(rows) > 1 else "p"
    return [_describe(row, subject=subject, reference=reference, grid=grid, margin=margin, p=p) for row in rows]


def describe_ensembles(frame: pd.DataFrame, *, grid: Sequence[str] = ()) -> list[str]:
    """Return one sentence for each ensemble, compared with the mean of its members.

    Parameters
    ----------
    frame
        Rows of the main table of `analysis.ensembles.write_ensemble_report`.
    grid
        Columns of the options that distinguish several ensembles.
    """
    rows: list[dict[str, Any]] = frame[frame["condition"] == "ensemble"].to_dict("records")  # type: ignore[assignment]
    p = "corrected p" if len(rows) > 1 else "p"
    return [_describe_ensemble(row, grid, p) for row in rows]


def _describe_ensemble(row: Mapping[str, Any], grid: Sequence[str], p: str) -> str:
    start = f"The ensemble of {row['members']:.0f} networks{_name_point(row, grid)}"
    if math.isnan(row["delta"]):
        return f"{start}: no result, because no fold has two finished members."
    change = f"{start} changes accuracy by {format_points(row['delta'])} points against the mean of its members"
    if math.isnan(row["low"]):
        return f"{change} in one fold: there is no test; more folds are needed."
    test = f"{p} {_equals(row['p_holm'])}" if not math.isnan(row["p_holm"]) else "no test"
    interval = f"95 % interval {format_points(row['low'])} to {format_points(row['high'])}"
    finding = _conclude({**row, "difference": row["delta"], "equal_within": math.nan}, None)
    return f"{change} ({interval}, {row['folds']:.0f} folds, {test}): {finding}."


def describe_similarities(frame: pd.DataFrame, *, index: str, grid: Sequence[str] = ()) -> list[str]:
    """Return one sentence for each network: the similarity of each stage before and after training, and its floor.

    Parameters
    ----------
    frame
        Rows of the table of `analysis.similarity.weight_change.compare_layers`.
    index
        Name of the similarity index.
    grid
        Columns of the options that distinguish several networks.
    """
    sentences = []
    for _, part in frame.groupby([*grid, "weights"], sort=False, dropna=False):
        rows: list[dict[str, Any]] = part.to_dict("records")  # type: ignore[assignment]
        start = f"Training from {rows[0]['weights']} weights{_name_point(rows[0], grid)}"
        measured = [row for row in rows if not math.isnan(row["similarity"]) and "." not in row["layer"]]
        if not measured:
            sentences.append(f"{start}: no result, because no run has finished.")
            continue
        values = [
            f"{row['layer']} {format_number(row['similarity'], digits=2)} "
            f"({format_number(row['noise_floor'], digits=2)})"
            for row in measured
        ]
        least = min(measured, key=lambda row: row["above_floor"])
        few = [row["layer"] for row in measured if row["few_datapoints"]]
        end = f"; too few datapoints: {', '.join(few)}" if few else ""
        sentences.append(
            f"{start}: {index} before and after training (noise floor) {', '.join(values)}; "
            f"{least['layer']} changes most relative to its floor{end}."
        )
    return sentences


def describe_maps(maps: pd.DataFrame, faithfulness: pd.DataFrame | None) -> list[str]:
    """Return one sentence for each network, method and baseline of attribution maps.

    Parameters
    ----------
    maps
        Rows of the table of maps: the first row is the reference.
    faithfulness
        Rows of the table of faithfulness with ``verdict``; None if it was not tested.
    """
    rows: list[dict[str, Any]] = maps.to_dict("records")  # type: ignore[assignment]
    sentences = []
    for k, row in enumerate(rows):
        start = f"Maps of {row['condition']} by {row['method']} against {row['baseline']} ({row['clips']} clips)"
        facts = []
        if not math.isnan(row["error"]):
            facts.append(f"mean completeness error {format_percent(row['error'])} %")
        if k:
            facts.append(f"rank correlation {format_number(row['rank_correlation'])} with the first maps")
        if faithfulness is not None and row["condition"] == rows[0]["condition"]:
            same = (faithfulness["method"] == row["method"]) & (faithfulness["baseline"] == row["baseline"])
            counts = faithfulness.loc[same, "verdict"].value_counts()
            found = [f"{counts[name]} {name}" for name in ("for", "against", "unclear") if name in counts]
            facts.append(f"tests of faithfulness: {', '.join(found) or 'none'}")
        sentences.append(f"{start}: {'; '.join(facts) or 'no completeness error is defined'}.")
    return sentences


def _name_point(row: Mapping[str, Any], grid: Sequence[str]) -> str:
    """Return the values of the options of a row in parentheses; "" without options."""
    return f" ({format_point({name: row[name] for name in grid})})" if grid else ""


def _describe(
    row: Mapping[str, Any], *, subject: str, reference: str, grid: Sequence[str], margin: float | None, p: str
) -> str:
    start = subject.format(condition=row["condition"], reference=reference).replace("through none only", "in no block")
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
