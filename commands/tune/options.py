"""Options of the command ``tune``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from core.config.options import option

VALIDATION = 0.2  # fraction of the training folds held out, if --validation is not given


@dataclass(frozen=True)
class Tune:
    """Search training settings on validation clips: give an option several values, or a range such as 1e-5:1e-2.

    Each configuration is an ordinary run. Configurations are ranked by accuracy on validation clips, which are held out
    of the training folds. No test accuracy is shown before the best configuration is chosen. A range is sampled
    logarithmically if its end is at least ten times its start.

    With several folds or seeds, a configuration is ranked by the mean of its runs. The validation clips of one fold are
    then test clips of another. The test accuracy is therefore computed by nested cross-validation: in each fold, the
    configuration that is best on the validation clips of this fold is tested on its test clips.

    Examples
    --------
    run_ablation.py tune --lr 1e-4 1e-3 1e-2
    run_ablation.py tune --lr 1e-5:1e-2 --weight-decay 1e-5:1e-2 --search random --trials 30
    run_ablation.py tune --lr 1e-5:1e-2 --dropout 0:0.5 --search optuna --scheduler asha --ray local
    """

    runs: ClassVar[str] = "commands.tune.run:search"
    prepares: ClassVar[str] = "commands.tune.run:prepare"
    plans: ClassVar[bool] = True  # has the options of a run
    searches: ClassVar[bool] = True  # options may be ranges
    alone: ClassVar[tuple[str, ...]] = ("data", "backbone")  # a study runs a separate search for each value of these
    defaults: ClassVar[Mapping[str, Any]] = {"data__validation": VALIDATION}

    freeze: str = option(
        "none",
        "Freeze every network through this stage: none, stem (or 0), 1 .. N, or last (trains the head alone; hundreds "
        "of configurations take a minute).",
    )
    search: str = option(
        "grid",
        "Search method. grid: all combinations of the values; random: random configurations; optuna: configurations "
        "suggested by Optuna from earlier results.",
        choices=("grid", "random", "optuna"),
    )
    trials: int = option(20, "Number of configurations (random, optuna).", at_least=1, at_most=10**5)
    search_seed: int = option(0, "Random seed of the search.", at_least=0)
    scheduler: str = option(
        "none",
        "Early stopping of trials. asha: stop the worse two thirds after 1, 3, 9, .. epochs; needs --ray.",
        choices=("none", "asha"),
    )
