"""Which blocks must adapt to sound? Freeze the first ones and see (Palanisamy et al. 2020, figure 2c)."""

from dataclasses import dataclass
from typing import ClassVar

from ablations.base import Ablation
from core.config.options import option
from core.config.run import Run
from core.inputs.input_of_run import input_shape
from core.models.stages import stages_named


@dataclass(frozen=True)
class Freeze(Ablation):
    """Freeze the network from the stem through a block and fine-tune the rest.

    Each row of the table is one depth, against the reference with nothing frozen. A frozen block is frozen whole:
    no gradient reaches it and its batch norm is in evaluation mode. What a frozen prefix computes is computed once.

    Example: run_ablation.py freeze --block stem 1 2 3 4 --data urbansound8k --data-root DIR --fold all --seed 0 1 2
    """

    title: ClassVar[str] = "Frozen through block"

    block: tuple[str, ...] = option(
        (), "Last frozen block: stem (or 0), 1 .. N, last, or several of them (default: every)."
    )

    def conditions(self, base: Run, scratch: Run) -> dict[str, Run]:
        """Freeze through each block asked for."""
        stages = stages_named(self.block, base.model.network, input_shape(base))
        return {"none": base} | {stage: base.replace(model__freeze=stage) for stage in stages}
