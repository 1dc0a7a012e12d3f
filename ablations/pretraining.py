"""Do pretrained weights help on sound? (Palanisamy et al. 2020, table I)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ablations.base import Ablation, compare, pretrained
from core.config.run import Run

if TYPE_CHECKING:
    import pandas as pd

    from analysis.output.folder import OutputFolder


@dataclass(frozen=True)
class Pretraining(Ablation):
    """Train a network from its pretrained weights and from random ones, with nothing else different.

    With --preset paper each has its own schedule, as in the report: 70 epochs, and 450 from random weights.

    Example: run_ablation.py pretraining --backbone resnet50 densenet201 inception_v3 --preset paper --data esc50
    --data-root DIR --fold all
    """

    title: ClassVar[str] = "Weights"

    def conditions(self, base: Run, scratch: Run) -> dict[str, Run]:
        """Compare the starting weights with random ones."""
        return {"pretrained": pretrained(base), "random": scratch}

    def analyse(self, results: "OutputFolder") -> "pd.DataFrame":
        """Draw bars: there is no depth to walk along."""
        frame: pd.DataFrame = compare(results, title=self.title, bars=True)
        return frame
