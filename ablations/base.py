"""Base class of ablations: a dataclass whose fields are its options and whose docstring is its help."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from core.config.run import Run
from core.errors import UserError
from core.inputs.input_kind import get_input_shape
from core.models.stages import select_stages
from core.registry import Lazy

if TYPE_CHECKING:
    import pandas as pd

    from analysis.output.output_folder import OutputFolder
    from core.plan import Plan
    from core.store.run_store import Store

write_condition_report = Lazy("analysis.condition_report:write_condition_report")


class Ablation:
    """Defines the conditions of a base run, and the tables and figures of the finished runs.

    A new ablation is a frozen dataclass that inherits from this class, and a line in `ablations.ABLATIONS`.
    """

    prepares: ClassVar[str] = "ablations.planning.experiment:prepare"  # function that plans the command
    plans: ClassVar[bool] = True  # whether the command has the options of a run
    title: ClassVar[str]  # heading of the condition column, and axis label
    subject: ClassVar[str] = "{condition} instead of {reference}"  # start of the sentence about a condition

    condition_words: ClassVar[Mapping[str, str]] = {}  # texts for progress lines, by condition

    def conditions(self, base: Run, scratch: Run) -> dict[str, Run]:
        """Return the run of each condition by name; the first one is the reference.

        Parameters
        ----------
        base
            Run of one point of the grid.
        scratch
            The same run with random weights, and with the schedule that a preset has for random weights.
        """
        raise NotImplementedError

    @property
    def analysis_key(self) -> str:
        """Short text that distinguishes analyses of the same runs; part of the name of the output folder."""
        return ""

    @property
    def trains(self) -> bool:
        """Whether a damaged run is trained again; False for an ablation that analyses a stored run."""
        return True

    def expand_grid(self, points: list[dict[str, Any]], store: "Store") -> list[dict[str, Any]]:
        """Return the points of the grid to plan: `points`, more points, or the point of a stored run."""
        return points

    def compared_field(self, points: list[dict[str, Any]]) -> str:
        """Return the ``group__field`` whose values are the conditions, or "" if `conditions` defines them all."""
        return ""

    def check_plan(self, plan: "Plan") -> None:
        """Check that the options are valid for the data sets and networks of the plan, before training starts.

        Raises
        ------
        UserError
            If an option is not valid for a data set or a network.
        """

    def analyse(self, results: "OutputFolder") -> "pd.DataFrame":
        """Write tables and figures of the finished runs; return one row per condition, with a column ``condition``."""
        frame: pd.DataFrame = write_condition_report(results, title=self.title, subject=self.subject)
        return frame


def freeze_through(base: Run, block: str) -> Run:
    """Return the run frozen through a block of ``--freeze``: none, stem (or 0), 1 .. N, or last.

    Raises
    ------
    UserError
        If the network does not have this block.
    """
    stages = select_stages((block,), base.model.network, get_input_shape(base))
    return base.replace(model__freeze=stages[0]) if stages else base


def require_pretrained(base: Run) -> Run:
    """Return the run, after a check that it does not start from random weights.

    Raises
    ------
    UserError
        If it starts from random weights.
    """
    if base.model.weights == "random":
        raise UserError(
            "--weights random: this ablation compares --weights with random weights; give imagenet or a file"
        )
    return base
