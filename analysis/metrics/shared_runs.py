"""Select the runs for comparisons of conditions: those of the folds and seeds that all conditions have finished.

If a condition and its reference were averaged over different folds, their difference would also contain the difference
between these folds. All tables and figures that show several conditions therefore use `select_shared_runs`.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from analysis.output.number_format import format_point
from core.plan import Groups, PlannedRun
from core.store.run_store import Store

MIN_SHARED_FRACTION = 0.5  # common runs, at least this fraction of the most complete condition
FOLDS, SEEDS, SINGLE_RUN = "folds", "seeds", "1 run"  # what is averaged in the mean of a condition
MEMBERS = "members"  # standard deviations of single networks in the table of an ensemble are between its members
SHARED_BY_ALL = "means use only folds and seeds that every compared condition has finished"


def select_shared_runs(groups: Groups, store: Store) -> Groups:
    """Return the finished runs of the folds and seeds that all compared conditions have.

    Conditions are compared if they have the same grid values, the same reference, and the same planned folds and seeds.
    A condition that would leave fewer than half of the runs of the most complete one is not compared: its group is
    empty.

    Parameters
    ----------
    groups
        Runs of each condition (`core.plan.Plan.groups`).
    store
        Store with the runs.

    Returns
    -------
    Groups
        The same groups in the same order, each with a subset of its runs.
    """
    finished = [[each for each in planned if store.finished(each.run)] for _, planned in groups]
    units = [{_unit(each) for each in part} for part in finished]
    comparisons: dict[Any, list[int]] = defaultdict(list)
    for k, (values, planned) in enumerate(groups):
        comparisons[_comparison_key(values, planned)].append(k)
    shared: dict[int, Set[tuple[int, int]]] = {}
    for members in comparisons.values():
        common = _find_common_units([units[k] for k in members])
        shared |= {k: common if common <= units[k] else set() for k in members}
    return [
        (values, [each for each in part if _unit(each) in shared[k]])
        for k, ((values, _), part) in enumerate(zip(groups, finished, strict=True))
    ]


def describe_shared_runs(groups: Groups, shared: Groups) -> str:
    """Return a sentence on what is left out because runs have failed or are missing; "" if every run is used.

    Parameters
    ----------
    groups
        The planned runs.
    shared
        Result of `select_shared_runs`.
    """
    counts = [(len(used), len(planned)) for (_, planned), (_, used) in zip(groups, shared, strict=True)]
    if all(used == planned for used, planned in counts):
        return ""
    partial = sorted({f"{used} of {planned}" for used, planned in counts if 0 < used < planned})
    parts = [f"{SHARED_BY_ALL} ({' or '.join(partial)} runs of a condition)"] if partial else []
    left_out = [format_point(values) for values, used in shared if not used]
    parts += [f"no finished runs, or too few to compare: {'; '.join(left_out)}"] if left_out else []
    return f"Failed or missing runs: {', '.join(parts)}."


def averaged_over(planned: Sequence[PlannedRun]) -> str:
    """Return what is averaged in the mean of a condition: `FOLDS`, `SEEDS` (of one fold) or `SINGLE_RUN`.

    Without runs, return "".
    """
    if len({each.run.data.fold for each in planned}) > 1:
        return FOLDS
    return SEEDS if len(planned) > 1 else SINGLE_RUN * len(planned)


def describe_spread(spread: str, names_by_unit: Mapping[str, Sequence[str]]) -> str:
    """Return a text such as "95 % interval over folds".

    If the spread is over folds for some conditions and over seeds for others, the text names the conditions of each.

    Parameters
    ----------
    spread
        Name of the spread, such as "95 % interval".
    names_by_unit
        Result of `averaged_over`: names of the conditions with this result.
    """
    texts = {
        FOLDS: f"{spread} over folds",
        SEEDS: f"{spread} over the seeds of one fold",
        MEMBERS: f"{spread} between members",
        SINGLE_RUN: "no spread, 1 run",
    }
    units = [unit for unit in texts if names_by_unit.get(unit)]
    if units == [SINGLE_RUN]:
        return "1 run per condition"
    return "; ".join(texts[unit] + f" ({', '.join(names_by_unit[unit])})" * (len(units) > 1) for unit in units)


def _find_common_units(units: Iterable[Set[tuple[int, int]]]) -> Set[tuple[int, int]]:
    """Return the (fold, seed) pairs that all conditions have.

    Conditions that would leave too few common pairs are left out first, beginning with the least complete one.
    """
    remaining = sorted(filter(None, units), key=len, reverse=True)
    while remaining:
        common: Set[tuple[int, int]] = set.intersection(*map(set, remaining))
        if len(common) >= MIN_SHARED_FRACTION * len(remaining[0]):
            return common
        remaining.pop()
    return set()


def _comparison_key(values: Mapping[str, Any], planned: Sequence[PlannedRun]) -> tuple[Any, ...]:
    """Return a key that is equal for conditions that are compared with each other."""
    point = tuple(value for name, value in values.items() if name != "condition")
    reference = planned[0].reference.replace(data__fold=0, seed=0)
    return point, reference, frozenset(map(_unit, planned))


def _unit(planned: PlannedRun) -> tuple[int, int]:
    """Return fold and seed of a run."""
    return planned.run.data.fold, planned.run.seed
