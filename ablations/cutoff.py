"""Ablation that removes the last blocks (Palanisamy et al. 2020, section IV.B)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ablations.base import Ablation, write_condition_report
from core.config.options import option
from core.config.run import Run
from core.inputs.input_kind import get_input_shape
from core.models.stages import select_stages
from core.registry import Lazy

if TYPE_CHECKING:
    import pandas as pd

    from analysis.output.output_folder import OutputFolder

costs = Lazy("analysis.network_cost")


@dataclass(frozen=True)
class Cutoff(Ablation):
    """Remove all blocks after a block, add a new head, and train everything.

    Each row of the table is one cut, compared with the whole network: accuracy, parameters, multiply-adds and the
    prediction time of one clip.

    Examples
    --------
    run_ablation.py cutoff --block 3 2
    run_ablation.py cutoff --data esc50 --data-root DIR --fold all
    run_ablation.py cutoff --backbone densenet201 --data esc50 --data-root DIR --seed 0 1 2
    """

    title: ClassVar[str] = "Kept through block"
    subject: ClassVar[str] = "Cutting the network off after {condition}"

    block: tuple[str, ...] = option(
        (), "Last block to keep: stem (or 0), 1 .. N-1; several values give one row each.", default_text="all"
    )

    def conditions(self, base: Run, scratch: Run) -> dict[str, Run]:
        """Return the whole network, which is the reference, and one network cut after each selected block."""
        *stages, last = select_stages((), base.model.network, get_input_shape(base))
        selected = select_stages(self.block, base.model.network, get_input_shape(base))
        return {last: base} | {stage: base.replace(model__cut=stage) for stage in stages if stage in selected}

    def analyse(self, results: "OutputFolder") -> "pd.DataFrame":
        """Write the condition report with parameters, multiply-adds and latency."""
        frame: pd.DataFrame = write_condition_report(
            results,
            title=self.title,
            subject=self.subject,
            add_columns=costs.add_costs,
            columns=costs.COLUMNS,
            notes=[costs.describe_latency(results.session)],
        )
        return frame
