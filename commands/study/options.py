"""A report's experiments, all in one command, from its folder in ablations/studies."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import tyro

from core.config.options import option

RUNS = "commands.study.run:run_study"


@dataclass(frozen=True)
class Study:
    """Run every experiment of a report and set its tables and figures beside the published numbers.

    The plan and an estimate of its time, from a measured step of every different network, are shown first; --dry-run
    shows the steps too, and stops there. Options after the study's name hold for every experiment and replace the
    file's, so other data sets, backbones, folds and seeds are a word away.

    Example: run_ablation.py study rethinking-cnn --scale quick
    """

    name: Annotated[str, tyro.conf.Positional] = option("rethinking-cnn", "The study: a folder of ablations/studies.")
    scale: str = option("full", "full: as in the report; quick: under 15 minutes on two CPU cores, embedded data.")
    devices: int = option(
        1, "How many devices like this one the runs are shared out to, for what is said of their time.", at_least=1
    )

    runs: ClassVar[str] = RUNS
    plans: ClassVar[bool] = True  # has the options of a run
    trains: ClassVar[bool] = True


@dataclass(frozen=True)
class Figures:
    """Redraw every table and figure of a study from the store alone; runs that are missing show as missing.

    Example: run_ablation.py figures --for rethinking-cnn --scale quick
    """

    name: str = option("rethinking-cnn", "The study: a folder of ablations/studies.", flag="for")
    scale: str = option("full", "The scale the study was run with.")

    runs: ClassVar[str] = RUNS
    plans: ClassVar[bool] = True
    trains: ClassVar[bool] = False
