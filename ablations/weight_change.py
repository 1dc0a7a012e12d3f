"""Similarity of each layer before and after fine-tuning (Palanisamy et al. 2020, figure 2a)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ablations.base import Ablation
from core.config.options import option
from core.config.run import Run
from core.errors import UserError
from core.registry import Lazy

if TYPE_CHECKING:
    import pandas as pd

    from analysis.output.output_folder import OutputFolder
    from core.plan import Plan

compare_layers = Lazy("analysis.similarity.weight_change:compare_layers")


@dataclass(frozen=True)
class WeightChange(Ablation):
    """Compare the activations of each layer before and after training, from pretrained and from random weights.

    With --weights random, only random weights are compared: before training, the network has the random weights of its
    seed.

    The same test clips pass through the network before and after training. The table shows the similarity of each
    layer, a noise floor (the similarity of randomly mis-paired clips), the similarity above that floor, and the number
    of directions, neurons and datapoints. It marks layers with fewer than 5 datapoints per neuron, whose similarity is
    high for any two networks.

    Examples
    --------
    run_ablation.py weight-change --similarity svcca
    run_ablation.py weight-change --similarity cka --layers all --data esc50 --data-root DIR
    run_ablation.py weight-change --spatial mean --backbone resnet18
    run_ablation.py weight-change --backbone net.py:make --weights random
    """

    condition_words: ClassVar[Mapping[str, str]] = {"pretrained": "pretrained weights", "random": "random weights"}
    title: ClassVar[str] = "Layer"

    similarity: str = option("svcca", "Similarity index.", choices=("svcca", "pwcca", "cka", "procrustes"))
    layers: str = option("blocks", "Compare the output of every block, or of all layers.", choices=("blocks", "all"))
    spatial: str = option(
        "flatten",
        "Spatial positions of convolutional layers, whose channels are the neurons. flatten: every position is a "
        "datapoint; mean: average over positions.",
        choices=("flatten", "mean"),
    )

    @property
    def analysis_key(self) -> str:
        """Index, layers and spatial mode."""
        return f"{self.similarity}-{self.layers}-{self.spatial}"

    def conditions(self, base: Run, scratch: Run) -> dict[str, Run]:
        """Return the runs from pretrained (the reference) and random weights; with ``--weights random`` only one."""
        if base.model.weights == "random":
            return {"random": scratch}
        return {"pretrained": base, "random": scratch}

    def check_plan(self, plan: "Plan") -> None:
        """Raise UserError for several values of ``--weights``, which the table could not tell apart."""
        if "weights" in plan.grid:
            raise UserError("--weights: give one value; random weights are always compared as well")

    def analyse(self, results: "OutputFolder") -> "pd.DataFrame":
        """Compare the trained weights from the store with the starting weights, which are created again."""
        options = {"index": self.similarity, "layers": self.layers, "spatial": self.spatial}
        frame: pd.DataFrame = compare_layers(results, **options)
        return frame
