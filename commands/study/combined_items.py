"""Tables and figures of a study that combine several experiments, and one page with all its results."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console

import ablations
from ablations.planning.study_schema import FIGURES, StudySpec, folder_name
from analysis.metrics import holdout_accuracy
from analysis.metrics.holdout_accuracy import add_holdout_accuracy, score_holdout
from analysis.output.output_folder import OutputFolder
from analysis.output.tables import FULL
from analysis.plots.multi_experiment import group_experiments, write_table_figure
from analysis.published.comparison import write_published_comparison
from analysis.published.numbers import list_published, load_published
from commands.ablation import show_results
from core.plan import Plan
from core.system.atomic_files import write_text

VALUE_SEPARATOR = ", for "  # between the name of a table or figure and the option values that it is for


@dataclass(frozen=True)
class ExperimentResult:
    """The plan of an experiment, and the rows of its analysis."""

    plan: Plan
    frame: pd.DataFrame


def write_combined_items(
    study: StudySpec, experiments: Mapping[str, ExperimentResult], results: OutputFolder, console: Console, command: str
) -> list[str]:
    """Write the tables and figures that combine several experiments; return their items.

    An item whose experiments have all been left out by ``--figures-only`` is left out too.

    Parameters
    ----------
    study
        The study.
    experiments
        Results by item.
    results
        Output folder of the whole study; each combined item is written to a subfolder.
    console
        Console for the tables.
    command
        Command line, for the description of the results.
    """
    written = []
    for item, parts in study.combined_items.items():
        members = {name: each for name, each in experiments.items() if name.partition(VALUE_SEPARATOR)[0] in parts}
        if not members:
            continue
        plan = join_plans(study.name, [member.plan for member in members.values()])
        item_results = results.subfolder(plan, folder_name(item))
        caption = f"{study.title}, {item}"
        if figure := study.figures.get(item):
            groups = group_experiments([(name, member.plan) for name, member in members.items()])
            FIGURES[figure.figure](item_results, groups, caption=caption, metrics=figure.metrics)
        else:
            scored = [(name, member.plan) for name, member in members.items() if "accuracy" in member.frame]
            write_table_figure(item_results, scored, caption=caption)
        frame = pd.concat([member.frame for member in members.values()], ignore_index=True)
        if figure and holdout_accuracy.NAME in figure.metrics:
            frame = add_holdout_accuracy(frame, score_holdout(plan, results.session))
        write_published_comparison(
            item_results,
            frame,
            study.name,
            item,
            title=study.title,
            folder=ablations.STUDIES_FOLDER,
        )
        item_results.write_description(command)
        console.rule(item)
        show_results(item_results, console)
        written.append(item)
    return written


def write_published_items(study: StudySpec, items: Iterable[str], results: OutputFolder, command: str) -> list[str]:
    """Write the published numbers and statements of the items that no experiment reproduces; return these items.

    Parameters
    ----------
    study
        The study.
    items
        Items that have been written, or left out by ``--figures-only``.
    results
        Output folder of the whole study.
    command
        Command line, for the description of the results.
    """
    if study.name not in list_published(ablations.STUDIES_FOLDER):
        return []
    written = []
    published = load_published(study.name, folder=ablations.STUDIES_FOLDER)
    for item in dict.fromkeys(published["item"]):
        if item in items:
            continue
        item_results = results.subfolder(Plan(study.name, (), {}), folder_name(item))
        write_published_comparison(
            item_results, pd.DataFrame(), study.name, item, title=study.title, folder=ablations.STUDIES_FOLDER
        )
        item_results.write_description(command)
        written.append(item)
    return written


def write_study_page(study: StudySpec, items: Iterable[str], folder: Path) -> Path:
    """Write a Markdown page with every table and figure of a study; return its path."""
    sections = [f"# {study.title}\n\n{study.source}\n"]
    for item in items:
        name = folder_name(item)
        files = (path for path in (folder / name).glob("*.md") if not path.stem.endswith(FULL))
        tables = sorted(files, key=lambda path: path.stem != "table")
        sections += [f"## {item}\n", *(path.read_text(encoding="utf-8") for path in tables)]
        pictures = sorted((folder / name).glob("*.png"), key=lambda path: path.stem != "figure")
        sections += [f"![{item}: {path.stem}]({name}/{path.name})\n" for path in pictures]
    write_text(folder / "study.md", "\n".join(sections))
    return folder / "study.md"


def join_plans(name: str, plans: Iterable[Plan]) -> Plan:
    """Return one plan with the runs and data sets of several."""
    plans = list(plans)
    runs = tuple(planned for plan in plans for planned in plan.planned)
    return Plan(name, runs, {key: dataset for plan in plans for key, dataset in plan.datasets.items()})
