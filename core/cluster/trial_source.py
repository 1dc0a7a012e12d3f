"""Where the runs of a sweep come from: a plan, or a search that decides them as it goes."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Protocol

from core.config.run import Run
from core.datasets.dataset import Dataset
from core.executor import label
from core.plan import Plan
from core.training.heads.groups import lots


class Feed(Protocol):
    """Where the runs of a sweep come from.

    Attributes
    ----------
    datasets
        Clips by ``data.content``.
    total, found
        How many runs there will be in all, and how many of them were settled before.
    """

    datasets: Mapping[str, Dataset]
    total: int
    found: int

    def share(self, places: int) -> int:
        """Learn how many trials can go at a time; return how many there will be at most."""

    def next(self) -> Sequence[Run]:
        """Return the runs of the next trial, several where they are trained together; none where there are no more."""

    def label(self, run: Run) -> str:
        """Name a run for people."""

    def settled(self, run: Run) -> None:
        """Learn that a run has finished, failed for good, or was stopped; the store says which."""


class PlanFeed:
    """The missing runs of a plan, in its order.

    Parameters
    ----------
    plan, missing
        The plan, and which of its runs are to be trained.
    alone
        Whether each is a trial, as a scheduler needs them; else those that may be trained together are one.
    """

    def __init__(self, plan: Plan, missing: Sequence[Run], *, alone: bool = False) -> None:
        self.plan, self.datasets = plan, plan.datasets
        self.total, self.found = len(plan.runs), len(plan.runs) - len(missing)
        self.waiting = deque([[run] for run in missing] if alone else lots(missing, plan.datasets))

    def share(self, places: int) -> int:
        """Halve the longest lots until there is one for every process."""
        while len(self.waiting) < places and (longest := max(self.waiting, key=len, default=[])[1:]):
            place = next(k for k, lot in enumerate(self.waiting) if len(lot) == len(longest) + 1)
            lot = self.waiting[place]
            self.waiting[place] = lot[: len(lot) // 2]
            self.waiting.insert(place + 1, lot[len(lot) // 2 :])
        return len(self.waiting)

    def next(self) -> Sequence[Run]:
        """Return the next lot."""
        return self.waiting.popleft() if self.waiting else ()

    def label(self, run: Run) -> str:
        """Name a run by its place in the plan."""
        return label(run, self.plan)

    def settled(self, run: Run) -> None:
        """Nothing follows from it."""
