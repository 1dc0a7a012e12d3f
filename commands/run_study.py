"""Make a study true: one plan of all its experiments, then every table and figure, beside the published numbers."""

import dataclasses
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

from ablations import ABLATIONS
from ablations.base import Ablation
from analysis.formats import percent, seconds
from analysis.published import beside, published, studies
from analysis.results import Results
from analysis.tables import Column
from commands import options
from commands.ablation import planned, show_results
from commands.execution import INTERRUPTED, execute_or_stop
from commands.options import Call
from commands.study import Experiment, Figures, Recipe, Study, join_words, read_study, split_words
from core.config import Run
from core.executor import Executed
from core.files import short_digest, write_text
from core.inputs import input_shape
from core.models.assembly import make_backbone
from core.plan import Plan
from core.progress import Reporter
from core.session import Session
from core.store import FINISHED

PUBLISHED = (
    Column("data", "Data"),
    Column("backbone", "Backbone"),
    Column("condition", "Condition"),
    Column("metric", "Metric"),
    Column("ours", "Ours %", percent, std="ours_std"),
    Column("published", "Published %", percent, std="published_std", mark="approximate"),
)
FOOTNOTE = (
    "Published: the report's own number, accuracies of the best epoch on the validation fold; ours: of the last epoch. "
    "'about': stated in words."
)


@dataclasses.dataclass(frozen=True)
class Job:
    """An experiment, ready to be planned."""

    experiment: Experiment
    call: Call

    @property
    def ablation(self) -> Ablation:
        """What the experiment does."""
        made: Ablation = self.call.command
        return made


def run_study(call: Call) -> int:
    """Run a study's command; return the exit status, as `commands.ablation.run`.

    Parameters
    ----------
    call
        The command line.
    """
    study: Study | Figures = call.command
    given = split_words(call.arguments[1:])
    for flag in ("scale", "for"):
        given.pop(flag, None)
    recipe = read_study(study.name, study.scale, given)
    made = {e.command: options.option_class(ABLATIONS[e.command]) for e in recipe.experiments}
    jobs = [_job(experiment, made) for experiment in recipe.experiments]
    execution = options.execution(jobs[0].call.options)
    console = Console(stderr=execution.json, highlight=False)
    with Reporter() as report:
        session = Session(execution, report)
        plans = [planned(job.call, job.ablation.conditions, options.grid(job.call.options), session) for job in jobs]
        whole = _joined(recipe.name, plans)
        _show_plan(recipe, plans, whole, session, console)
        if execution.dry_run:
            return 0
        executed = execute_or_stop(whole, session) if study.trains else Executed(0, len(whole.runs), 0)
        if executed is None:
            return INTERRUPTED
        folder = folder_of(study, jobs, plans, session.store.results)
        frames = {}
        for job, plan in zip(jobs, plans, strict=True):
            results = Results(plan, session, folder / slug(job.experiment.item))
            frames[job.experiment.item] = _analyse(recipe, job, results, console)
        page = Results(whole, session, folder)
        _overview(recipe, frames, page, console, command=call.line)
    return 1 if executed.failed else 0


def _job(experiment: Experiment, made: Mapping[str, type]) -> Job:
    """Parse an experiment's options; one that only another command of the study has is passed over, not refused."""
    own = options.flags(made[experiment.command])
    elsewhere = {flag for cls in made.values() for flag in options.flags(cls)} - set(own)
    kept = {flag: values for flag, values in experiment.options.items() if f"--{flag}" not in elsewhere}
    words = [experiment.command, *join_words(kept)]
    return Job(experiment, options.call(ABLATIONS, words))


def folder_of(study: Study | Figures, jobs: Sequence[Job], plans: Sequence[Plan], results: Path) -> Path:
    """Return a folder of its own for every different set of questions, the same for the same one."""
    text = "\n".join(f"{plan.name} {job.ablation.question}" for job, plan in zip(jobs, plans, strict=True))
    return results / "studies" / study.name / f"{study.scale}-{short_digest(text)}"


def _joined(name: str, plans: Sequence[Plan]) -> Plan:
    runs = tuple(one for plan in plans for one in plan.planned)
    return Plan(name, runs, {key: dataset for plan in plans for key, dataset in plan.datasets.items()})


def _show_plan(recipe: Recipe, plans: Sequence[Plan], whole: Plan, session: Session, console: Console) -> None:
    table = Table(title=f"{recipe.title} ({recipe.source})", title_justify="left")
    for title in ("Item", "Command", "Runs", "To train"):
        table.add_column(title)
    for experiment, plan in zip(recipe.experiments, plans, strict=True):
        left = sum(session.store.status(run) != FINISHED for run in plan.runs)
        table.add_row(experiment.item, experiment.command, str(len(plan.runs)), str(left))
    console.print(table)
    missing = [run for run in whole.runs if session.store.status(run) != FINISHED]
    about = f", at most about {seconds(estimate(missing, whole, session))} on {session.device}" if missing else ""
    console.print(f"{len(whole.runs)} different runs, {len(missing)} to train{about}.")


def estimate(runs: Sequence[Run], plan: Plan, session: Session) -> float:
    """Estimate the seconds that runs take, from one measured step for each backbone and image size.

    Frozen and cut networks are counted whole, so it is an upper bound of the training; images come on top.
    """
    per_clip: dict[tuple[Any, ...], float] = {}
    total = 0.0
    for run in runs:
        key = (run.model.backbone, run.frontend.n_mels, run.frontend.n_frames, run.training.batch_size)
        dataset = plan.datasets[run.data.content]
        if key not in per_clip:
            per_clip[key] = _step_seconds(run, len(dataset.class_names), session) / run.training.batch_size
        split = dataset.split(run.data.fold)
        share = 1 + 0.35 * len(split.test) / len(split.train)
        doubled = 2 if run.training.augment == "waveform" else 1
        clips = len(split.train) * doubled * share
        total += per_clip[key] * clips * run.training.epochs
    return total


def _step_seconds(run: Run, num_classes: int, session: Session) -> float:
    plain = run.replace(model__weights="random", model__freeze="none", model__cut="none", model__fuse="all")
    network = make_backbone(plain, num_classes).to(session.device).to(memory_format=torch.channels_last)
    size = (run.training.batch_size, *input_shape(run))
    images = torch.zeros(size, device=session.device).contiguous(memory_format=torch.channels_last)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        loss: torch.Tensor = network(images).sum()
        loss.backward()
        loss.detach().item()  # waits for a GPU
        times.append(time.perf_counter() - start)
    return min(times)  # the first one warms up


def _analyse(recipe: Recipe, job: Job, results: Results, console: Console) -> pd.DataFrame:
    """Write an experiment's tables and figures, and its numbers beside the report's."""
    item = job.experiment.item
    frame = job.ablation.analyse(results)
    if _is_stated(recipe.name, item):
        _write_beside(results, beside(_one_row_each(frame), recipe.name, item), f"{recipe.title}, {item}")
    results.describe(job.call.line)
    console.rule(f"{item}: {job.experiment.command}")
    show_results(results, console)
    return frame


def _write_beside(results: Results, frame: pd.DataFrame, caption: str) -> None:
    both = frame["ours"].notna() & frame["published"].notna()
    title = f"{caption}: ours beside the published"
    results.table("published", frame, PUBLISHED, caption=title, footnotes=[FOOTNOTE], show=bool(both.any()))


def _overview(
    recipe: Recipe, frames: Mapping[str, pd.DataFrame], page: Results, console: Console, *, command: str
) -> None:
    """Write the tables made of several experiments, and one page that holds every table."""
    folder = page.folder
    for item, parts in recipe.tables.items():
        joined = pd.concat([frames[part] for part in parts], ignore_index=True)
        results = Results(page.plan, page.session, folder / slug(item))
        rows = _one_row_each(joined[joined["condition"] != "single"])
        _write_beside(results, beside(rows, recipe.name, item), f"{recipe.title}, {item}")
        results.describe(command)
        console.rule(item)
        show_results(results, console)
    pages = [f"# {recipe.title}\n\n{recipe.source}\n"]
    for item in (*frames, *recipe.tables):
        tables = sorted((folder / slug(item)).glob("*.md"), key=lambda path: path.stem != "table")
        pages += [f"## {item}\n", *(path.read_text(encoding="utf-8") for path in tables)]
        pages += [f"![{item}]({slug(item)}/figure.png)\n"] if (folder / slug(item) / "figure.png").exists() else []
    write_text(folder / "study.md", "\n".join(pages))
    console.print(f"Everything on one page: {folder / 'study.md'}", soft_wrap=True)


def _one_row_each(frame: pd.DataFrame) -> pd.DataFrame:
    """Average over whatever else the grid varies, so that a condition is one number."""
    keys = ["data", "backbone", "condition"]
    numbers = [name for name in ("accuracy", "accuracy_std", "delta") if name in frame]
    if frame.empty or "accuracy" not in frame:
        return pd.DataFrame(columns=[*keys, "accuracy", "accuracy_std"])
    return frame.groupby(keys, sort=False)[numbers].mean().reset_index()


def _is_stated(study: str, item: str) -> bool:
    return study in studies() and item in set(published(study)["item"])


def slug(item: str) -> str:
    """Turn a table's or figure's name into a folder's: ``Figure 2a`` is ``figure-2a``."""
    return re.sub(r"[^a-z0-9]+", "-", item.lower()).strip("-")
