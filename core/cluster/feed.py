"""Where the runs of a sweep come from: a plan, or a search that decides them as it goes."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Protocol

from core.config import Run
from core.datasets.table import Dataset
from core.executor import label
from core.plan import Plan


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

    def next(self) -> Run | None:
        """Return the next run to train, or None where there are no more."""

    def label(self, run: Run) -> str:
        """Name a run for people."""

    def settled(self, run: Run) -> None:
        """Learn that a run has finished, failed for good, or was stopped; the store says which."""


class PlanFeed:
    """The missing runs of a plan, in its order."""

    def __init__(self, plan: Plan, missing: Sequence[Run]) -> None:
        self.plan, self.datasets = plan, plan.datasets
        self.total, self.found = len(plan.runs), len(plan.runs) - len(missing)
        self.waiting = deque(missing)

    def next(self) -> Run | None:
        """Return the next run to train."""
        return self.waiting.popleft() if self.waiting else None

    def label(self, run: Run) -> str:
        """Name a run by its place in the plan."""
        return label(run, self.plan)

    def settled(self, run: Run) -> None:
        """Nothing follows from it."""
