"""Is a condition different from the reference? Paired tests over runs and over clips, corrected for their number."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.output.number_format import format_count, format_number, format_p_value, format_percent, format_points
from analysis.output.tables import Column
from analysis.statistics.hypothesis_tests import (
    OVERLAP_NOTE,
    SIGNIFICANCE_LEVEL,
    average_seeds,
    compare_pairs,
    equivalence_p_value,
    holm,
    mcnemar,
)
from analysis.statistics.power import (
    min_detectable_difference,
    required_folds,
    required_seeds,
    root_mean_square,
    variance_components,
)
from core.config.run import Run
from core.plan import Plan, PlannedRun
from core.store.runs import Store

COLUMNS = (
    Column("difference", "Difference", format_points),
    Column("low", "From", format_points),
    Column("high", "To", format_points),
    Column("folds", "Folds", format_count),
    Column("p_holm", "p (Holm)", format_p_value),
    Column("smallest_p", "Smallest p", format_p_value),
    Column("effect_size", "d_z", format_number),
    Column("equal_within", "Equal within", format_percent),
    Column("only_condition", "Only it right", format_count),
    Column("only_reference", "Only ref. right", format_count),
    Column("mcnemar_p_holm", "McNemar p (Holm)", format_p_value),
)
FOOTNOTES = (
    "Difference of accuracy in percentage points with its 95 % t interval, not corrected for the number of rows; runs "
    "are paired by (fold, seed), and seeds averaged within a fold. p: two-sided sign-flip permutation test over folds; "
    "smallest p is the least that so many folds can reach.",
    "Equal within: the smallest margin, in points, for which two one-sided t tests at .05 show that the two do not "
    "differ by more. Without such a test, no difference found is not the same as none.",
    "McNemar: over the test clips of the lowest seed, by recording where clips share one, by sign flips; it speaks of "
    "these two networks, not of other trainings. Both p are Holm-corrected over the rows of this table.",
    OVERLAP_NOTE,
)
SPREAD_COLUMNS = [
    "std",
    "fold_std",
    "seed_std",
]  # of the differences, as `analysis.statistics.power.variance_components` gives them
ONE_FOLD_NOTE = (
    "A single fold: only the seed varies, so intervals are over seeds, say nothing of other clips, and there is no "
    "test over folds."
)


TYPICAL_SPREAD = 0.02  # of the differences of folds, where there are no runs yet to see it in


def comparison_footnotes(frame: pd.DataFrame, *, margin: float | None = None) -> list[str]:
    """Say what the tests are and could find, and where an interval and the p beside it seem to disagree.

    `margin` is that of `compare_with_reference`; the conditions that are shown to be equal within it are named.
    """
    notes = list(FOOTNOTES)
    if said := power_note(int(frame["folds"].max()), *(root_mean_square(frame[name]) for name in SPREAD_COLUMNS)):
        notes.append(said)
    if margin is not None:
        equal = frame.loc[frame["equivalence_p_holm"] < SIGNIFICANCE_LEVEL, "condition"].unique()
        shown = ", ".join(map(str, equal)) if len(equal) else "none of them"
        notes.append(
            f"Shown to be equal to the reference within {100 * margin:g} points (two one-sided t tests over folds at "
            f".05, Holm-corrected): {shown}."
        )
    if (frame["over"] == "seeds").any():
        notes.append(ONE_FOLD_NOTE)
    apart = frame.loc[frame["contradicts"], "condition"].unique()
    if len(apart):
        notes.append(
            f"Interval and p (before correction) are on two sides of .05 for {', '.join(map(str, apart))}: the t "
            "interval takes the differences of folds as normal, the sign flips take them as symmetric only."
        )
    return notes


def power_note(folds: int, std: float, fold_std: float, seed_std: float) -> str:
    """Say how small a difference so many folds could find, and what half of it would take; "" where nothing is known.

    Parameters
    ----------
    folds
        At least 2, or nothing can be found.
    std, fold_std, seed_std
        As `analysis.statistics.power.variance_components` gives them.
    """
    smallest = min_detectable_difference(std, folds)
    if not smallest > 0:
        return ""
    half = required_folds(std, smallest / 2)
    said = f"{half} folds" if half else "more folds than there can be"
    if seed_std == seed_std:  # known
        seeds = required_seeds(fold_std, seed_std, folds, smallest / 2)
        said += (
            f", or {seeds} seeds in each of these folds" if seeds else ", which no number of seeds in these folds is"
        )
    return (
        f"Power: where differences of folds spread by {100 * std:.1f} points, {folds} folds find a true difference of "
        f"{100 * smallest:.1f} points in 80 of 100 studies (one paired t test at .05); half of that would take {said}."
    )


def planned_power_note(plan: Plan, store: Store) -> str:
    """Say before a plan is run how small a difference it could find; "" where it compares nothing over folds.

    The spread is that of the pairs of runs that are there, or else `TYPICAL_SPREAD`.
    """
    parts = [[p for p in part if p.run.replace(seed=p.reference.seed) != p.reference] for _, part in plan.groups()]
    parts = [part for part in parts if part]
    folds = max((len({p.run.data.fold for p in part}) for part in parts), default=0)
    if not folds:
        return ""
    if folds == 1:
        return ONE_FOLD_NOTE
    found = pd.DataFrame([variance_components(_differences(part, store)) for part in parts], columns=SPREAD_COLUMNS)
    if found["std"].isna().all():
        return power_note(folds, TYPICAL_SPREAD, np.nan, np.nan) + " That spread is a guess: there are no pairs yet."
    return power_note(folds, *(root_mean_square(found[name]) for name in SPREAD_COLUMNS))


def compare_with_reference(plan: Plan, store: Store, *, margin: float | None = None) -> pd.DataFrame:
    """Return one row for each condition but the reference, with the paired tests against it.

    Runs that failed or are missing take their pair out of the comparison; ``pairs`` and ``folds`` say how many are
    left. With a `margin`, the largest difference that does not matter (a fraction), ``equivalence_p`` tests whether
    the difference is smaller.
    """
    rows = [
        point | _comparison_row(changed, plan, store, margin)
        for point, part in plan.groups()
        if (changed := [planned for planned in part if planned.run != planned.reference])
    ]
    frame = pd.DataFrame(rows)
    tests = ["p", "mcnemar_p", *(["equivalence_p"] if margin is not None else [])]
    for name in tests if rows else ():
        frame[f"{name}_holm"] = holm(frame[name].tolist())
    return frame


def _comparison_row(part: Sequence[PlannedRun], plan: Plan, store: Store, margin: float | None) -> dict[str, Any]:
    differences = _differences(part, store)
    test = compare_pairs(differences, 0 * differences)
    lowest = min(p.run.seed for p in part)
    clips = [_correct_clips(p, plan, store) for p in part if p.run.seed == lowest]
    ours, reference, groups = (np.concatenate([fold[k] for fold in clips]) for k in (0, 1, 2))
    by_clip = mcnemar(ours, reference, groups=groups) if len(ours) else None
    return {
        "difference": test.difference,
        "low": test.low,
        "high": test.high,
        "pairs": test.pairs,
        "folds": test.n if test.over == "folds" else min(test.n, 1),
        "over": test.over,
        "contradicts": test.contradicts,
        "p": test.p,
        "smallest_p": test.smallest_p,
        "effect_size": test.effect_size,
        "equal_within": test.equal_within,
        **({} if margin is None else {"equivalence_p": _equivalence_p_value(differences, margin)}),
        **dict(zip(SPREAD_COLUMNS, variance_components(differences), strict=True)),
        "only_condition": by_clip.only_a if by_clip else np.nan,
        "only_reference": by_clip.only_b if by_clip else np.nan,
        "mcnemar_p": by_clip.p if by_clip else np.nan,
        "mcnemar_units": by_clip.units if by_clip else np.nan,
    }


def _differences(part: Sequence[PlannedRun], store: Store) -> "pd.Series[float]":
    """Return the change of accuracy of each run, by (fold, seed); nan where it or its reference has none."""
    index = pd.MultiIndex.from_tuples([(p.run.data.fold, p.run.seed) for p in part])
    return pd.Series([_accuracy(p.run, store) - _accuracy(p.reference, store) for p in part], index=index)


def _equivalence_p_value(differences: "pd.Series[float]", margin: float) -> float:
    """Return the p of two one-sided t tests over folds; nan for a single fold, where there is no such test."""
    folds = differences.dropna().index.get_level_values(0).nunique()
    return equivalence_p_value(average_seeds(differences), margin=margin) if folds > 1 else float("nan")


def _accuracy(run: Run, store: Store) -> float:
    record = store.finished(run)
    return record.metrics.accuracy if record else float("nan")


def _correct_clips(planned: PlannedRun, plan: Plan, store: Store) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which test clips the run and its reference get right and the clips' groups; empty where one is lost."""
    if not (store.finished(planned.run) and store.finished(planned.reference)):
        return np.zeros(0, bool), np.zeros(0, bool), np.zeros(0, str)
    clips, targets, logits = store.predictions(planned.run)
    others, _, reference_logits = store.predictions(planned.reference)
    assert clips == others
    table = plan.datasets[planned.run.data.content].clips.set_index("path")["group"]
    correct, reference_correct = (each.argmax(axis=1) == targets for each in (logits, reference_logits))
    return correct, reference_correct, table.loc[clips].to_numpy(str)
