"""What every ablation's command does: plan, execute, analyse, and say where the results are."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
from rich.console import Console
from rich.table import Table

from analysis import figures, summary, tables
from analysis.formats import seconds
from core import datasets, options
from core.config import Execution, Run
from core.errors import UserError
from core.executor import execute, unfinished
from core.plan import Plan, make_plan
from core.progress import Reporter
from core.session import Session
from core.store import Store

INTERRUPTED = 130  # the shell's status for Ctrl-C


class Ablation(Protocol):
    """What an ablation's class provides; its fields are its options, its docstring is its help."""

    xlabel: str

    def conditions(self, base: Run) -> dict[str, Run]:
        """Map each condition's name to its run; the first is the reference."""


def run(name: str, ablation_class: type, chosen: Any) -> int:
    """Run an ablation's command.

    Parameters
    ----------
    name
        The command.
    ablation_class
        Its class.
    chosen
        The parsed options, an instance of what `core.options.command` makes of the class.

    Returns
    -------
    status
        0, or 1 where a run failed, or 130 where it was interrupted.
    """
    ablation = ablation_class(**{f.name: getattr(chosen, f.name) for f in dataclasses.fields(ablation_class)})
    execution = options.execution(chosen)
    console = Console(stderr=execution.json, highlight=False, soft_wrap=False)
    with Reporter() as report:
        session = Session(execution, report)
        plan = _plan(name, ablation, chosen, execution, session.store)
        if execution.dry_run:
            _show_plan(plan, session, console)
            return 0
        try:
            executed = execute(plan, session)
        except KeyboardInterrupt:
            left = len(unfinished(plan, session))
            report.note(f"Interrupted with {left} of {len(plan.runs)} runs to do; the same command goes on from here.")
            return INTERRUPTED
    frame = summary.summarise(plan, session.store)
    files = write_results(plan, ablation, frame, session.store)
    if execution.json:
        print(json.dumps({"ablation": name, "files": [str(f) for f in files], "rows": _json_rows(frame)}))  # noqa: T201
    _show(plan, ablation, frame, files, session.store, console)
    console.print(f"{executed.trained} runs trained, {executed.found} found in the store, {executed.failed} failed.")
    return 1 if executed.failed else 0


def write_results(plan: Plan, ablation: Ablation, frame: pd.DataFrame, store: Store) -> list[Path]:
    """Write the table and the figure of a plan to a folder of its own; return the files."""
    folder = store.results / plan.ablation / plan.name
    columns = summary.columns(frame, ablation.xlabel)
    files = tables.write_table(
        frame,
        folder / "table",
        columns=columns,
        caption=_caption(plan, ablation),
        label=f"tab:{plan.ablation}",
        footnotes=summary.footnotes(plan, store),
    )
    figure, ax = figures.new()
    reference = plan.planned[0].condition
    lines, series = summary.series(frame)
    figures.accuracy_by_condition(lines, ax, xlabel=ablation.xlabel, reference=reference, series=series)
    return files + figures.save(figure, folder / "figure", frame.drop(columns="run_ids"))


def _plan(name: str, ablation: Ablation, chosen: Any, execution: Execution, store: Store) -> Plan:
    points = options.grid(chosen)
    if execution.download:
        wanted = list(dict.fromkeys(point.get("data__name", Run().data.name) for point in points))
        if len(execution.data_root) != len(wanted):
            raise UserError("--download needs --data-root: one folder for each data set, to fetch it into")
        for dataset, root in zip(wanted, execution.data_root, strict=True):
            datasets.download(dataset, root)
    return make_plan(
        name,
        ablation.conditions,
        points,
        preset=options.preset(chosen),
        roots=execution.data_root,
        cache=store.cache,
    )


def _caption(plan: Plan, ablation: Ablation) -> str:
    first = plan.planned[0].run
    what = (type(ablation).__doc__ or "").strip().split("\n")[0].rstrip(".")
    return f"{what}: {first.model.backbone} ({first.model.weights} weights) on {first.data.name}."


def _show_plan(plan: Plan, session: Session, console: Console) -> None:
    table = Table(title=f"{plan.ablation}: {len(plan.runs)} runs")
    for title in ("Run", "Data", "Condition", "Backbone", "Weights", "Fold", "Seed", "Epochs", "State"):
        table.add_column(title)
    conditions = {planned.run.id: planned.condition for planned in plan.planned}
    for run in plan.runs:
        model, state = run.model, session.store.status(run)
        cells = (run.id, run.data.name, conditions[run.id], model.backbone, model.weights, run.data.fold, run.seed)
        table.add_row(*map(str, (*cells, run.training.epochs, state)))
    console.print(table)


def _show(
    plan: Plan, ablation: Ablation, frame: pd.DataFrame, files: list[Path], store: Store, console: Console
) -> None:
    console.print(tables.console_table(frame, summary.columns(frame, ablation.xlabel), title=_caption(plan, ablation)))
    for note in summary.footnotes(plan, store):
        console.print(note, style="dim")
    for file in files:
        console.print(f"  {file}", soft_wrap=True)
    total = sum(sum(record["seconds"].values()) for run in plan.runs if (record := _seconds(store, run)))
    console.print(f"All runs took {seconds(total)} of training; curves: tensorboard --logdir {store.runs}", soft_wrap=True)


def _seconds(store: Store, run: Run) -> dict[str, Any] | None:
    record = store.record(run)
    return record if record and "seconds" in record else None


def _json_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows with JSON's null for what is not a number."""

    def plain(value: Any) -> Any:
        if hasattr(value, "item"):
            value = value.item()
        return None if isinstance(value, float) and math.isnan(value) else value

    return [{str(key): plain(value) for key, value in row.items()} for row in frame.to_dict("records")]
