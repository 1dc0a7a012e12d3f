"""Is a condition different from the reference? Paired tests over runs and over clips, corrected for their number."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.formats import count, number, p_value, percent, points
from analysis.statistics import OVERLAP, holm, mcnemar, paired
from analysis.tables import Column
from core.config import Run
from core.plan import Plan, Planned
from core.store import Store

COLUMNS = (
    Column("difference", "Difference", points),
    Column("low", "From", points),
    Column("high", "To", points),
    Column("folds", "Folds", count),
    Column("p_holm", "p (Holm)", p_value),
    Column("smallest_p", "Smallest p", p_value),
    Column("effect_size", "d_z", number),
    Column("equal_within", "Equal within", percent),
    Column("only_condition", "Only it right", count),
    Column("only_reference", "Only ref. right", count),
    Column("mcnemar_p_holm", "McNemar p (Holm)", p_value),
)
FOOTNOTES = (
    "Difference of accuracy in percentage points with its 95 % t interval, not corrected for the number of rows; runs "
    "are paired by (fold, seed), and seeds averaged within a fold. p: two-sided sign-flip permutation test over folds; "
    "smallest p is the least that so many folds can reach.",
    "Equal within: the smallest margin, in points, for which two one-sided t tests at .05 show that the two do not "
    "differ by more. Without such a test, no difference found is not the same as none.",
    "McNemar: over the test clips of the lowest seed, by recording where clips share one, by sign flips; it speaks of "
    "these two networks, not of other trainings. Both p are Holm-corrected over the rows of this table.",
    OVERLAP,
)
ONE_FOLD = (
    "A single fold: only the seed varies, so intervals are over seeds, say nothing of other clips, and there is no "
    "test over folds."
)


def footnotes(frame: pd.DataFrame) -> list[str]:
    """Say what the tests are, and where an interval and the p beside it seem to disagree."""
    notes = list(FOOTNOTES)
    if (frame["over"] == "seeds").any():
        notes.append(ONE_FOLD)
    apart = frame.loc[frame["contradicts"], "condition"].unique()
    if len(apart):
        notes.append(
            f"Interval and p (before correction) are on two sides of .05 for {', '.join(map(str, apart))}: the t "
            "interval takes the differences of folds as normal, the sign flips take them as symmetric only."
        )
    return notes


def comparisons(plan: Plan, store: Store) -> pd.DataFrame:
    """Return one row for each condition but the reference, with the paired tests against it.

    Runs that failed or are missing take their pair out of the comparison; ``pairs`` and ``folds`` say how many are
    left.
    """
    rows = [
        point | _row(changed, plan, store)
        for point, part in plan.groups()
        if (changed := [planned for planned in part if planned.run != planned.reference])
    ]
    frame = pd.DataFrame(rows)
    for name in ("p", "mcnemar_p") if rows else ():
        frame[f"{name}_holm"] = holm(frame[name].tolist())
    return frame


def _row(part: Sequence[Planned], plan: Plan, store: Store) -> dict[str, Any]:
    index = pd.MultiIndex.from_tuples([(p.run.data.fold, p.run.seed) for p in part])
    mine, theirs = (
        pd.Series([_accuracy(run, store) for run in runs], index=index)
        for runs in ([p.run for p in part], [p.reference for p in part])
    )
    test = paired(mine, theirs)
    lowest = min(p.run.seed for p in part)
    clips = [_correct(p, plan, store) for p in part if p.run.seed == lowest]
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
        "only_condition": by_clip.only_a if by_clip else np.nan,
        "only_reference": by_clip.only_b if by_clip else np.nan,
        "mcnemar_p": by_clip.p if by_clip else np.nan,
        "mcnemar_units": by_clip.units if by_clip else np.nan,
    }


def _accuracy(run: Run, store: Store) -> float:
    record = store.finished(run)
    return record.metrics.accuracy if record else float("nan")


def _correct(planned: Planned, plan: Plan, store: Store) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which test clips the run and its reference get right and the clips' groups; empty where one is lost."""
    if not (store.finished(planned.run) and store.finished(planned.reference)):
        return np.zeros(0, bool), np.zeros(0, bool), np.zeros(0, str)
    (clips, targets, ours), (others, _, theirs) = (store.predictions(r) for r in (planned.run, planned.reference))
    assert clips == others
    table = plan.datasets[planned.run.data.content].clips.set_index("path")["group"]
    return ours.argmax(1) == targets, theirs.argmax(1) == targets, table.loc[clips].to_numpy(str)
