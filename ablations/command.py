"""What every ablation's command does: plan, execute, analyse, and say where the results are."""

import json
import math
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from ablations.base import Ablation
from analysis.formats import seconds
from analysis.results import Results
from core import datasets, options
from core.config import Execution, Run
from core.errors import UserError
from core.executor import execute, unfinished
from core.plan import Plan, make_plan
from core.progress import Reporter
from core.session import Session
from core.store import Store

INTERRUPTED = 130  # the shell's status for Ctrl-C


def run(name: str, ablation: Ablation, chosen: Any, *, command: str) -> int:
    """Run an ablation's command.

    Parameters
    ----------
    name
        The command.
    ablation
        Made from its own options.
    chosen
        All parsed options, an instance of what `core.options.command` makes of its class.
    command
        The words of the command line, for the record.

    Returns
    -------
    status
        0, or 1 where a run failed, or 130 where it was interrupted.
    """
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
    results = Results(plan, session, session.store.results / name / plan.name)
    frame = ablation.analyse(results)
    results.describe(command)
    _show(results, console)
    console.print(f"{executed.trained} runs trained, {executed.found} found in the store, {executed.failed} failed.")
    if execution.json:
        print(json.dumps({"ablation": name, "files": [str(f) for f in results.files], "rows": _json_rows(frame)}))  # noqa: T201
    return 1 if executed.failed else 0


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


def _show(results: Results, console: Console) -> None:
    for item in results.shown:
        console.print(item, style="dim" if isinstance(item, str) else None)
    for file in results.files:
        console.print(f"  {file}", soft_wrap=True)
    store = results.session.store
    records = [record for run in results.plan.runs if (record := store.record(run)) and "seconds" in record]
    total = sum(sum(record["seconds"].values()) for record in records)
    console.print(f"All runs took {seconds(total)}; their curves: tensorboard --logdir {store.runs}", soft_wrap=True)


def _json_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows with JSON's null for what is not a number."""

    def plain(value: Any) -> Any:
        if hasattr(value, "item"):
            value = value.item()
        return None if isinstance(value, float) and math.isnan(value) else value

    return [{str(key): plain(value) for key, value in row.items()} for row in frame.to_dict("records")]
