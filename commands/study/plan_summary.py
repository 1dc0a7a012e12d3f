"""What a study is going to do, before it does it: its runs, how long they take, and what they could find."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from analysis.output.number_format import format_milliseconds, format_seconds
from analysis.statistics.paired_comparisons import planned_power_note
from commands.cli.study_schema import ExperimentSpec, StudySpec
from commands.study.experiment import Experiment
from commands.study.time_estimate import TimeEstimate
from core.config.run import Run
from core.models.family import format_shape
from core.plan import Plan
from core.session import Session
from core.store.runs import FINISHED


def print_study_plan(
    recipe: StudySpec,
    entries: Sequence[ExperimentSpec],
    experiments: Sequence[Experiment],
    whole: Plan,
    session: Session,
    console: Console,
    *,
    devices: int = 1,
) -> None:
    """Say what is to be trained and how long that takes; in a dry run, also by what that is known.

    Parameters
    ----------
    recipe, entries, experiments
        The study, and what it is made of.
    whole
        All of its runs.
    session
        Where steps are measured.
    console
        Where it is shown.
    devices
        Like this session's, that the runs are shared out to.
    """
    missing = _untrained_runs(whole.runs, session)
    estimate = TimeEstimate(missing, whole, session) if missing else None
    table = Table(title=f"{recipe.title} ({recipe.source})", title_justify="left")
    for title in ("Item", "Command", "Runs", "To train", "Epochs", f"At most on {session.device}"):
        table.add_column(title, justify="left" if title in ("Item", "Command") else "right")
    for entry, experiment in zip(entries, experiments, strict=True):
        runs = experiment.plan.runs if experiment.executes else ()
        left = _untrained_runs(runs, session)
        took = format_seconds(sum(estimate.each(left))) if estimate and left else ""
        epochs = str(sum(run.training.epochs for run in left))
        table.add_row(entry.item, entry.command, str(len(runs)), str(len(left)), epochs, took)
    console.print(table)
    about = f", at most about {format_seconds(sum(estimate.each(missing)))} on {session.device}" if estimate else ""
    if estimate and devices > 1:
        about += f", {format_seconds(estimate.wall(missing, devices))} on {devices} such devices"
    console.print(f"{len(whole.runs)} different runs, {len(missing)} to train{about}.", soft_wrap=True)
    if session.execution.dry_run:
        if estimate:
            console.print(_make_step_table(estimate, session))
        _print_power(entries, experiments, session, console)


def _untrained_runs(runs: Sequence[Run], session: Session) -> list[Run]:
    return [run for run in runs if session.store.status(run) != FINISHED]


def _make_step_table(estimate: TimeEstimate, session: Session) -> Table:
    """Make the table of what was measured."""
    table = Table(title=f"Measured on {session.device} with {session.threads} CPU threads", title_justify="left")
    for title in ("Network", "Input", "Batch", "ms per step", "ms per clip evaluated"):
        table.add_column(title, justify="left" if title in ("Network", "Input") else "right")
    for subject, cost in estimate.costs.items():
        step, evaluated = 1000 * cost.training * subject.batch_size, 1000 * cost.evaluation
        cells = (
            format_shape(subject.shape),
            str(subject.batch_size),
            format_milliseconds(step),
            format_milliseconds(evaluated),
        )
        table.add_row(subject.network, *cells)
    return table


def _print_power(
    entries: Sequence[ExperimentSpec], experiments: Sequence[Experiment], session: Session, console: Console
) -> None:
    """Say how small a difference each experiment could find; what holds for several is said once."""
    items: dict[str, list[str]] = {}
    for entry, experiment in zip(entries, experiments, strict=True):
        if said := planned_power_note(experiment.plan, session.store):
            items.setdefault(said, []).append(entry.item)
    for said, of in items.items():
        console.print(f"{', '.join(of)}: {said}", style="dim")
