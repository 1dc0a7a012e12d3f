"""What a command comes down to, so that a study can hold it: its runs, and what is made of them."""

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
    from analysis.output.folder import OutputFolder


@dataclass(frozen=True)
class Experiment:
    """The runs of one command, and its analysis.

    Attributes
    ----------
    plan
        The runs.
    question
        What is asked of them, where the same runs can be asked different things; "" otherwise.
    analyse
        Writes tables and figures from the store; returns one row for each condition.
    trains
        Whether what its analysis cannot read may be trained again.
    executes
        Whether its runs are to be there; not where only what they would be given is looked at.
    """

    plan: Plan
    analysis_key: str
    analyse: "Callable[[OutputFolder], pd.DataFrame]"
    trains: bool = True
    executes: bool = True


def list_experiment_commands() -> tuple[str, ...]:
    """Name the commands that are experiments: the ablations, and those that say what prepares them."""
    return tuple(name for name in COMMANDS if hasattr(COMMANDS[name], "prepares"))


def prepare_experiment(call: Call, session: Session) -> Experiment:
    """Plan a command; nothing is trained."""
    made: Experiment = pkgutil.resolve_name(call.command.prepares)(call, session)
    return made
