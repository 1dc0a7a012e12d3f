"""Paired comparisons of all conditions of a plan with the reference, over folds and over clips, Holm-corrected."""

import functools
import math
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
    error_of_mean,
    holm,
    mcnemar,
)
from analysis.statistics.power import (
    SPREAD_COLUMNS,
    min_detectable_difference,
    pool_components,
    required_seeds,
    variance_components,
)
from core.config.run import Run
from core.plan import Plan, PlannedRun
from core.store.run_store import Store

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
NARROW_COLUMNS = (
    Column("difference", "Difference", format_points, bounds=("low", "high")),
    Column("folds", "Folds", format_count),
)
DIFFERENCE_NOTE = (
    "Difference: accuracy minus accuracy of the reference, in percentage points, with 95 % t interval (not corrected "
    "for multiple comparisons). Runs are paired by fold and seed; seeds are averaged within each fold. p: two-sided "
    "corrected t test over folds; this is the test to cite."
)
STANDARD_ERROR_NOTE = (
    f"{OVERLAP_NOTE} The variance of a mean over k folds is (1/k + test clips / training clips) times the variance "
    "between folds. The standard deviation between folds is set to at least 1 / (test clips). Interval, p and Equal "
    "within use this standard error."
)
EFFECT_NOTE = "d_z: mean divided by standard deviation of the differences."
EQUAL_WITHIN_NOTE = (
    "Equal within: smallest equivalence margin in percentage points (two one-sided t tests at .05). A non-significant "
    "difference does not prove equality."
)
CLIP_TEST_NOTE = (
    "McNemar: test over the test clips of the lowest seed; if clips are grouped, sign-flip test over groups. "
    "It compares two trained networks, not the two methods: it does not account for the variation between trainings. "
    "Both p-values are Holm-corrected over the rows of this table."
)
FOOTNOTES = (f"{DIFFERENCE_NOTE} {EFFECT_NOTE}", STANDARD_ERROR_NOTE, EQUAL_WITHIN_NOTE, CLIP_TEST_NOTE)
NARROW_FOOTNOTES = (
    f"{DIFFERENCE_NOTE} p is Holm-corrected over the rows of this table. {OVERLAP_NOTE} A non-significant difference "
    "does not prove equality.",
)
ONE_FOLD_NOTE = (
    "Single fold: only the seed varies. Intervals are over seeds and do not generalise to other clips; there is no "
    "test over folds."
)
SMALLEST_P_SHOWN = 0.001
# Fraction of the test clips that only one of two networks classifies correctly, assumed before any run has finished.
# In the example of the README, it was .24 and .32.
ASSUMED_DISCORDANCE = 0.25


def narrow_columns(frame: pd.DataFrame) -> list[Column]:
    """Return the columns of the narrow table: difference with interval, and the test over folds or over clips."""
    name = "p_holm" if frame["p_holm"].notna().any() else "mcnemar_p_holm"
    return [*NARROW_COLUMNS, next(column for column in COLUMNS if column.name == name)]


def comparison_footnotes(frame: pd.DataFrame, *, margin: float | None = None, narrow: bool = False) -> list[str]:
    """Return the footnotes of a table of comparisons.

    They describe the tests and their power, and name conditions that are equivalent to the reference.

    Parameters
    ----------
    frame
        Result of `compare_with_reference`.
    margin
        Equivalence margin of `compare_with_reference`.
    narrow
        Whether the footnotes are those of the narrow table, without the columns that only the full table has.
    """
    has_fold_test = bool(frame["p_holm"].notna().any())
    definitions: tuple[str, ...] = FOOTNOTES
    if narrow:
        definitions = NARROW_FOOTNOTES if has_fold_test else (*NARROW_FOOTNOTES, CLIP_TEST_NOTE)
    clip_notes = [] if narrow and has_fold_test else _smallest_p_notes(frame)
    notes = [*definitions, *clip_notes, *power_notes(frame[frame["p"].notna()])]
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


def _smallest_p_notes(frame: pd.DataFrame) -> list[str]:
    """Return a note on the smallest possible corrected p of McNemar's test if there are few clips or groups."""
    tests = frame[frame["mcnemar_p"].notna()]
    units = tests["mcnemar_units"].max()
    smallest = min(1.0, len(tests) * 2.0 ** (1 - units)) if len(tests) else 0.0
    if smallest < SMALLEST_P_SHOWN:
        return []
    return [
        f"McNemar p (Holm) cannot be below {format_p_value(smallest)}, because there are only {units:.0f} independent "
        "clips or groups."
    ]


def power_notes(comparisons: pd.DataFrame) -> list[str]:
    """Return notes on the smallest difference that a study can detect, one for each data set and number of folds.

    Parameters
    ----------
    comparisons
        One row per comparison over at least two folds, with the columns ``dataset``, ``planned_folds``, ``folds``,
        ``seeds``, ``train_clips``, ``test_clips`` and `SPREAD_COLUMNS`. If no comparison of a design has a standard
        deviation, that of `ASSUMED_DISCORDANCE` is used.
    """
    designs = comparisons.groupby(["dataset", "planned_folds"], sort=False)
    return [
        _power_note(f" on {dataset}" * (designs.ngroups > 1), rows, n_comparisons=len(comparisons))
        for (dataset, _), rows in designs
    ]


def _power_note(where: str, rows: pd.DataFrame, *, n_comparisons: int) -> str:
    """Return the note for the comparisons `rows` of one design; `where` names the data set, such as " on esc50"."""
    folds, seeds = int(rows["folds"].max()), int(rows["seeds"].max())
    sizes = FoldSizes(rows["train_clips"].mean(), rows["test_clips"].mean())
    std, fold_std, seed_std = pool_components(rows)
    is_assumed = math.isnan(std)
    if is_assumed:
        std = math.sqrt(ASSUMED_DISCORDANCE / sizes.test)
    elif math.isfinite(seed_std):
        std = math.hypot(fold_std, seed_std / math.sqrt(seeds))
    std = max(std, sizes.resolution)
    error = float(error_of_mean(std, folds, sizes))
    smallest = min_detectable_difference(error, folds)
    note = (
        f"Power{where}: with {folds} folds of {sizes.test:.0f} test clips and a{'n assumed' * is_assumed} standard "
        f"deviation of {100 * std:.1f} points between the differences of folds, the corrected t test detects "
        f"{_format_detectable(smallest)} at p < .05 in 80 % of studies"
    )
    if n_comparisons > 1:
        strictest = min_detectable_difference(error, folds, level=SIGNIFICANCE_LEVEL / n_comparisons)
        note += f"; in the first of {n_comparisons} steps of Holm's correction, {_format_detectable(strictest)}"
    note += "."
    if is_assumed:
        return note + (
            f" No runs have finished: it is assumed that two networks differ in {100 * ASSUMED_DISCORDANCE:.0f} % of "
            "the test clips. Similar clips of one group, and differences between trainings, make the standard "
            "deviation larger."
        )
    if math.isfinite(seed_std) and fold_std > 0 and smallest <= 1:
        needed = required_seeds(fold_std, seed_std, folds, sizes, smallest / 2)
        if needed is None:
            note += " More seeds in these folds cannot halve it."
        elif needed > seeds:
            note += f" Half that difference requires about {needed} seeds per fold."
    return note


def _format_detectable(difference: float) -> str:
    """Return the description of the smallest difference in accuracy that a design detects."""
    if difference > 1:
        return "no true difference of up to 100 points"
    return f"a true difference of {100 * difference:.1f} points"


def planned_power_note(plan: Plan, store: Store) -> str:
    """Return a note on the smallest difference that a plan can detect, or "" if it compares no conditions.

    The standard deviation is that of the finished pairs of runs; without any, it follows from `ASSUMED_DISCORDANCE`.
    """
    parts = [[p for p in part if p.run.replace(seed=p.reference.seed) != p.reference] for _, part in plan.groups()]
    parts = [part for part in parts if part]
    several_folds = [part for part in parts if len({planned.run.data.fold for planned in part}) > 1]
    count_clips = functools.cache(functools.partial(_count_clips, plan))  # a split of a large data set takes seconds
    rows = []
    for part in several_folds:
        clips = [count_clips(data.content, data.fold, data.validation) for data in (p.run.data for p in part)]
        rows.append(
            _design_of(part)
            | {"folds": len({p.run.data.fold for p in part}), "seeds": len({p.run.seed for p in part})}
            | dict(zip(("train_clips", "test_clips"), np.mean(clips, axis=0), strict=True))
            | dict(zip(SPREAD_COLUMNS, variance_components(_differences(part, store)), strict=True))
        )
    notes = power_notes(pd.DataFrame(rows)) if rows else []
    return " ".join([*notes, ONE_FOLD_NOTE] if len(several_folds) < len(parts) else notes)


def _count_clips(plan: Plan, content: str, fold: int, validation: float) -> tuple[int, int]:
    """Return the numbers of training and test clips of a fold."""
    split = plan.datasets[content].split(fold, validation=validation)
    return len(split.train), len(split.test)


def _design_of(part: Sequence[PlannedRun]) -> dict[str, Any]:
    """Return data set and number of planned folds, the columns by which `power_notes` groups comparisons."""
    return {"dataset": part[0].run.data.display_name, "planned_folds": len({p.run.data.fold for p in part})}


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
    """Return the test results of one condition; `part` has its planned runs, each with its reference."""
    differences = _differences(part, store)
    sizes = FoldSizes.from_records(
        record for planned in part if (record := store.finished(planned.run)) and store.finished(planned.reference)
    )
    test = compare_pairs(differences, 0 * differences, sizes=sizes)
    folds = test.n if test.over == "folds" else min(test.n, 1)
    lowest = min(p.run.seed for p in part)
    clips = [_correct_clips(p, plan, store) for p in part if p.run.seed == lowest]
    ours, reference, groups = (np.concatenate([fold[k] for fold in clips]) for k in (0, 1, 2))
    by_clip = mcnemar(ours, reference, groups=groups) if len(ours) else None
    return {
        **_design_of(part),
        "difference": test.difference,
        "low": test.low,
        "high": test.high,
        "pairs": test.pairs,
        "folds": folds,
        "seeds": math.ceil(test.pairs / folds) if folds else 0,
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
    """Return three arrays of shape (clips,): whether the run and its reference are correct, and the clip's group.

    The arrays are empty if one of the two runs is missing.
    """
    if not (store.finished(planned.run) and store.finished(planned.reference)):
        return np.zeros(0, bool), np.zeros(0, bool), np.zeros(0, str)
    clips, targets, logits = store.predictions(planned.run)
    others, _, reference_logits = store.predictions(planned.reference)
    assert clips == others
    table = plan.datasets[planned.run.data.content].clips.set_index("path")["group"]
    correct, reference_correct = (each.argmax(axis=1) == targets for each in (logits, reference_logits))
    return correct, reference_correct, table.loc[clips].to_numpy(str)
