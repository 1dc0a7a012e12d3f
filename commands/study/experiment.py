"""The commands that a study can use for its experiments, and how they plan them."""

import pkgutil

from ablations.planning.call import Call
from ablations.planning.experiment import Experiment
from commands import COMMANDS
from core.session import Session


def list_experiment_commands() -> tuple[str, ...]:
    """Return the names of the commands that a study can use: those whose class has the variable ``prepares``."""
    return tuple(name for name in COMMANDS if hasattr(COMMANDS[name], "prepares"))


def prepare_experiment(call: Call, session: Session) -> Experiment:
    """Plan the experiment of a command, without training."""
    experiment: Experiment = pkgutil.resolve_name(call.command.prepares)(call, session)
    return experiment
