"""What an ablation is: a dataclass whose fields are its options and whose docstring is its help."""

from typing import TYPE_CHECKING, ClassVar

from core.config import Run

if TYPE_CHECKING:
    import pandas as pd

    from analysis.results import Results


class Ablation:
    """Turns a base run into conditions, and the finished runs into tables and figures.

    A new ablation is a subclass in a file of its own, a frozen dataclass, and a line in `ablations.ABLATIONS`.
    """

    title: ClassVar[str]  # of the conditions, in tables and on axes

    def conditions(self, base: Run, scratch: Run) -> dict[str, Run]:
        """Map each condition's name to its run; the first is the reference.

        Parameters
        ----------
        base
            A point of the grid.
        scratch
            The same from random weights, with the schedule a preset has for them.
        """
        raise NotImplementedError

    def analyse(self, results: "Results") -> "pd.DataFrame":
        """Write tables and figures from the store; return one row per condition, with at least ``condition``."""
        from analysis.conditions import compare

        return compare(results, title=self.title)
