"""Draw inputs of every class as the network receives them, and save them as sound."""

import json
import sys
from contextlib import redirect_stdout

import pandas as pd

from ablations.planning.call import Call
from ablations.planning.experiment import Experiment, plan_conditions
from ablations.planning.grid import make_grid, read_execution_options
from analysis.output.output_folder import OutputFolder
from analysis.output.results_index import choose_folder
from analysis.plots.input_samples import write_input_samples
from commands.ablation import show_conclusion, show_plan
from commands.cli.console import EscapingConsole
from core.errors import UserError
from core.progress import Reporter
from core.session import Session


def run(call: Call) -> int:
    """Draw the clips and print the folder of the files."""
    settings = read_execution_options(call)
    console, out = EscapingConsole(stderr=settings.json), sys.stdout
    with Reporter() as report, redirect_stdout(sys.stderr if settings.json else out):  # own networks may print
        session = Session(settings, report)
        experiment = prepare(call, session)
        if settings.dry_run:
            show_plan(experiment.plan, session, console, out)
            return 0
        default = f"{call.name}/{experiment.plan.name}"
        folder = choose_folder(session.store.output, default, settings.folder_name)
        results = OutputFolder(experiment.plan, session, folder, analysis=default)
        experiment.analyse(results)
    results.write_description(call.line)
    show_conclusion(results, console)
    if settings.json:
        print(json.dumps({"ablation": call.name, "files": [str(file) for file in results.files]}))  # noqa: T201
    return 0


def prepare(call: Call, session: Session) -> Experiment:
    """Plan the run whose inputs are drawn; it is never trained."""
    plan = plan_conditions(call, lambda base, scratch: {"base": base}, make_grid(call), session)
    if len(plan.runs) > 1:
        raise UserError(f"samples draws one kind of input, not {len(plan.runs)}: give every option a single value")

    def analyse(results: OutputFolder) -> pd.DataFrame:
        write_input_samples(results, per_class=call.command.per_class, time_axis=call.command.time_axis)
        return pd.DataFrame()

    return Experiment(plan, "", analyse, trains=False, executes=False)
