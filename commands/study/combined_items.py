"""What a study makes of several experiments: further tables and figures of the report, and one page with everything."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console

from analysis.output.folder import OutputFolder
from analysis.plots.multi_experiment import group_experiments
from analysis.published.numbers import list_published, load_published, write_published_comparison
from commands.ablation import show_results
from commands.cli import study_schema
from commands.cli.study_schema import FIGURES, StudySpec, folder_name
from core.io.atomic_files import write_text
from core.plan import Plan

VALUE_SEPARATOR = ", for "  # between an item and what it is of, where it is several experiments


@dataclass(frozen=True)
class ExperimentResult:
    """An experiment of a study, analysed: its runs, and its rows."""

    plan: Plan
    frame: pd.DataFrame


def write_combined_items(
    recipe: StudySpec, done: Mapping[str, ExperimentResult], page: OutputFolder, console: Console, *, command: str
) -> None:
    """Write the tables and figures that are made of several experiments.

    Parameters
    ----------
    recipe
        The study.
    done
        Its experiments by their items.
    page
        Of the whole study; each item has a folder in its own.
    console
        Where they are shown.
    command
        What made them.
    """
    for item, names in {**recipe.tables, **{item: one.of for item, one in recipe.figures.items()}}.items():
        parts = {made: one for made, one in done.items() if made.partition(VALUE_SEPARATOR)[0] in names}
        plan = join_plans(recipe.name, [one.plan for one in parts.values()])
        results = OutputFolder(plan, page.session, page.folder / folder_name(item), published_as=page.published_as)
        frame, caption = pd.concat([one.frame for one in parts.values()], ignore_index=True), f"{recipe.title}, {item}"
        if picture := recipe.figures.get(item):
            groups = group_experiments([(made, one.plan) for made, one in parts.items()])
            FIGURES[picture.kind](results, groups, caption=caption, metric=picture.metric)
        _beside(results, frame, recipe, item)
        results.write_description(command)
        console.rule(item)
        show_results(results, console)


def write_study_page(recipe: StudySpec, items: list[str], folder: Path) -> Path:
    """Write one page that holds every table and figure of a study's items; return where it is."""
    pages = [f"# {recipe.title}\n\n{recipe.source}\n"]
    for item in items:
        tables = sorted((folder / folder_name(item)).glob("*.md"), key=lambda path: path.stem != "table")
        pages += [f"## {item}\n", *(path.read_text(encoding="utf-8") for path in tables)]
        pictures = sorted((folder / folder_name(item)).glob("*.png"), key=lambda path: path.stem != "figure")
        pages += [f"![{item}: {path.stem}]({folder_name(item)}/{path.name})\n" for path in pictures]
    write_text(folder / "study.md", "\n".join(pages))
    return folder / "study.md"


def join_plans(name: str, plans: list[Plan]) -> Plan:
    """Make one plan of several."""
    runs = tuple(one for plan in plans for one in plan.planned)
    return Plan(name, runs, {key: dataset for plan in plans for key, dataset in plan.datasets.items()})


def _beside(results: OutputFolder, frame: pd.DataFrame, recipe: StudySpec, item: str) -> None:
    """Set what the experiments have of the conditions of an item beside its numbers, where the report gives any."""
    folder = study_schema.STUDIES_FOLDER
    if recipe.name in list_published(folder) and item in set(
        (numbers := load_published(recipe.name, folder=folder))["item"]
    ):
        stated = set(numbers[numbers["item"] == item]["condition"])
        own = frame[frame["condition"].isin(stated)] if "condition" in frame else frame  # clips have no rows
        write_published_comparison(results, own, recipe.name, item, title=recipe.title, folder=folder)
