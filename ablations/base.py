"""What an ablation is: a dataclass whose fields are its options and whose docstring is its help."""

from typing import TYPE_CHECKING, Any, ClassVar

from core.config.run import Run
from core.errors import UserError
from core.registry import Lazy

if TYPE_CHECKING:
    import pandas as pd

    from analysis.output.folder import OutputFolder
    from core.plan import Plan
    from core.store.runs import Store

write_condition_report = Lazy("analysis.conditions:write_condition_report")


class Ablation:
    """Turns a base run into conditions, and the finished runs into tables and figures.

    A new ablation is a subclass in a file of its own, a frozen dataclass, and a line in `ablations.ABLATIONS`.
    """

    prepares: ClassVar[str] = "commands.ablation:prepare"  # plans its command
    plans: ClassVar[bool] = True  # has the options of a run
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

    @property
    def analysis_key(self) -> str:
        """What is asked of the runs, where the same runs can be asked different things; part of a folder's name."""
        return ""

    @property
    def trains(self) -> bool:
        """Whether a run that turns out to be damaged is trained again; not where a stored run was asked for."""
        return True

    def expand_grid(self, points: list[dict[str, Any]], store: "Store") -> list[dict[str, Any]]:
        """Return the points of the grid; an ablation that looks at a stored run gives that run's."""
        return points

    def compared_field(self, points: list[dict[str, Any]]) -> str:
        """Return the ``group__field`` whose values are the conditions, where the grid's options make them; or ""."""
        return ""

    def check_plan(self, plan: "Plan") -> None:
        """Refuse, before anything is trained, what only the data sets and networks of the plan tell to be wrong."""

    def analyse(self, results: "OutputFolder") -> "pd.DataFrame":
        """Write tables and figures from the store; return one row per condition, with at least ``condition``."""
        frame: pd.DataFrame = write_condition_report(results, title=self.title)
        return frame


def require_pretrained(base: Run) -> Run:
    """Return a run that does not start from random weights, which is what it is to be set against.

    Raises
    ------
    UserError
        Where it does.
    """
    if base.model.weights == "random":
        raise UserError("--weights random: the other condition has random weights already; say imagenet or a file")
    return base
