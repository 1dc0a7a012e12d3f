"""Ablation that keeps pretrained weights up to a block (Palanisamy et al. 2020, figure 2b)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ablations.base import Ablation
from core.config.options import option
from core.config.run import Run
from core.inputs.input_kind import get_input_shape
from core.models.stages import has_plain_head, select_stages


@dataclass(frozen=True)
class Fusion(Ablation):
    """Keep pretrained weights up to a block, start the rest from random weights, and train everything.

    Each row of the table is one depth, from none to all; the reference keeps all pretrained weights.

    Examples
    --------
    run_ablation.py fusion --block 2
    run_ablation.py fusion --data urbansound8k --data-root DIR --fold all --seed 0 1 2
    run_ablation.py fusion --block none stem 1 2 --preset paper --data esc50 --data-root DIR
    """

    title: ClassVar[str] = "Pretrained through block"
    condition_words: ClassVar[Mapping[str, str]] = {"all": "all blocks pretrained", "none": "no block pretrained"}
    subject: ClassVar[str] = "Keeping the pretrained weights through {condition} only"

    block: tuple[str, ...] = option(
        (),
        "Last block with pretrained weights: none, stem (or 0), 1 .. N, or last; several values give one row each.",
        default_text="all",
    )

    def conditions(self, base: Run, scratch: Run) -> dict[str, Run]:
        """Return the reference, which keeps all pretrained weights, and one run for each selected block.

        If the head is only a classifier, which always starts from random weights, the last block equals the reference.
        """
        backbone, shape = base.model.network, get_input_shape(base)
        stages = select_stages([block for block in self.block if block != "none"] or self.block, backbone, shape)
        none = ["none"] if not self.block or "none" in self.block else []
        last = select_stages((), backbone, shape)[-1]
        same = {last} if has_plain_head(backbone, shape, base.model.head) else set()
        return {"all": base} | {
            stage: base if stage in same else base.replace(model__fuse=stage) for stage in [*none, *stages]
        }
