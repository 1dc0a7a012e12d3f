"""Make a study true: one plan of all its experiments, then every table and figure, beside the published numbers."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console

from analysis.output.folder import OutputFolder
from analysis.published.numbers import load_published, write_published_comparison
from commands import COMMANDS
from commands.ablation import show_results
from commands.cli import study_schema
from commands.cli.grid import read_execution_options
from commands.cli.parser import Call, command_options, list_flags, make_call
from commands.cli.run_plan import INTERRUPTED, analyse_with_repair, execute_or_stop
from commands.cli.study_schema import ExperimentSpec, StudySpec, folder_name, read_study
from commands.study.combined_items import (
    VALUE_SEPARATOR,
    ExperimentResult,
    join_plans,
    write_combined_items,
    write_study_page,
)
from commands.study.experiment import Experiment, list_experiment_commands, prepare_experiment
from commands.study.options import Study
from commands.study.plan_summary import print_study_plan
from core import datasets
from core.config.run import Run
from core.errors import UserError
from core.executor import ExecutionSummary
from core.io.atomic_files import short_digest
from core.progress import Reporter
from core.session import Session


@dataclass(frozen=True)
class PlannedExperiment:
    """An entry of a study, ready to be planned."""

    entry: ExperimentSpec
    call: Call

    @property
    def plans(self) -> bool:
        """Whether its command has the options of a run."""
        return getattr(type(self.call.command), "plans", False)


def run_study(call: Call) -> int:
    """Run a study's command; return the exit status, as `commands.ablation.run`.

    Parameters
    ----------
    call
        The command line.
    """
    study: Study = call.command
    own = {option.flag for option in command_options(Study) if not option.group}
    given = {flag: words for flag, words in call.words.items() if flag.removeprefix("no-") not in own}
    recipe = read_study(study.name, study.scale, given, commands=list_experiment_commands())
    for item in recipe.tables:  # what is wrong with its numbers is said before anything is trained
        load_published(recipe.name, item, folder=study_schema.STUDIES_FOLDER)
    jobs = parse_experiments(recipe)
    settings = read_execution_options(next((job.call for job in jobs if job.plans), call))
    console = Console(stderr=settings.json, highlight=False)
    with Reporter() as progress:
        session = Session(settings, progress)
        experiments = [_prepare(job, session, recipe) for job in jobs]
        whole = join_plans(recipe.name, [experiment.plan for experiment in experiments if experiment.executes])
        entries = [job.entry for job in jobs]
        print_study_plan(recipe, entries, experiments, whole, session, console, devices=study.devices)
        if settings.dry_run:
            return 0
        executed = execute_or_stop(whole, session) if study.trains else ExecutionSummary(0, len(whole.runs), 0)
        if executed is None:
            return INTERRUPTED
        folder = study_folder(study, experiments, session.store.results)
        done = {}
        for job, experiment in zip(jobs, experiments, strict=True):
            inside = folder / folder_name(job.entry.item)

            def analyse(
                experiment: Experiment = experiment, inside: Path = inside
            ) -> tuple[OutputFolder, pd.DataFrame]:
                results = OutputFolder(experiment.plan, session, inside, published_as=settings.published_as)
                return results, experiment.analyse(results)

            again = study.trains and experiment.trains
            (results, frame), executed = analyse_with_repair(analyse, whole, session, executed, again=again)
            done[job.entry.item] = ExperimentResult(experiment.plan, frame)
            _write_and_show(recipe, job, results, frame, console)
        page = OutputFolder(whole, session, folder, published_as=settings.published_as)
        write_combined_items(recipe, done, page, console, command=call.line)
        written = write_study_page(recipe, [*done, *recipe.tables, *recipe.figures], folder)
        console.print(f"Everything on one page: {written}", soft_wrap=True)
    return 1 if executed.failed else 0


def parse_experiments(recipe: StudySpec) -> list[PlannedExperiment]:
    """Parse the options of every experiment, each with the folders of its own data sets."""
    entries = [apart for entry in recipe.entries for apart in _split_by_value(entry)]
    flags = {entry.command: list_flags(command_options(COMMANDS[entry.command])) for entry in entries}
    roots = _assign_data_roots(entries)
    return [_parse_experiment(entry, flags, roots, recipe) for entry in entries]


def _split_by_value(entry: ExperimentSpec) -> list[ExperimentSpec]:
    """Part an experiment whose command takes some options' values one at a time, as its class variable says."""
    several = [flag for flag in getattr(COMMANDS[entry.command], "alone", ()) if len(entry.options.get(flag, ())) > 1]
    if not several:
        return [entry]
    return [
        ExperimentSpec(
            entry.item + VALUE_SEPARATOR + " ".join(values), entry.command, {**entry.options, **_each(several, values)}
        )
        for values in itertools.product(*(entry.options[flag] for flag in several))
    ]


def _each(flags: Sequence[str], values: Sequence[str]) -> dict[str, list[str]]:
    return {flag: [value] for flag, value in zip(flags, values, strict=True)}


def _assign_data_roots(entries: Sequence[ExperimentSpec]) -> dict[str, str]:
    """Map each data set of the study that needs a folder to the one it was given, in the order they first come in."""
    folders = next((entry.options["data-root"] for entry in entries if entry.options.get("data-root")), ())
    needing = list(dict.fromkeys(name for entry in entries for name in _data_sets_with_folder(entry)))
    if folders and len(folders) != len(needing):
        raise UserError(
            f"--data-root: give one folder for each of {', '.join(needing) or 'no data set'}, in this order"
        )
    return dict(zip(needing, folders, strict=False))


def _data_sets_with_folder(entry: ExperimentSpec) -> list[str]:
    """Name an experiment's data sets that need a folder."""
    names = entry.options.get("data", [Run().data.name])
    return [name for name in names if name in datasets.LOADERS and not datasets.LOADERS[name].embedded]


def _parse_experiment(
    entry: ExperimentSpec, flags: Mapping[str, set[str]], roots: Mapping[str, str], recipe: StudySpec
) -> PlannedExperiment:
    """Parse the options of an experiment; options that only other commands of the study have are left out."""
    own = flags[entry.command]
    elsewhere = set().union(*flags.values()) - own
    kept = {flag: values for flag, values in entry.options.items() if flag not in elsewhere}
    kept.pop("data-root", None)
    if "data-root" in own and (folders := [roots[name] for name in _data_sets_with_folder(entry) if name in roots]):
        kept["data-root"] = folders
    try:
        return PlannedExperiment(entry, make_call(entry.command, COMMANDS[entry.command], kept))
    except UserError as error:
        raise UserError(f"{recipe.name}, '{entry.item}': {error}") from None


def _prepare(job: PlannedExperiment, session: Session, recipe: StudySpec) -> Experiment:
    try:
        return prepare_experiment(job.call, session)
    except UserError as error:
        raise UserError(f"{recipe.name}, '{job.entry.item}': {error}") from None


def study_folder(study: Study, experiments: Sequence[Experiment], results: Path) -> Path:
    """Return a folder of its own for every different set of questions, the same for the same one."""
    text = "\n".join(f"{experiment.plan.name} {experiment.analysis_key}" for experiment in experiments)
    return results / "studies" / study.name / f"{study.scale}-{short_digest(text)}"


def _write_and_show(
    recipe: StudySpec, job: PlannedExperiment, results: OutputFolder, frame: pd.DataFrame, console: Console
) -> None:
    """Set an experiment's numbers beside the report's, and show its tables."""
    item = job.entry.item
    write_published_comparison(
        results, frame, recipe.name, item, title=recipe.title, folder=study_schema.STUDIES_FOLDER
    )
    results.write_description(job.call.line)
    console.rule(f"{item}: {job.entry.command}")
    show_results(results, console)
