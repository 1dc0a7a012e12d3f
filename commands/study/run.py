"""Run the command ``study``: train the runs of all experiments, then write every table and figure."""

import dataclasses
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass

import pandas as pd
from rich.console import Console

import ablations
from ablations.planning.call import Call, command_options, list_flags, make_call
from ablations.planning.experiment import Experiment
from ablations.planning.grid import read_execution_options
from ablations.planning.run_plan import analyse_with_repair, execute_or_stop
from ablations.planning.study_schema import ExperimentSpec, StudySpec, folder_name, read_study
from analysis.output.output_folder import OutputFolder
from analysis.output.results_index import choose_folder
from analysis.published.comparison import write_published_comparison
from analysis.published.numbers import list_published, load_published
from commands import COMMANDS
from commands.ablation import show_results
from commands.cli.console import EscapingConsole
from commands.cli.exit_handling import INTERRUPTED
from commands.study.combined_items import (
    VALUE_SEPARATOR,
    ExperimentResult,
    join_plans,
    write_combined_items,
    write_published_items,
    write_study_page,
)
from commands.study.experiment import list_experiment_commands, prepare_experiment
from commands.study.options import Study
from commands.study.plan_summary import print_study_plan
from commands.study.settings import Setting, list_settings, print_settings
from core import datasets
from core.config.run import Run
from core.errors import UserError
from core.executor import ExecutionSummary
from core.finished.open_run import UnfinishedRun
from core.progress import Reporter
from core.session import Session
from core.store.run_store import DamagedFile
from core.system.atomic_files import short_digest


@dataclass(frozen=True)
class PlannedExperiment:
    """An experiment of a study with its parsed options."""

    spec: ExperimentSpec
    call: Call

    @property
    def has_runs(self) -> bool:
        """Whether its command has the options of a run."""
        return getattr(type(self.call.command), "plans", False)


def run_study(call: Call) -> int:
    """Run the experiments of a study; return the exit status: 0, 1 if a run failed, or 130 if interrupted."""
    options: Study = call.command
    own = {option.flag for option in command_options(Study) if not option.group} | {"name"}
    overrides = {flag: words for flag, words in call.words.items() if flag.removeprefix("no-") not in own}
    study = read_study(options.name, options.scale, overrides, commands=list_experiment_commands())
    whole_file = [None] if study.name in list_published(ablations.STUDIES_FOLDER) else []
    for item in (*whole_file, *study.tables):  # show mistakes in published.csv before training
        load_published(study.name, item, folder=ablations.STUDIES_FOLDER)
    planned = parse_experiments(study)
    settings = read_execution_options(next((each.call for each in planned if each.has_runs), call))
    name = read_execution_options(call).folder_name
    console, out = EscapingConsole(stderr=settings.json), sys.stdout
    with Reporter() as progress, redirect_stdout(sys.stderr if settings.json else out):  # own networks may print
        session = Session(settings, progress)
        experiments = [_prepare(each, session, study) for each in planned]
        plan = join_plans(study.name, [experiment.plan for experiment in experiments if experiment.executes])
        specs = [each.spec for each in planned]
        summary = print_study_plan(study, specs, experiments, plan, session, console, devices=options.devices)
        if settings.dry_run:
            listed = list_study_settings(planned, experiments)
            print_settings(listed, console)
            if settings.json:
                answer = {
                    "study": study.name,
                    **summary,
                    "settings": [dataclasses.asdict(setting) for setting in listed],
                }
                out.write(json.dumps(answer) + "\n")
            return 0
        default = study_folder(options, experiments, settings.output_key)
        choose_folder(session.store.output, default, name)  # refuse the name before training
        executed = execute_or_stop(plan, session) if options.trains else ExecutionSummary(0, len(plan.runs), 0)
        if executed is None:
            return INTERRUPTED
        folder = choose_folder(session.store.output, default, name)
        results = OutputFolder(plan, session, folder, published_as=settings.published_as, analysis=default)
        by_item = {}
        for each, experiment in zip(planned, experiments, strict=True):
            frame, executed = _analyse(each, experiment, results, executed, study, console, trains=options.trains)
            if frame is not None:
                by_item[each.spec.item] = ExperimentResult(experiment.plan, frame)
        combined = write_combined_items(study, by_item, results, console, call.line)
        items = [*(each.spec.item for each in planned), *study.combined_items]
        others = write_published_items(study, items, results, call.line)
        page = write_study_page(study, [*by_item, *combined, *others], results.folder)
        console.print(f"All results on one page: {page}", soft_wrap=True)
        if settings.json:
            counts = {"trained": executed.trained, "found": executed.found, "failed": executed.failed}
            out.write(json.dumps({"study": study.name, "page": str(page), **counts}) + "\n")
    return 1 if executed.failed else 0


def parse_experiments(study: StudySpec) -> list[PlannedExperiment]:
    """Parse the options of every experiment; ``--data-root`` is reduced to the folders of its own data sets."""
    specs = [part for spec in study.experiments for part in _split_by_value(spec)]
    flags = {spec.command: list_flags(command_options(COMMANDS[spec.command])) for spec in specs}
    roots = _assign_data_roots(specs)
    return [_parse_experiment(spec, flags, roots, study) for spec in specs]


def _split_by_value(spec: ExperimentSpec) -> list[ExperimentSpec]:
    """Split an experiment into one for each value of the options that its command lists in ``alone``."""
    several = [flag for flag in getattr(COMMANDS[spec.command], "alone", ()) if len(spec.options.get(flag, ())) > 1]
    if not several:
        return [spec]
    parts = []
    for values in itertools.product(*(spec.options[flag] for flag in several)):
        options = {**spec.options, **{flag: [value] for flag, value in zip(several, values, strict=True)}}
        parts.append(ExperimentSpec(spec.item + VALUE_SEPARATOR + " ".join(values), spec.command, options))
    return parts


def _assign_data_roots(specs: Sequence[ExperimentSpec]) -> dict[str, str]:
    """Return the folder of each data set that needs one; ``--data-root`` has them in the order of the data sets."""
    folders = next((spec.options["data-root"] for spec in specs if spec.options.get("data-root")), ())
    names = list(dict.fromkeys(name for spec in specs for name in _data_sets_with_folder(spec)))
    if folders and len(folders) != len(names):
        raise UserError(f"--data-root: give one folder for each of {', '.join(names) or 'no data set'}, in this order")
    return dict(zip(names, folders, strict=False))


def _data_sets_with_folder(spec: ExperimentSpec) -> list[str]:
    """Return the names of the data sets of an experiment that need a folder."""
    names = spec.options.get("data", [Run().data.name])
    return [name for name in names if name in datasets.LOADERS and not datasets.LOADERS[name].embedded]


def _parse_experiment(
    spec: ExperimentSpec, flags: Mapping[str, set[str]], roots: Mapping[str, str], study: StudySpec
) -> PlannedExperiment:
    """Parse the options of an experiment, without those that only other commands of the study have."""
    own = flags[spec.command]
    foreign = set().union(*flags.values()) - own
    options = {flag: values for flag, values in spec.options.items() if flag not in foreign and flag != "data-root"}
    if "data-root" in own and (folders := [roots[name] for name in _data_sets_with_folder(spec) if name in roots]):
        options["data-root"] = folders
    try:
        return PlannedExperiment(spec, make_call(spec.command, COMMANDS[spec.command], options))
    except UserError as error:
        raise UserError(f"{study.name}, '{spec.item}': {error}") from None


def list_study_settings(planned: Sequence[PlannedExperiment], experiments: Sequence[Experiment]) -> list[Setting]:
    """Return the settings of all experiments of a study, without those experiments that train no runs."""
    pairs = [(each, experiment) for each, experiment in zip(planned, experiments, strict=True) if experiment.executes]
    return list_settings([(each.spec.item, each.call, experiment.plan.runs) for each, experiment in pairs])


def _prepare(planned: PlannedExperiment, session: Session, study: StudySpec) -> Experiment:
    """Plan an experiment; errors name the study and the item."""
    try:
        return prepare_experiment(planned.call, session)
    except UserError as error:
        raise UserError(f"{study.name}, '{planned.spec.item}': {error}") from None


def study_folder(options: Study, experiments: Sequence[Experiment], output_key: str = "") -> str:
    """Return the folder of a study inside the results: a different one for different runs or analysis options."""
    text = "\n".join(f"{experiment.plan.name} {experiment.analysis_key}" for experiment in experiments)
    name = "-".join(filter(None, (options.scale, short_digest(text), output_key)))
    return f"studies/{options.name}/{name}"


def _analyse(
    planned: PlannedExperiment,
    experiment: Experiment,
    study_results: OutputFolder,
    executed: ExecutionSummary,
    study: StudySpec,
    console: Console,
    *,
    trains: bool,
) -> tuple[pd.DataFrame | None, ExecutionSummary]:
    """Write and print the results of one experiment.

    Return the rows of its analysis, and the counts of runs, including runs that were trained again because a file was
    damaged. With ``--figures-only``, an analysis that needs a missing or damaged run is skipped; the rows are None.
    """
    item, session = planned.spec.item, study_results.session

    def analyse() -> tuple[OutputFolder, pd.DataFrame]:
        results = study_results.subfolder(experiment.plan, folder_name(item))
        return results, experiment.analyse(results)

    again = trains and experiment.trains
    try:
        (results, frame), executed = analyse_with_repair(analyse, study_results.plan, session, executed, again=again)
    except (UnfinishedRun, DamagedFile) as error:
        if trains:
            raise
        session.report.note(f"{item}: left out: {error}")
        return None, executed
    write_published_comparison(results, frame, study.name, item, title=study.title, folder=ablations.STUDIES_FOLDER)
    results.write_description(planned.call.line)
    console.rule(f"{item}: {planned.spec.command}")
    show_results(results, console)
    return frame, executed
