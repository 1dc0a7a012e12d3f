"""Is a condition different from the reference? Paired tests over runs and over clips, corrected for their number."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.formats import count, number, points
from analysis.statistics import holm, mcnemar, paired
from analysis.tables import Column
from core.config import Run
from core.plan import Plan, Planned
from core.store import Store

COLUMNS = (
    Column("difference", "Difference", points),
    Column("low", "From", points),
    Column("high", "To", points),
    Column("pairs", "Pairs", count),
    Column("p_holm", "p (Holm)", number),
    Column("smallest_p", "Smallest p", number),
    Column("effect_size", "d_z", number),
    Column("only_condition", "Only it right", count),
    Column("only_reference", "Only ref. right", count),
    Column("mcnemar_p_holm", "McNemar p (Holm)", number),
)
FOOTNOTES = (
    "Difference of accuracy in percentage points with its 95 % interval, over matched (fold, seed) pairs. "
    "p: two-sided sign-flip permutation test; smallest p is the least that so many pairs can reach.",
    "McNemar: over the test clips of the lowest seed. Both p are Holm-corrected over the rows of this table.",
)


def comparisons(plan: Plan, store: Store) -> pd.DataFrame:
    """Return one row for each condition but the reference, with the paired tests against it.

    Runs that failed or are missing take their pair out of the comparison; ``pairs`` says how many are left.
    """
    rows = [
        point | _row(changed, store)
        for point, part in plan.groups()
        if (changed := [planned for planned in part if planned.run != planned.reference])
    ]
    frame = pd.DataFrame(rows)
    for name in ("p", "mcnemar_p") if rows else ():
        frame[f"{name}_holm"] = holm(frame[name].tolist())
    return frame


def _row(part: Sequence[Planned], store: Store) -> dict[str, Any]:
    index = pd.MultiIndex.from_tuples([(p.run.data.fold, p.run.seed) for p in part])
    mine, theirs = (
        pd.Series([_accuracy(run, store) for run in runs], index=index)
        for runs in ([p.run for p in part], [p.reference for p in part])
    )
    test = paired(mine, theirs)
    lowest = min(p.run.seed for p in part)
    clips = [_correct(p, store) for p in part if p.run.seed == lowest]
    ours, reference = (np.concatenate([pair[k] for pair in clips]) for k in (0, 1))
    by_clip = mcnemar(ours, reference) if len(ours) else None
    return {
        "difference": test.difference,
        "low": test.low,
        "high": test.high,
        "pairs": test.n,
        "p": test.p,
        "smallest_p": test.smallest_p,
        "effect_size": test.effect_size,
        "only_condition": by_clip.only_a if by_clip else np.nan,
        "only_reference": by_clip.only_b if by_clip else np.nan,
        "mcnemar_p": by_clip.p if by_clip else np.nan,
    }


def _accuracy(run: Run, store: Store) -> float:
    record = store.finished(run)
    return record.metrics.accuracy if record else float("nan")


def _correct(planned: Planned, store: Store) -> tuple[np.ndarray, np.ndarray]:
    """Return which test clips the run and its reference get right, or nothing where one of them is not there."""
    if not (store.finished(planned.run) and store.finished(planned.reference)):
        return np.zeros(0, bool), np.zeros(0, bool)
    (clips, targets, ours), (others, _, theirs) = (store.predictions(r) for r in (planned.run, planned.reference))
    assert clips == others
    return ours.argmax(1) == targets, theirs.argmax(1) == targets
