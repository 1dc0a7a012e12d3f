"""The options of the `study` command."""

from dataclasses import dataclass
from typing import ClassVar

from core.config.options import option


@dataclass(frozen=True)
class Study:
    """Run every experiment of a paper and compare the results with its published numbers.

    First the plan and a time estimate are printed; for the estimate, one training step of each network is measured.
    With --dry-run, the settings of each experiment follow, and nothing is trained.
    Options of the command line apply to every experiment and override those of study.toml.

    Examples
    --------
    run_ablation.py study rethinking-cnn --scale quick
    run_ablation.py study rethinking-cnn --scale quick --dry-run
    run_ablation.py study rethinking-cnn --data urbansound8k --data-root DIR --fold all --seed 0 1 2
    run_ablation.py study rethinking-cnn --scale quick --figures-only
    """

    runs: ClassVar[str] = "commands.study.run:run_study"
    plans: ClassVar[bool] = True  # has the options of a run

    name: str = option(
        "rethinking-cnn", "Name of the study: a folder in ablations/studies.", flag="study", positional=True
    )
    scale: str = option("full", "Scale. full: as in the paper; quick: under 15 minutes on two CPU cores.")
    figures_only: bool = option(
        False, "Train nothing: redraw tables and figures from the store; missing runs are shown as missing."
    )
    devices: int = option(
        1,
        "Assume this many identical devices when estimating the time.",
        flag="estimate-devices",
        at_least=1,
    )

    @property
    def trains(self) -> bool:
        """Whether missing runs are trained."""
        return not self.figures_only
