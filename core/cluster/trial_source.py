"""The runs of a sweep: those of a plan, or those that a search chooses during the sweep."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Protocol

from core.config.run import Run
from core.datasets.dataset import Dataset
from core.executor import run_label
from core.plan import Plan
from core.training.heads.groups import group_runs


class TrialSource(Protocol):
    """The runs of a sweep, grouped into trials.

    Attributes
    ----------
    datasets
        The data set of each run, by the content hash in its configuration (``data.content``).
    total, found
        Number of all runs, and number of runs that need no training because the store has their results.
    """

    datasets: Mapping[str, Dataset]
    total: int
    found: int

    def split_trials(self, n_processes: int) -> None:
        """Split groups of runs so that `n_processes` processes have work."""

    def next(self) -> Sequence[Run]:
        """Return the runs of the next trial (several if they are trained together), empty after the last trial."""

    def label(self, run: Run) -> str:
        """Return the name of a run for messages."""

    def run_ended(self, run: Run) -> None:
        """Notify the source that a run has ended. The record of the run has its state (finished or failed)."""


class PlannedTrials:
    """The missing runs of a plan, in the order of the plan.

    Parameters
    ----------
    plan, missing
        The plan, and its runs without results.
    one_per_trial
        True for one trial per run, which a scheduler requires; False to put runs that can be trained together into one
        trial.
    """

    def __init__(self, plan: Plan, missing: Sequence[Run], *, one_per_trial: bool = False) -> None:
        self.plan, self.datasets = plan, plan.datasets
        self.total, self.found = len(plan.runs), len(plan.runs) - len(missing)
        self.waiting = deque([[run] for run in missing] if one_per_trial else group_runs(missing, plan.datasets))

    def split_trials(self, n_processes: int) -> None:
        """Halve the largest trial until there are `n_processes` trials, or each trial has one run."""
        while 0 < len(self.waiting) < n_processes:
            group = max(self.waiting, key=len)
            if len(group) == 1:
                return
            k = self.waiting.index(group)
            self.waiting[k] = group[: len(group) // 2]
            self.waiting.insert(k + 1, group[len(group) // 2 :])

    def next(self) -> Sequence[Run]:
        """Return the runs of the next trial."""
        return self.waiting.popleft() if self.waiting else ()

    def label(self, run: Run) -> str:
        """Return the name of a run, with its position in the plan."""
        return run_label(run, self.plan)

    def run_ended(self, run: Run) -> None:
        """Do nothing."""
