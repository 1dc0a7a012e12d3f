"""Paired comparisons of all conditions of a plan with the reference, over folds and over clips, Holm-corrected."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.output.number_format import format_count, format_number, format_p_value, format_percent, format_points
from analysis.output.tables import Column
from analysis.statistics.hypothesis_tests import (
    OVERLAP_NOTE,
    SIGNIFICANCE_LEVEL,
    FoldSizes,
    average_seeds,
    compare_pairs,
    equivalence_p_value,
    holm,
    mcnemar,
)
from analysis.statistics.power import (
    MAX_UNITS,
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
    Column("effect_size", "d_z", format_number),
    Column("equal_within", "Equal within", format_percent),
    Column("only_condition", "Only condition correct", format_count),
    Column("only_reference", "Only ref. correct", format_count),
    Column("mcnemar_p_holm", "McNemar p (Holm)", format_p_value),
)
FOOTNOTES = (
    "Difference: accuracy minus accuracy of the reference, in percentage points, with 95 % t interval (From, To; not "
    "corrected for multiple comparisons). Runs are paired by fold and seed; seeds are averaged within each fold. p: "
    "two-sided corrected t test over folds; this is the test to cite. d_z: mean divided by standard deviation of the "
    "differences.",
    f"{OVERLAP_NOTE} The variance of a mean over k folds is (1/k + test clips / training clips) times the variance "
    "between folds, which is taken as at least that of one clip per fold. Interval, p and Equal within use this "
    "standard error.",
    "Equal within: smallest equivalence margin in percentage points (two one-sided t tests at .05). A non-significant "
    "difference does not prove equality.",
    "McNemar: test over the test clips of the lowest seed; if clips share a recording, sign-flip test over recordings. "
    "It compares two trained networks, not the two methods: it does not account for the variation between trainings. "
    "Both p-values are Holm-corrected over the rows of this table.",
)
SPREAD_COLUMNS = ["std", "fold_std", "seed_std"]  # of `analysis.statistics.power.variance_components`
ONE_FOLD_NOTE = (
    "Single fold: only the seed varies. Intervals are over seeds and do not generalise to other clips; there is no "
    "test over folds."
)
TYPICAL_STD = 0.02  # assumed standard deviation of the differences between folds before any run has finished


def comparison_footnotes(frame: pd.DataFrame, *, margin: float | None = None) -> list[str]:
    """Return the footnotes of a table of comparisons.

    They describe the tests and their power, and name conditions that are equivalent to the reference.

    Parameters
    ----------
    frame
        Result of `compare_with_reference`.
    margin
        Equivalence margin of `compare_with_reference`.
    """
    notes = list(FOOTNOTES)
    if note := power_note(int(frame["folds"].max()), *(root_mean_square(frame[name]) for name in SPREAD_COLUMNS)):
        notes.append(note)
    if margin is not None:
        equal = frame.loc[frame["equivalence_p_holm"] < SIGNIFICANCE_LEVEL, "condition"].unique()
        names = ", ".join(map(str, equal)) if len(equal) else "none"
        notes.append(
            f"Conditions equivalent to the reference within {100 * margin:g} points (two one-sided t tests over folds "
            f"at .05, Holm-corrected): {names}."
        )
    if (frame["over"] == "seeds").any():
        notes.append(ONE_FOLD_NOTE)
    return notes


def power_note(folds: int, std: float, fold_std: float, seed_std: float) -> str:
    """Return a note on the smallest detectable difference of a design, or "" if it is unknown.

    Parameters
    ----------
    folds
        Number of folds, at least 2.
    std, fold_std, seed_std
        Standard deviations from `analysis.statistics.power.variance_components`.
    """
    smallest = min_detectable_difference(std, folds)
    if not smallest > 0:
        return ""
    folds_for_half = required_folds(std, smallest / 2)
    requirement = f"{folds_for_half} folds" if folds_for_half else f"more than {MAX_UNITS:,} folds"
    if np.isfinite(seed_std):
        seeds = required_seeds(fold_std, seed_std, folds, smallest / 2)
        requirement += f" or {seeds} seeds per fold" if seeds else "; more seeds in these folds cannot reach it"
    return (
        f"Power: with {folds} folds and a standard deviation of {100 * std:.1f} points between the differences of "
        f"folds, a paired t test at .05 detects a true difference of {100 * smallest:.1f} points in 80 % of studies. "
        f"Half that difference requires {requirement}."
    )


def planned_power_note(plan: Plan, store: Store) -> str:
    """Return a note on the smallest difference that a plan can detect, or "" if it has no comparison over folds.

    The standard deviation comes from the finished pairs of runs, or is `TYPICAL_STD` if there are none.
    """
    parts = [[p for p in part if p.run.replace(seed=p.reference.seed) != p.reference] for _, part in plan.groups()]
    parts = [part for part in parts if part]
    folds = max((len({p.run.data.fold for p in part}) for part in parts), default=0)
    if not folds:
        return ""
    if folds == 1:
        return ONE_FOLD_NOTE
    components = pd.DataFrame(
        [variance_components(_differences(part, store)) for part in parts], columns=SPREAD_COLUMNS
    )
    if components["std"].isna().all():
        return (
            power_note(folds, TYPICAL_STD, np.nan, np.nan)
            + " This standard deviation is assumed, as no runs have finished yet."
        )
    return power_note(folds, *(root_mean_square(components[name]) for name in SPREAD_COLUMNS))


def compare_with_reference(plan: Plan, store: Store, *, margin: float | None = None) -> pd.DataFrame:
    """Compare each condition of a plan with the reference.

    Parameters
    ----------
    plan, store
        The plan, and the store with its runs.
    margin
        Equivalence margin as a fraction; None: no equivalence test.

    Returns
    -------
    DataFrame
        One row per condition except the reference, with the results of the paired tests. Pairs of runs with a failed
        or missing run are left out; ``pairs`` and ``folds`` count the remaining ones.
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
    sizes = FoldSizes.from_records(
        record for planned in part if (record := store.finished(planned.run)) and store.finished(planned.reference)
    )
    test = compare_pairs(differences, 0 * differences, sizes=sizes)
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
        "train_clips": sizes.train if sizes else np.nan,
        "test_clips": sizes.test if sizes else np.nan,
        "p": test.p,
        "effect_size": test.effect_size,
        "equal_within": test.equal_within,
        **({} if margin is None else {"equivalence_p": _equivalence_p_value(differences, sizes, margin)}),
        **dict(zip(SPREAD_COLUMNS, variance_components(differences), strict=True)),
        "only_condition": by_clip.only_a if by_clip else np.nan,
        "only_reference": by_clip.only_b if by_clip else np.nan,
        "mcnemar_p": by_clip.p if by_clip else np.nan,
        "mcnemar_units": by_clip.units if by_clip else np.nan,
    }


def _differences(part: Sequence[PlannedRun], store: Store) -> "pd.Series[float]":
    """Return the accuracy difference of each run, indexed by (fold, seed); nan if it or its reference has no result."""
    index = pd.MultiIndex.from_tuples([(p.run.data.fold, p.run.seed) for p in part])
    return pd.Series([_accuracy(p.run, store) - _accuracy(p.reference, store) for p in part], index=index)


def _equivalence_p_value(differences: "pd.Series[float]", sizes: FoldSizes | None, margin: float) -> float:
    """Return the p-value of two one-sided t tests over folds; nan for a single fold."""
    folds = differences.dropna().index.get_level_values(0).nunique()
    return float(equivalence_p_value(average_seeds(differences), sizes, margin=margin)) if folds > 1 else float("nan")


def _accuracy(run: Run, store: Store) -> float:
    record = store.finished(run)
    return record.metrics.accuracy if record else float("nan")


def _correct_clips(planned: PlannedRun, plan: Plan, store: Store) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return correctness of the run and of its reference, and group, of each test clip; empty if a run is missing."""
    if not (store.finished(planned.run) and store.finished(planned.reference)):
        return np.zeros(0, bool), np.zeros(0, bool), np.zeros(0, str)
    clips, targets, logits = store.predictions(planned.run)
    others, _, reference_logits = store.predictions(planned.reference)
    assert clips == others
    table = plan.datasets[planned.run.data.content].clips.set_index("path")["group"]
    correct, reference_correct = (each.argmax(axis=1) == targets for each in (logits, reference_logits))
    return correct, reference_correct, table.loc[clips].to_numpy(str)
