"""The commands that can be typed after ``python run_ablation.py``."""

from ablations import ABLATIONS
from core.registry import Registry

COMMANDS = Registry(
    "command",
    {  # the class of each command: its fields are the options, its docstring is the help text
        **ABLATIONS.entries,
        "study": "commands.study.options:Study",
        "tune": "commands.tune.options:Tune",
        "data": "commands.data.options:Data",
        "network": "commands.network.options:Network",
        "samples": "commands.samples.options:Samples",
        "runs": "commands.runs.options:Runs",
        "figures": "commands.figures.options:Figures",
        "predict": "commands.predict.options:Predict",
        "report": "commands.report.options:Report",
    },
)
OTHER_GROUPS = {  # commands by heading in the overview of ``--help``; all other commands are ablations
    "Studies and search": ("study", "tune"),
    "Inspect": ("data", "network", "samples"),
    "Use finished runs": ("runs", "figures", "predict", "report"),
}


def grouped_commands() -> dict[str, tuple[str, ...]]:
    """Return the names of all commands by heading in the overview of ``--help``."""
    others = {name for names in OTHER_GROUPS.values() for name in names}
    return {"Ablations": tuple(name for name in COMMANDS if name not in others), **OTHER_GROUPS}
