"""Freeze the first blocks: which of them must adapt to sound? (Palanisamy et al. 2020, figure 2c.)"""

from dataclasses import dataclass

from ablations.depth import stages
from core.config import Run, option


@dataclass(frozen=True)
class Freeze:
    """Freeze the network from the stem through a block and fine-tune the rest.

    Each row of the table is one depth, against the reference with nothing frozen. A frozen block is frozen whole:
    no gradient reaches it and its batch norm is in evaluation mode. What a frozen prefix computes is computed once.

    Example: run_ablation.py freeze --block stem 1 2 3 4 --data urbansound8k --data-root DIR --fold all --seed 0 1 2
    """

    block: tuple[str, ...] = option((), "Last frozen block: stem (or 0), 1 .. N, or several of them (default: every).")

    xlabel = "Frozen through block"

    def conditions(self, base: Run) -> dict[str, Run]:
        """Map each condition's name to its run; the first is the reference."""
        return {"none": base} | {
            stage: base.replace(model__freeze=stage) for stage in stages(self.block, base.model.backbone)
        }
