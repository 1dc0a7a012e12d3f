"""Do networks that differ in their seed alone make a better one together? (Palanisamy et al. 2020, table II)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ablations.base import Ablation
from core.config.options import LARGEST, option
from core.config.run import Run
from core.errors import UserError
from core.registry import Lazy

if TYPE_CHECKING:
    import pandas as pd

    from analysis.output.folder import OutputFolder

compare_ensemble = Lazy("analysis.ensembles:compare_ensemble")


@dataclass(frozen=True)
class Ensemble(Ablation):
    """Average the softmax outputs of networks that differ in head initialisation and batch order only.

    The table sets one network (mean and deviation over the members) against the ensemble, with likelihood,
    calibration and disagreement; the figure shows accuracy against the number of members, over all subsets, or of
    thousands over some. Members are ordinary runs with the seeds --seed, --seed + 1 .. and are shared with every other
    ablation.

    Example: run_ablation.py ensemble --members 5 --data urbansound8k --data-root DIR --fold all
    """

    title: ClassVar[str] = "Network"

    members: int = option(5, "Networks in the ensemble.", at_least=2, at_most=1000)

    def conditions(self, base: Run, scratch: Run) -> dict[str, Run]:
        """Make one run for each member."""
        if base.seed + self.members - 1 > LARGEST:
            raise UserError(f"--seed {base.seed}: the members' seeds go on from it, and whole numbers go to {LARGEST}")
        return {f"member {k + 1}": base.replace(seed=base.seed + k) for k in range(self.members)}

    def analyse(self, results: "OutputFolder") -> "pd.DataFrame":
        """Average the members' outputs from the store."""
        frame: pd.DataFrame = compare_ensemble(results, title=self.title)
        return frame
