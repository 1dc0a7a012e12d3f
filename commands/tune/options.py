"""Which settings should training have? Search them on clips of the training folds, never on the test fold."""

from dataclasses import dataclass
from typing import ClassVar

from core.config.options import option


@dataclass(frozen=True)
class Tune:
    """Search the settings of fine-tuning: give options several values, or ranges such as 1e-5:1e-2.

    Every configuration is an ordinary run, chosen by its accuracy on validation clips that are held out of the
    training folds (--validation, here 0.2 by default); the test fold plays no part in the choice. A range is drawn
    from logarithmically where its end is at least ten times its beginning. With several folds or seeds a
    configuration has the mean of its runs.

    Example: run_ablation.py tune --lr 1e-5 1e-4 1e-3 --weight-decay 1e-4 1e-3 1e-2 --ray local
    """

    runs: ClassVar[str] = "commands.tune.run:search"
    prepares: ClassVar[str] = "commands.tune.run:prepare"
    plans: ClassVar[bool] = True  # has the options of a run
    searches: ClassVar[bool] = True  # options may be ranges
    alone: ClassVar[tuple[str, ...]] = ("data", "backbone")  # what a study that has several searches for each of

    frozen: str = option(
        "none",
        "Freeze every network through this stage: none, stem (or 0), 1 .. N, or last, for a head alone, of which "
        "hundreds of configurations are trained together in a minute.",
    )
    search: str = option(
        "grid",
        "grid: every combination of the values; random: draws; optuna: draws led by what earlier ones reached.",
        choices=("grid", "random", "optuna"),
    )
    trials: int = option(20, "Configurations to try (random, optuna).", at_least=1, at_most=10**5)
    search_seed: int = option(0, "Seed of the draws.", at_least=0)
    scheduler: str = option(
        "none",
        "asha: stop the poorer two thirds after 1, 3, 9, .. epochs; needs --ray.",
        choices=("none", "asha"),
    )
