"""Ablation that freezes the first blocks (Palanisamy et al. 2020, figure 2c)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ablations.base import Ablation
from core.config.options import option
from core.config.run import Run
from core.inputs.input_kind import get_input_shape
from core.models.stages import select_stages


@dataclass(frozen=True)
class Freeze(Ablation):
    """Freeze the network from the stem through a block and fine-tune the rest.

    Each row of the table is one freezing depth, compared with the reference in which nothing is frozen. A frozen block
    gets no gradient, and its batch norm and dropout are in evaluation mode unless --frozen-batch-norm train is given.

    Time is proportional to --epochs, to the image (--n-mels times --n-frames), to the clips (--max-clips-per-class), to
    the number of folds and seeds, and to the number of conditions (--block). Deep freezing is fast: the outputs of
    frozen blocks are computed once. Larger networks (--backbone) take longer; --quick chooses small values for a try.

    Examples
    --------
    run_ablation.py freeze --block 3
    run_ablation.py freeze --block 3 --quick
    run_ablation.py freeze --data urbansound8k --data-root DIR --fold all --seed 0 1 2
    run_ablation.py freeze --block last --backbone resnet18 resnet50 --lr 1e-3 1e-4
    run_ablation.py freeze --data folder --data-root my_recordings --dry-run
    """

    title: ClassVar[str] = "Frozen through block"
    subject: ClassVar[str] = "Freezing through {condition}"
    condition_words: ClassVar[Mapping[str, str]] = {"none": "nothing frozen"}

    block: tuple[str, ...] = option(
        (), "Last frozen block: stem (or 0), 1 .. N, or last; several values give one row each.", default_text="all"
    )

    def conditions(self, base: Run, scratch: Run) -> dict[str, Run]:
        """Return the unfrozen run, which is the reference, and one run frozen through each selected block."""
        stages = select_stages(self.block, base.model.network, get_input_shape(base))
        return {"none": base} | {stage: base.replace(model__freeze=stage) for stage in stages}
