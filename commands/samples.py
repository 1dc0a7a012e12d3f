"""The `samples` command: what every class looks and sounds like, as a network is given it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rich.console import Console

from commands.cli import parser
from commands.cli.parser import Call
from core.config.options import option
from core.errors import UserError
from core.progress import Reporter
from core.registry import Lazy

if TYPE_CHECKING:
    import pandas as pd

    from analysis.output.folder import OutputFolder as Made
    from commands.study.experiment import Experiment
    from core.session import Session as Opened

# All of these import torch or pandas, which takes seconds.
planned = Lazy("commands.ablation:planned")
experiment = Lazy("commands.study.experiment:Experiment")
frame = Lazy("pandas:DataFrame")
Session = Lazy("core.session:Session")
OutputFolder = Lazy("analysis.output.folder:OutputFolder")
show_samples = Lazy("analysis.plots.input_samples:show_samples")


@dataclass(frozen=True)
class Samples:
    """Draw clips of every class as a network sees them, and put what it hears beside them as WAV files.

    Nothing is trained. All options of inputs hold, so that what they do can be looked at before anything is trained
    on it. The clips are of the fold that is tested on, the same ones at every call.

    Example: run_ablation.py samples --per-class 2 --data urbansound8k --data-root DIR
    """

    runs: ClassVar[str] = "commands.samples:run"
    prepares: ClassVar[str] = "commands.samples:prepare"
    plans: ClassVar[bool] = True

    per_class: int = option(1, "Clips of each class.", at_least=1, at_most=100)


def run(call: Call) -> int:
    """Draw the clips and say where the files are."""
    execution = parser.execution(call.options)
    console = Console(stderr=execution.json, highlight=False)
    with Reporter() as report:
        session = Session(execution, report)
        asked = prepare(call, session)
        results = OutputFolder(asked.plan, session, session.store.results / call.name / asked.plan.name)
        asked.analyse(results)
    results.describe(call.line)
    for line in results.written():
        console.print(f"  {line}", soft_wrap=True)
    return 0


def prepare(call: Call, session: "Opened") -> "Experiment":
    """Plan the run whose inputs are drawn; it is never trained."""
    plan = planned(call, lambda base, scratch: {"base": base}, parser.grid(call.options), session)
    if len(plan.runs) > 1:
        raise UserError(f"samples draws one kind of input, not {len(plan.runs)}: give every option a single value")

    def analyse(results: "Made") -> "pd.DataFrame":
        show_samples(results, per_class=call.command.per_class)
        nothing: pd.DataFrame = frame()
        return nothing

    made: Experiment = experiment(plan, "", analyse, trains=False, executes=False)
    return made
