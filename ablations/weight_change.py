"""What does fine-tuning change? Compare each layer before and after (Palanisamy et al. 2020, figure 2a)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ablations.base import Ablation, pretrained
from core.config.options import option
from core.config.run import Run
from core.registry import Lazy

if TYPE_CHECKING:
    import pandas as pd

    from analysis.output.folder import OutputFolder

compare_layers = Lazy("analysis.similarity.weight_change:compare_layers")


@dataclass(frozen=True)
class WeightChange(Ablation):
    """Measure how alike each layer's activations are before and after training, pretrained and from random weights.

    The same held-out clips go through the network as it started and as it ended. Next to every similarity stand the
    ranks kept, the number of datapoints, and a noise floor: the same index with clips mis-paired at random.

    Example: run_ablation.py weight-change --index svcca --layers all --data esc50 --data-root DIR
    """

    title: ClassVar[str] = "Layer"

    index: str = option("svcca", "Similarity index.", choices=("svcca", "pwcca", "cka", "procrustes"))
    layers: str = option("blocks", "Compare the output of every block, or of all layers.", choices=("blocks", "all"))
    positions: str = option(
        "fold",
        "Convolutional layers have channels as neurons; positions are folded into the datapoints, or pooled.",
        choices=("fold", "pool"),
    )

    @property
    def question(self) -> str:
        """Name the index and what it is taken of."""
        return f"{self.index}-{self.layers}-{self.positions}"

    def conditions(self, base: Run, scratch: Run) -> dict[str, Run]:
        """Train from the starting weights and from random ones."""
        return {"pretrained": pretrained(base), "random": scratch}

    def analyse(self, results: "OutputFolder") -> "pd.DataFrame":
        """Read the trained weights from the store and make the starting ones anew."""
        how = {"index": self.index, "layers": self.layers, "positions": self.positions}
        frame: pd.DataFrame = compare_layers(results, **how)
        return frame
