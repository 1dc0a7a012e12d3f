"""How deep must pretrained weights reach? Keep them up to a block (Palanisamy et al. 2020, figure 2b)."""

from dataclasses import dataclass
from typing import ClassVar

from ablations.base import Ablation
from core.config.options import option
from core.config.run import Run
from core.inputs.input_of_run import input_shape
from core.models.stages import has_plain_head, stages_named


@dataclass(frozen=True)
class Fusion(Ablation):
    """Start the network with pretrained weights up to a block and random ones after it, and train all of it.

    Each row of the table is one depth, from none to all; the reference keeps the pretrained weights everywhere.

    Example: run_ablation.py fusion --block stem 1 2 3 4 --data urbansound8k --data-root DIR --fold all --seed 0 1 2
    """

    title: ClassVar[str] = "Pretrained through block"

    block: tuple[str, ...] = option(
        (), "Last block with pretrained weights: none, stem (or 0), 1 .. N, last, or several of them (default: every)."
    )

    def conditions(self, base: Run, scratch: Run) -> dict[str, Run]:
        """Keep the pretrained weights through each block asked for, after the reference that keeps all of them.

        Where the head learns nothing but its classifier, which is new anyway, the last block is the reference itself.
        """
        backbone, shape = base.model.network, input_shape(base)
        stages = stages_named([block for block in self.block if block != "none"] or self.block, backbone, shape)
        none = ["none"] if not self.block or "none" in self.block else []
        last = stages_named((), backbone, shape)[-1]
        same = {last} if has_plain_head(backbone, shape, base.model.head) else set()
        return {"all": base} | {
            stage: base if stage in same else base.replace(model__fuse=stage) for stage in [*none, *stages]
        }
