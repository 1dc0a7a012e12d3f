"""Chance level of a condition's accuracy, and a test of whether the accuracy is above it."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from analysis.output.number_format import format_percent, format_point
from core.plan import Groups, Plan, PlannedRun
from core.registry import Lazy
from core.store.record import Record
from core.store.run_store import Store

stats = Lazy("scipy.stats")  # most of a second to import
SIGNIFICANCE_LEVEL = 0.05


def chance_level(records: Sequence[Record]) -> tuple[float, float]:
    """Return the chance level of the accuracy and the number of classes, from the confusion matrices of runs.

    The chance level is the fraction of the test clips in the largest class: the accuracy of a network that always
    predicts this class. With equally large classes it is 1 / classes. Classes without test clips do not count. Both
    values are nan without records that have a confusion matrix.
    """
    clips = sum((np.sum(record.confusion, axis=1) for record in records if record.confusion), np.zeros(1))
    if not clips.sum():
        return float("nan"), float("nan")
    return float(clips.max() / clips.sum()), int(np.sum(clips > 0))


def name_chance(chance: float, n_classes: float) -> str:
    """Return the chance level as text with its origin: ``10.0 % (1 / 10)`` or ``12.5 % (largest class)``."""
    is_equal = abs(chance * n_classes - 1) < 1e-9
    return f"{format_percent(chance)} % ({f'1 / {n_classes:.0f}' if is_equal else 'largest class'})"


def above_chance_p_value(correct: npt.ArrayLike, chance: float, *, groups: npt.ArrayLike | None = None) -> float:
    """Return the one-sided p-value of the hypothesis that an accuracy is not above the chance level.

    Parameters
    ----------
    correct
        Whether each clip is classified correctly, shape (clips,).
    chance
        Accuracy at chance level, 0 to 1.
    groups
        Group of each clip, such as its recording, shape (clips,); None if the clips are independent.

    Notes
    -----
    Independent clips: exact binomial test. Groups of clips: one-sided t test over the groups' sums of (correct -
    chance). For 10 to 100 groups of 1 to 20 clips, chance levels of .1 and .3 and any correlation within the groups, it
    has at most 4.6 % false positives at .05 in simulations; the binomial test over clips has up to 31 %.
    """
    values = np.asarray(correct, dtype=np.float64)
    index = np.arange(len(values)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    sums = np.bincount(index, weights=values - chance)
    if len(sums) == len(values):
        return float(stats.binomtest(int(values.sum()), len(values), chance, alternative="greater").pvalue)
    if np.ptp(sums) < 1e-12:  # equal sums, for example of a single group
        return 0.0 if len(sums) > 1 and sums[0] > 0 else 1.0
    return float(stats.ttest_1samp(sums, 0.0, alternative="greater").pvalue)


def chance_notes(plan: Plan, shared: Groups, store: Store) -> list[str]:
    """Return a list with a footnote that names the conditions whose accuracy is not above chance; empty without any.

    Parameters
    ----------
    plan
        The plan, for the recordings of the clips.
    shared
        Finished runs of each condition (`analysis.metrics.shared_runs.select_shared_runs`).
    store
        Store with the runs.
    """
    names_by_level: dict[str, list[str]] = {}
    for values, planned in shared:
        lowest = min((each.run.seed for each in planned), default=0)
        runs = [each for each in planned if each.run.seed == lowest]  # one run per fold, so each test clip counts once
        chance, n_classes = chance_level([record for each in runs if (record := store.finished(each.run))])
        if np.isnan(chance) or _p_value(runs, plan, store, chance) < SIGNIFICANCE_LEVEL:
            continue
        names_by_level.setdefault(name_chance(chance, n_classes), []).append(format_point(values))
    if not names_by_level:
        return []
    found = ". ".join(
        f"Accuracy not above chance, {level}: {'; '.join(names)}" for level, names in names_by_level.items()
    )
    return [
        f"{found}. One-sided binomial test at .05 over the test clips of the "
        "lowest seed, or t test over groups if clips are grouped; not corrected for several conditions."
    ]


def _p_value(runs: Sequence[PlannedRun], plan: Plan, store: Store, chance: float) -> float:
    """Return `above_chance_p_value` over the test clips of all runs, which are runs of different folds."""
    content = runs[0].run.data.content
    groups = plan.datasets[content].clips.set_index("path")["group"] if content in plan.datasets else None
    if groups is None or groups.is_unique:
        matrices = [np.asarray(record.confusion) for each in runs if (record := store.finished(each.run))]
        right, clips = (sum(int(f(matrix)) for matrix in matrices) for f in (np.trace, np.sum))
        return above_chance_p_value(np.arange(clips) < right, chance)
    correct, paths = [], []
    for each in runs:
        clip_paths, targets, logits = store.predictions(each.run)
        correct.append(logits.argmax(axis=1) == targets)
        paths += clip_paths
    return above_chance_p_value(np.concatenate(correct), chance, groups=groups.loc[paths].to_numpy(str))
