"""An experiment: the runs that a command plans, and the analysis of these runs."""

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from commands import COMMANDS
from commands.cli.parser import Call
from core.plan import Plan
from core.session import Session

if TYPE_CHECKING:
    from analysis.output.output_folder import OutputFolder


@dataclass(frozen=True)
class Experiment:
    """The runs of one command, and its analysis.

    Attributes
    ----------
    plan
        The runs.
    analysis_key
        Suffix of the results folder that depends on the options of the analysis, so that different analyses of the
        same runs have different folders; "" if there are none.
    analyse
        Function that writes tables and figures to an output folder and returns one row for each condition.
    trains
        Whether a run is trained again if the analysis cannot read its files.
    executes
        Whether the runs have to be trained. False for commands that only show the inputs of runs.
    """

    plan: Plan
    analysis_key: str
    analyse: "Callable[[OutputFolder], pd.DataFrame]"
    trains: bool = True
    executes: bool = True


def list_experiment_commands() -> tuple[str, ...]:
    """Return the names of the commands that a study can use: those whose class has the variable ``prepares``."""
    return tuple(name for name in COMMANDS if hasattr(COMMANDS[name], "prepares"))


def prepare_experiment(call: Call, session: Session) -> Experiment:
    """Plan the experiment of a command, without training."""
    experiment: Experiment = pkgutil.resolve_name(call.command.prepares)(call, session)
    return experiment
