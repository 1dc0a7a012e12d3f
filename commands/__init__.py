"""What can be said after ``python run_ablation.py``: one file per command, beside the ablations."""

from ablations import ABLATIONS
from core.registry import Registry

COMMANDS = Registry(
    "command",
    {  # a class whose fields are the command's options and whose docstring is its help
        **ABLATIONS.entries,
        "tune": "commands.tune.options:Tune",
        "study": "commands.study.options:Study",
        "figures": "commands.study.options:Figures",
        "data": "commands.data:Data",
        "network": "commands.network:Network",
        "samples": "commands.samples:Samples",
        "predict": "commands.predict.options:Predict",
        "report": "commands.report:Report",
    },
)
