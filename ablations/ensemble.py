"""Ensemble of networks that differ only in seed (Palanisamy et al. 2020, table II)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ablations.base import Ablation
from core.config.options import MAX_INTEGER, option
from core.config.run import Run
from core.errors import UserError
from core.registry import Lazy

if TYPE_CHECKING:
    import pandas as pd

    from analysis.output.output_folder import OutputFolder

write_ensemble_report = Lazy("analysis.ensembles:write_ensemble_report")


@dataclass(frozen=True)
class Ensemble(Ablation):
    """Average the softmax outputs of networks that differ only in seed.

    The seed decides head initialisation, batch order, dropout, SpecAugment masks, rotation and crops.
    The table compares single networks (mean and standard deviation) with the ensemble over the same folds: accuracy,
    with interval and p-value of the difference, likelihood, calibration and disagreement. The figure shows accuracy by
    number of members. Member k has the seed --seed + k, and members are shared with all other ablations.

    Examples
    --------
    run_ablation.py ensemble --members 5
    run_ablation.py ensemble --members 5 --data urbansound8k --data-root DIR --fold all
    run_ablation.py ensemble --members 10 --backbone resnet18
    """

    title: ClassVar[str] = "Network"

    members: int = option(5, "Number of networks in the ensemble.", at_least=2, at_most=1000)

    def conditions(self, base: Run, scratch: Run) -> dict[str, Run]:
        """Return one run per member, with consecutive seeds."""
        if base.seed + self.members - 1 > MAX_INTEGER:
            raise UserError(
                f"--seed {base.seed}: the seeds of all {self.members} members must be at most {MAX_INTEGER}"
            )
        return {f"member {k + 1}": base.replace(seed=base.seed + k) for k in range(self.members)}

    def analyse(self, results: "OutputFolder") -> "pd.DataFrame":
        """Write the tables and figures of single networks and of the ensemble."""
        frame: pd.DataFrame = write_ensemble_report(results, title=self.title)
        return frame
