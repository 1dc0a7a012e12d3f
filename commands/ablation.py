"""Run an ablation: plan, execute, analyse, and show the results."""

import json
import sys
from contextlib import redirect_stdout
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.table import Table

import ablations
from ablations.base import Ablation
from analysis.output.number_format import format_seconds, json_rows
from analysis.output.tables import align_columns, print_console_table
from analysis.statistics.paired_comparisons import planned_power_note
from commands.cli import study_schema
from commands.cli.console import EscapingConsole
from commands.cli.exit_handling import INTERRUPTED
from commands.cli.grid import find_ignored_options, make_grid, read_execution_options, read_preset_option
from commands.cli.parser import Call
from commands.cli.run_plan import analyse_with_repair, execute_or_stop
from commands.study.experiment import Experiment
from core import datasets
from core.config.run import Run
from core.datasets.dataset import Dataset
from core.errors import UserError
from core.executor import ExecutionSummary
from core.inference.precision import check_precision, effective_precision
from core.plan import Conditions, Plan, list_dataset_notes, list_untrained_classes, make_plan
from core.progress import Reporter
from core.registry import Lazy
from core.session import Session
from core.system.atomic_files import text_digest
from core.training.fit_input_transform import count_components
from core.training.load_inputs import load_plain_inputs, split_rows

if TYPE_CHECKING:
    import pandas as pd

    from analysis.output.output_folder import OutputFolder

make_output_folder = Lazy("analysis.output.output_folder:OutputFolder")  # imports matplotlib
load_all_published = Lazy("analysis.published.numbers:load_all_published")
write_published_comparison = Lazy("analysis.published.comparison:write_published_comparison")
LOCAL = ("", "local")  # values of --ray that train on this machine
MAX_TABLE_ROWS = 500  # longer tables are printed without a frame, because rich needs seconds to lay them out
OPEN_FIRST = (  # candidates for the two files to open first
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
    with Reporter() as report, redirect_stdout(sys.stderr if settings.json else out):  # a network may print
        session = Session(settings, report)
        experiment = prepare(call, session)
        plan = experiment.plan
        if settings.dry_run:
            with session.store.cached_records():
                show_plan(plan, session, console, out, note=planned_power_note(plan, session.store))
            return 0
        executed = execute_or_stop(plan, session)
        if executed is None:
            return INTERRUPTED
        folder = "-".join(filter(None, (plan.name, experiment.analysis_key)))
        results_folder = session.store.output / call.name / folder

        def analyse() -> "tuple[OutputFolder, pd.DataFrame]":
            results = make_output_folder(plan, session, results_folder, published_as=settings.published_as)
            return results, experiment.analyse(results)

        (results, frame), executed = analyse_with_repair(analyse, plan, session, executed, again=experiment.trains)
        studies = load_all_published(ablations.STUDIES_FOLDER)
        for (study, item), commands in sorted(study_schema.commands_by_item().items()):
            if call.name not in commands or study not in studies:
                continue
            name = f"published-{study_schema.folder_name(f'{study} {item}')}"
            folder_of_studies = ablations.STUDIES_FOLDER
            write_published_comparison(
                results, frame, study, item, title=study, folder=folder_of_studies, name=name, in_study=False
            )
    return conclude(results, frame, executed, console, command=call.line)


def prepare(call: Call, session: Session) -> Experiment:
    """Plan the command of an ablation."""
    ablation: Ablation = call.command
    points = ablation.expand_grid(make_grid(call), session.store)
    plan = plan_conditions(call, ablation.conditions, points, session, by=ablation.compared_field(points))
    ablation.check_plan(plan)
    for line in find_ignored_options(call, plan.runs):
        session.report.note(line)
    return Experiment(plan, ablation.analysis_key, ablation.analyse, trains=ablation.trains)


def conclude(
    results: "OutputFolder", frame: "pd.DataFrame", executed: ExecutionSummary, console: Console, *, command: str
) -> int:
    """Show the results and their folder; return 1 if a run failed, otherwise 0."""
    results.write_description(command)
    show_results(results, console, new=executed.new)
    console.print(f"Runs: {executed.trained} trained, {executed.found} found in the store, {executed.failed} failed.")
    if results.session.execution.json:
        files = [str(f) for f in results.files]
        answer = {"ablation": results.plan.ablation, "files": files, "sentences": results.sentences}
        print(json.dumps({**answer, "rows": json_rows(frame)}))  # noqa: T201
    return 1 if executed.failed else 0


def plan_conditions(
    call: Call, conditions: Conditions, points: list[dict[str, Any]], session: Session, *, by: str = ""
) -> Plan:
    """Plan the conditions at the points of a grid, after downloading data sets with ``--download``."""
    settings = read_execution_options(call)  # in a study, the session has the settings of another experiment
    if settings.download:
        names = list(dict.fromkeys(point.get("data__name", Run().data.name) for point in points))
        if len(settings.data_root) != len(names):
            raise UserError("--download needs --data-root: one folder for each data set")
        for dataset, root in zip(names, settings.data_root, strict=True):
            datasets.download_dataset(dataset, root, session.report)
    plan = make_plan(
        call.name,
        conditions,
        points,
        by=by,
        preset=read_preset_option(call),
        roots=settings.data_root,
        cache=session.store.cache,
        finalise=partial(fill_in_run, session=session),
        progress=session.report,
    )
    if settings.published_as and len(plan.datasets) > 1:
        raise UserError(f"--published-dataset {settings.published_as}: names one data set, not {len(plan.datasets)}")
    for line in [*list_dataset_notes(plan), *list_untrained_classes(plan)]:
        session.report.note_once(line)  # the plans of a study share their data sets
    for line in _precision_notes(points, session):
        session.report.note(line)
    return plan


def _precision_notes(points: list[dict[str, Any]], session: Session) -> list[str]:
    """Return a note for each precision of the grid that a CPU replaces by fp32."""
    if session.device.type != "cpu" or session.execution.cluster.ray not in LOCAL:
        return []
    precisions = {str(point.get("training__precision", "fp32")) for point in points}
    return [
        f"--precision {name} is for a GPU: this CPU computes in fp32" for name in sorted(precisions & {"fp16", "tf32"})
    ]


def fill_in_run(run: Run, dataset: Dataset, *, session: Session) -> Run:
    """Fill in the fields of a run that depend on the machine and on the clips.

    Precision: a CPU computes in fp32 or bf16 only (on a cluster the workers decide). Unreadable clips and the number of
    principal components: they are known once the inputs are computed, which training needs anyway.
    """
    execution = session.execution
    if session.device.type == "cpu" and execution.cluster.ray in LOCAL:
        check_precision(run.training.precision, session.device)
        run = run.replace(training__precision=effective_precision(run.training.precision, session.device))
    if execution.on_bad_clip == "skip" and (bad := load_plain_inputs(run, dataset, session).unusable):
        run = run.replace(data__left_out=text_digest("\n".join(path for path, _ in bad)))
    if run.frontend.pca:
        images = load_plain_inputs(run, dataset, session)
        run = run.replace(frontend__components=count_components(run, images, split_rows(run, dataset, images)))
    return run


def show_plan(plan: Plan, session: Session, console: Console, out: TextIO, *, note: str = "") -> None:
    """Print the runs of a plan with their states and a note; with ``--json`` also as one JSON object to `out`."""
    rows = list_planned_runs(plan, session)
    title = f"{plan.ablation}: {len(rows)} runs"
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
    if note:
        console.print(note, style="dim")
    if session.execution.json:
        out.write(json.dumps({"ablation": plan.ablation, "note": note, "runs": rows}) + "\n")


def list_planned_runs(plan: Plan, session: Session) -> list[dict[str, str | int]]:
    """Return id, data set, condition, network, fold, seed, epochs and state of the runs of a plan."""
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


def show_results(results: "OutputFolder", console: Console, *, new: frozenset[str] = frozenset()) -> None:
    """Show the tables, the folder, and the training time of the `new` runs and of the runs found in the store."""
    show_items(results, console)
    store = results.session.store
    spent = {run.id: record.seconds.total for run in results.plan.runs if (record := store.finished(run))}
    now = sum(spent[id] for id in spent.keys() & new)
    times = [f"Training took {format_seconds(now)}."] if now else []
    if spent.keys() - new:
        times.append(
            f"The runs found in the store took {format_seconds(sum(spent.values()) - now)} when they were trained."
        )
    console.print(" ".join([*times, f"Curves: tensorboard --logdir {store.runs}"]), soft_wrap=True)


def show_items(results: "OutputFolder", console: Console) -> None:
    """Show the tables and the folder."""
    for item in results.console_output:
        if isinstance(item, Table):
            print_console_table(item, console)
        else:
            console.print(item, style="dim")
    for sentence in results.sentences:
        console.print(sentence, markup=False)
    show_folder(results, console)


def show_folder(results: "OutputFolder", console: Console) -> None:
    """Print the folder of the results and the files to open first."""
    names = {file.name for file in results.files if file.parent == results.folder}
    first = [name for name in OPEN_FIRST if name in names][:2] or sorted(names)[:1]
    hint = f"; open {' and '.join(first)} first" if first else ""
    console.print(f"Results: {results.folder} ({len(results.files)} files{hint})", markup=False, soft_wrap=True)
