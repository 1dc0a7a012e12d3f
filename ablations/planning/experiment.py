"""An experiment: the runs that a command plans, and the analysis of these runs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import ablations
from ablations.base import Ablation
from ablations.planning import study_schema
from ablations.planning.call import Call
from ablations.planning.grid import find_ignored_options, make_grid, read_execution_options, read_preset_option
from ablations.planning.run_plan import analyse_with_repair
from core import datasets
from core.config.run import Run
from core.datasets.dataset import Dataset
from core.errors import UserError
from core.executor import ExecutionSummary
from core.inference.precision import check_precision, effective_precision
from core.plan import Conditions, Plan, list_dataset_notes, list_untrained_classes, make_plan
from core.registry import Lazy
from core.session import Session
from core.store.run_store import Store
from core.system.atomic_files import text_digest
from core.training.fit_input_transform import count_components
from core.training.load_inputs import load_plain_inputs, split_rows

if TYPE_CHECKING:
    import pandas as pd

    from analysis.output.output_folder import OutputFolder

make_output_folder = Lazy("analysis.output.output_folder:OutputFolder")  # imports matplotlib
choose_folder = Lazy("analysis.output.results_index:choose_folder")
load_all_published = Lazy("analysis.published.numbers:load_all_published")
write_published_comparison = Lazy("analysis.published.comparison:write_published_comparison")
Output = TypeVar("Output", bound="OutputFolder")
LOCAL = ("", "local")  # values of --ray that train on this machine


@dataclass(frozen=True)
class Experiment:
    """The runs of one command, and its analysis.

    Attributes
    ----------
    plan
        The runs.
    analysis_key
        Suffix of the results folder. It depends on the options of the analysis, so that different analyses of the same
        runs have different folders; "" if the analysis has no options.
    analyse
        Function that writes tables and figures to an output folder and returns one row for each condition.
    trains
        Whether a run is trained again if the analysis cannot read its files.
    executes
        Whether the analysis needs trained runs; False for commands that only show the inputs of runs.
    """

    plan: Plan
    analysis_key: str
    analyse: "Callable[[OutputFolder], pd.DataFrame]"
    trains: bool = True
    executes: bool = True


def prepare(call: Call, session: Session) -> Experiment:
    """Plan the command of an ablation."""
    ablation: Ablation = call.command
    points = ablation.expand_grid(make_grid(call), session.store)
    plan = plan_conditions(call, ablation.conditions, points, session, by=ablation.compared_field(points))
    ablation.check_plan(plan)
    for line in find_ignored_options(call, plan.runs):
        session.report.note(line)
    return Experiment(plan, ablation.analysis_key, ablation.analyse, trains=ablation.trains)


def analyse_experiment(
    experiment: Experiment,
    session: Session,
    executed: ExecutionSummary,
    *,
    make_folder: "Callable[..., Output]" = make_output_folder,
) -> "tuple[Output, pd.DataFrame, ExecutionSummary]":
    """Write the tables and figures of the finished runs of an ablation, and compare them with published numbers.

    Parameters
    ----------
    experiment
        The ablation.
    session
        Store, device and execution options of the runs.
    executed
        Summary of the execution.
    make_folder
        Class of the output folder: `OutputFolder` or one that inherits from it.

    Returns
    -------
    results
        Output folder, without the description of its files (`OutputFolder.write_description`).
    frame
        One row for each condition.
    executed
        The summary, after damaged runs were trained again.
    """
    plan, name = experiment.plan, experiment.plan.ablation
    folder, default = choose_analysis_folder(experiment, session)

    def analyse() -> "tuple[Output, pd.DataFrame]":
        results = make_folder(plan, session, folder, published_as=session.execution.published_as, analysis=default)
        return results, experiment.analyse(results)

    (results, frame), executed = analyse_with_repair(analyse, plan, session, executed, again=experiment.trains)
    studies = load_all_published(ablations.STUDIES_FOLDER)
    for (study, item), commands in sorted(study_schema.commands_by_item().items()):
        if name in commands and study in studies:
            write_published_comparison(
                results,
                frame,
                study,
                item,
                title=study,
                folder=ablations.STUDIES_FOLDER,
                name=f"published-{study_schema.folder_name(f'{study} {item}')}",
                in_study=False,
            )
    return results, frame, executed


def choose_analysis_folder(experiment: Experiment, session: Session) -> tuple[Path, str]:
    """Return the output folder of an ablation, and its default folder (without ``--name``) relative to the results.

    Raises
    ------
    UserError
        If ``--name`` is the name of another analysis.
    """
    parts = (experiment.plan.name, experiment.analysis_key, session.execution.output_key)
    default = f"{experiment.plan.ablation}/{'-'.join(filter(None, parts))}"
    return choose_folder(session.store.output, default, session.execution.folder_name), default


@contextmanager
def _explain_results_in_data(roots: Sequence[Path], store: Store) -> Iterator[None]:
    """Name ``--results`` in an error about a folder of results that lies in the folder of a data set."""
    try:
        yield
    except UserError as error:
        results = store.results.absolute()
        own = [f"{place} " for place in (store.runs.absolute(), store.cache.absolute(), results)]
        root = next((root for root in roots if results.is_relative_to(root.absolute())), None)
        if root is None or not any(place in f"{error} " for place in own):
            raise
        raise UserError(
            f"--results {results} lies in --data-root {root}, whose folders are read as classes; give another "
            "--results and delete the folders of results there"
        ) from None


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
    with _explain_results_in_data(settings.data_root, session.store):
        plan = make_plan(
            call.name,
            conditions,
            points,
            by=by,
            words=getattr(call.command, "condition_words", {}),
            preset=read_preset_option(call),
            roots=settings.data_root,
            columns=datasets.parse_columns(settings.columns),
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

    These are the precision (a CPU computes in fp32 or bf16 only; on a cluster, each worker sets it), unreadable clips
    that are left out, and the number of principal components. For the last two, the inputs of the run are computed.
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
