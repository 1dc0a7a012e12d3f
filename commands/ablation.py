"""Run an ablation: plan, execute, analyse, and show the results."""

import json
import shlex
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.table import Table

from ablations.planning import PROGRAM_WORDS
from ablations.planning.call import Call
from ablations.planning.experiment import analyse_experiment, choose_analysis_folder, prepare
from ablations.planning.grid import read_execution_options
from ablations.planning.run_plan import execute_or_stop
from analysis.output.number_format import format_seconds, json_rows
from analysis.output.tables import align_columns, print_console_table
from analysis.statistics.paired_comparisons import planned_power_note
from commands.cli.console import EscapingConsole
from commands.cli.exit_handling import INTERRUPTED
from core.config.execution import ExecutionOptions
from core.executor import ExecutionSummary, unfinished_runs
from core.plan import Plan
from core.progress import Reporter
from core.session import Session
from core.training.time_left import TimeLeft, describe_time

if TYPE_CHECKING:
    import pandas as pd

    from analysis.output.output_folder import OutputFolder

MAX_TABLE_ROWS = 500  # longer tables are printed without a frame, because rich needs seconds to lay them out
UNKNOWN_TIME = "The time is not known yet; it is printed after the first training steps."
OPEN_FIRST = (  # the first two of these files that exist are named as the files to open first
    "summary.md",
    "figure.png",
    "maps.png",
    "table.md",
    "published.md",
    "statements.md",
)


def run(call: Call) -> int:
    """Run the command of an ablation.

    Returns
    -------
    status
        0, or 1 if a run failed, or 130 if interrupted.
    """
    settings = read_execution_options(call)
    console, out = EscapingConsole(stderr=settings.json, soft_wrap=False), sys.stdout
    with Reporter() as report, redirect_stdout(sys.stderr if settings.json else out):  # own networks may print
        session = Session(settings, report)
        experiment = prepare(call, session)
        plan = experiment.plan
        if settings.dry_run:
            with session.store.cached_records():
                show_plan(plan, session, console, out, note=planned_power_note(plan, session.store))
            return 0
        choose_analysis_folder(experiment, session)  # refuse a --name that is in use before training
        executed = execute_or_stop(plan, session)
        if executed is None:
            return INTERRUPTED
        results: OutputFolder
        results, frame, executed = analyse_experiment(experiment, session, executed)
    return conclude(results, frame, executed, console, command=call.line)


def conclude(
    results: "OutputFolder", frame: "pd.DataFrame", executed: ExecutionSummary, console: Console, *, command: str
) -> int:
    """Write ``analysis.json``, print the results and their folder, and return 1 if a run failed, otherwise 0."""
    results.write_description(command)
    for line in results.list_unused_styles():
        console.print(f"note: {line}", markup=False, soft_wrap=True)
    show_tables(results, console)
    console.print(f"Runs: {executed.trained} trained, {executed.found} found in the store, {executed.failed} failed.")
    show_times(results, console, new=executed.new)
    show_conclusion(results, console)
    show_report_command(results.session.execution, console)
    if results.session.execution.json:
        files = [str(f) for f in results.files]
        answer: dict[str, Any] = {"ablation": results.plan.ablation, "files": files, "sentences": results.sentences}
        answer |= {"quick": True} if results.plan.is_quick else {}
        print(json.dumps({**answer, "rows": json_rows(frame)}))  # noqa: T201
    return 1 if executed.failed else 0


def show_plan(plan: Plan, session: Session, console: Console, out: TextIO, *, note: str = "") -> None:
    """Print the runs of a plan with their states, and a note; with ``--json``, also write them to `out` as JSON."""
    rows = list_planned_runs(plan, session)
    title = f"{plan.ablation}: {len(rows)} runs{' with quick settings' * plan.is_quick}"
    header = ("Run", "Data", "Condition", "Backbone", "Weights", "Fold", "Seed", "Epochs", "State")
    cells = [[*map(str, row.values())] for row in rows]
    if len(rows) > MAX_TABLE_ROWS:
        console.print(f"{title}\n{align_columns(header, cells)}", markup=False, soft_wrap=True)
    else:
        table = Table(*header, title=title)
        table.columns[0].min_width = len(plan.runs[0].id) if rows else None  # never cut off ids
        for row in cells:
            table.add_row(*row)
        console.print(table)
    missing = unfinished_runs(plan, session)
    on_this_machine = session.execution.cluster.ray == ""
    seconds = TimeLeft(missing, plan.datasets, session).predict_seconds() if missing and on_this_machine else None
    if missing:
        known = "" if seconds is None else f"{describe_time(seconds, len(missing))} (from earlier runs)."
        console.print(known or UNKNOWN_TIME)
    if note:
        console.print(note, style="dim")
    if session.execution.json:
        out.write(json.dumps({"ablation": plan.ablation, "note": note, "seconds": seconds, "runs": rows}) + "\n")


def list_planned_runs(plan: Plan, session: Session) -> list[dict[str, str | int]]:
    """Return one dictionary per run of a plan: id, data set, condition, network, fold, seed, epochs and state."""
    conditions = {planned.run.id: planned.condition for planned in plan.planned}
    return [
        {
            "run": run.id,
            "data": run.data.name,
            "condition": conditions[run.id],
            "backbone": run.model.backbone,
            "weights": run.model.weights,
            "fold": run.data.fold,
            "seed": run.seed,
            "epochs": run.training.epochs,
            "state": session.store.status(run),
        }
        for run in plan.runs
    ]


def show_results(results: "OutputFolder", console: Console) -> None:
    """Print the tables, the training time, the sentences and the folder."""
    show_tables(results, console)
    show_times(results, console)
    show_conclusion(results, console)


def show_tables(results: "OutputFolder", console: Console) -> None:
    """Print the tables with their footnotes."""
    for item in results.console_output:
        if isinstance(item, Table):
            print_console_table(item, console)
        else:
            console.print(item, style="dim")


def show_times(results: "OutputFolder", console: Console, *, new: frozenset[str] = frozenset()) -> None:
    """Print the training time of the `new` runs, which this command trained, and of the runs found in the store."""
    store = results.session.store
    spent = {run.id: record.seconds.total for run in results.plan.runs if (record := store.finished(run))}
    now = sum(spent[id] for id in spent.keys() & new)
    times = [f"Training took {format_seconds(now)}."] if now else []
    if spent.keys() - new:
        times.append(
            f"The runs found in the store took {format_seconds(sum(spent.values()) - now)} when they were trained."
        )
    console.print(" ".join([*times, f"Learning curves: tensorboard --logdir {store.runs}"]), soft_wrap=True)


def show_conclusion(results: "OutputFolder", console: Console) -> None:
    """Print the sentence of each condition, the folder, and the files to open first."""
    for sentence in results.sentences:
        console.print(sentence, markup=False)
    names = {file.name for file in results.files if file.parent == results.folder}
    first = [name for name in OPEN_FIRST if name in names][:2] or sorted(names)[:1]
    hint = f"; open {' and '.join(first)} first" if first else ""
    console.print(f"Results: {results.folder} ({len(results.files)} files{hint})", markup=False, soft_wrap=True)


def show_report_command(execution: ExecutionOptions, console: Console) -> None:
    """Print the command that writes all results on one page, unless the results are outside the folder of the runs."""
    if execution.output:
        return
    folder = [] if execution.results == ExecutionOptions.results else ["--results", str(execution.results)]
    command = shlex.join([*PROGRAM_WORDS, "report", *folder])
    console.print(f"All results on one page: {command}", markup=False, soft_wrap=True)
