"""Comparison of pretrained and random weights (Palanisamy et al. 2020, table I)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ablations.base import Ablation, require_pretrained, write_condition_report
from core.config.run import Run

if TYPE_CHECKING:
    import pandas as pd

    from analysis.output.output_folder import OutputFolder


@dataclass(frozen=True)
class Pretraining(Ablation):
    """Train a network from pretrained weights and from random weights, with all other settings equal.

    With --preset paper both use the paper's schedules: 70 epochs, or 450 from random weights.

    Examples
    --------
    run_ablation.py pretraining --seed 0 1 2
    run_ablation.py pretraining --data esc50 --data-root DIR --fold all
    run_ablation.py pretraining --backbone resnet50 densenet201 --preset paper --data esc50 --data-root DIR --fold all
    """

    condition_words: ClassVar[Mapping[str, str]] = {"pretrained": "pretrained weights", "random": "random weights"}
    title: ClassVar[str] = "Weights"
    subject: ClassVar[str] = "Training from {condition} instead of {reference} weights"

    def conditions(self, base: Run, scratch: Run) -> dict[str, Run]:
        """Return the run from the starting weights, which is the reference, and the run from random weights."""
        return {"pretrained": require_pretrained(base), "random": scratch}

    def analyse(self, results: "OutputFolder") -> "pd.DataFrame":
        """Write the condition report with bars, because the conditions have no order."""
        frame: pd.DataFrame = write_condition_report(results, title=self.title, subject=self.subject, draw_bars=True)
        return frame
