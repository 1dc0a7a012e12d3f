"""Summary of a study before it runs: its runs, the time they take, and the differences they can detect."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from ablations.planning.experiment import Experiment
from ablations.planning.study_schema import ExperimentSpec, StudySpec
from analysis.output.number_format import format_milliseconds, format_seconds
from analysis.statistics.paired_comparisons import planned_power_note
from commands.study.time_estimate import TimeEstimate
from core.config.run import Run
from core.models.family import format_shape
from core.plan import Plan
from core.session import Session
from core.store.run_store import FINISHED


def print_study_plan(
    study: StudySpec,
    specs: Sequence[ExperimentSpec],
    experiments: Sequence[Experiment],
    plan: Plan,
    session: Session,
    console: Console,
    *,
    devices: int = 1,
) -> dict[str, Any]:
    """Print the runs to train and a time estimate; in a dry run also the measurements behind it and the power.

    Parameters
    ----------
    study
        The study.
    specs, experiments
        Its experiments as written in the file, and as planned; in the same order.
    plan
        All runs of the study.
    session
        Session whose device the training steps are measured on.
    console
        Console to print to.
    devices
        Number of devices like that of `session`, for the time estimate.

    Returns
    -------
    dict
        The printed numbers, in JSON types. Seconds are None if nothing is to be trained.
    """
    untrained = _untrained_runs(plan.runs, session)
    estimate = TimeEstimate(untrained, plan, session) if untrained else None
    table = Table(title=f"{study.title} ({study.source})", title_justify="left")
    for title in ("Item", "Command", "Runs", "To train", "Epochs", f"At most on {session.device}"):
        table.add_column(title, justify="left" if title in ("Item", "Command") else "right")
    rows: list[dict[str, Any]] = []
    for spec, experiment in zip(specs, experiments, strict=True):
        runs = experiment.plan.runs if experiment.executes else ()
        to_train = _untrained_runs(runs, session)
        seconds = sum(estimate.run_seconds(to_train)) if estimate and to_train else None
        epochs = sum(run.training.epochs for run in to_train)
        time = "" if seconds is None else format_seconds(seconds)
        table.add_row(spec.item, spec.command, str(len(runs)), str(len(to_train)), str(epochs), time)
        ids = [run.id for run in runs]
        counts = {"to_train": len(to_train), "epochs": epochs, "seconds": seconds}
        rows.append({"item": spec.item, "command": spec.command, "runs": ids, **counts})
    console.print(table)
    time, total = "", None
    if estimate:
        total = sum(estimate.run_seconds(untrained))
        time = f", at most about {format_seconds(total)} on {session.device}"
        if devices > 1:
            time += f", {format_seconds(estimate.wall_seconds(untrained, devices))} on {devices} such devices"
    console.print(f"{len(plan.runs)} different runs, {len(untrained)} to train{time}.", soft_wrap=True)
    if session.execution.dry_run:
        if estimate:
            console.print(_make_step_table(estimate, session))
        _print_power(specs, experiments, session, console)
    return {"runs": len(plan.runs), "to_train": len(untrained), "seconds": total, "experiments": rows}


def _untrained_runs(runs: Sequence[Run], session: Session) -> list[Run]:
    return [run for run in runs if session.store.status(run) != FINISHED]


def _make_step_table(estimate: TimeEstimate, session: Session) -> Table:
    """Return the table of measured times, one row for each network."""
    table = Table(title=f"Measured on {session.device} with {session.threads} CPU threads", title_justify="left")
    for title in ("Network", "Input", "Batch", "ms per step", "ms per clip evaluated"):
        table.add_column(title, justify="left" if title in ("Network", "Input") else "right")
    for key, cost in estimate.costs.items():
        table.add_row(
            key.network,
            format_shape(key.shape),
            str(key.batch_size),
            format_milliseconds(1000 * cost.training * key.batch_size),
            format_milliseconds(1000 * cost.evaluation),
        )
    return table


def _print_power(
    specs: Sequence[ExperimentSpec], experiments: Sequence[Experiment], session: Session, console: Console
) -> None:
    """Print the smallest difference that each experiment can detect; experiments with the same note share a line."""
    items: dict[str, list[str]] = {}
    for spec, experiment in zip(specs, experiments, strict=True):
        if note := planned_power_note(experiment.plan, session.store):
            items.setdefault(note, []).append(spec.item)
    for note, names in items.items():
        console.print(f"{', '.join(names)}: {note}", style="dim")
