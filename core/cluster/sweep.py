"""Train the missing runs of a plan as Ray Tune trials.

A trial is one run, or several runs that are trained together. This process computes inputs, gives trials to Tune and
records failures; the trials write their results into the store. Tune's own checkpoint is never read, because missing
runs are found in the store.
"""

import dataclasses
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from core.cluster.connect import Node, TrialResources, alive_nodes, connected, count_slots, fits, resources_per_trial
from core.cluster.input_tasks import InputTasks
from core.cluster.node_check import check_nodes
from core.cluster.storage import Storage
from core.cluster.sweep_progress import SweepProgress, fetch_run
from core.cluster.trial import TrialContext, train_trial
from core.cluster.trial_source import PlannedTrials, TrialSource
from core.config.execution import RayOptions
from core.config.run import Run
from core.datasets.dataset import Dataset
from core.errors import UserError
from core.executor import (
    ExecutionSummary,
    report_damaged_runs,
    report_resumed_runs,
    unfinished_runs,
    write_clip_tables,
)
from core.inputs.input_kind import get_input_key
from core.inputs.store.build_inputs import BuildChunks
from core.models import find_family
from core.models.weights import NAMED_WEIGHTS
from core.plan import Plan
from core.registry import Lazy
from core.session import Session
from core.store.run_store import FAILED, FINISHED, STOPPED
from core.training.load_inputs import load_run_inputs
from core.training.time_left import TimeLeft

tune = Lazy("ray.tune")
tune_classes = Lazy("core.cluster.tune_classes")  # imports Ray


def execute_on_ray(plan: Plan, session: Session, *, scheduler: Any = None) -> ExecutionSummary:
    """Train the missing runs of a plan as Ray Tune trials.

    On a CPU the results are bit-identical to those of `core.executor.execute` with the same number of threads.

    Parameters
    ----------
    plan, session
        As in `core.executor.execute`; ``session.execution.cluster`` has the Ray options.
    scheduler
        A Ray Tune scheduler that may stop runs early, or None.

    Raises
    ------
    UserError
        If the cluster, resources, storage or clips cannot be used.
    """
    location = session.execution.cluster.storage
    missing = unfinished_runs(plan, session)
    if missing and location:  # a command that was killed may have left finished runs in the storage
        storage = Storage(location)
        for run in missing:
            fetch_run(run, session, storage)
        missing = unfinished_runs(plan, session)
    if scheduler is not None:
        missing = [run for run in missing if session.store.status(run) != STOPPED]
    report_damaged_runs(missing, plan, session)
    report_resumed_runs(missing, plan, session)
    write_clip_tables(missing, plan, session)
    if missing:
        sweep(
            PlannedTrials(plan, missing, one_per_trial=scheduler is not None),
            session,
            runs=len(plan.runs),
            first=missing,
            scheduler=scheduler,
        )
    failed = sum(session.store.status(run) == FAILED for run in plan.runs)
    trained = frozenset(run.id for run in missing if session.store.status(run) in (FINISHED, STOPPED))
    new = trained | {run.id for run in missing if session.store.status(run) == FAILED}
    return ExecutionSummary(len(trained), len(plan.runs) - len(trained) - failed, failed, new)


def sweep(source: TrialSource, session: Session, *, runs: int, first: Sequence[Run], scheduler: Any = None) -> None:
    """Train the runs of a trial source.

    Parameters
    ----------
    source
        The runs.
    session
        Store, display and Ray options.
    runs
        Expected number of runs. The cores are divided by it.
    first
        Runs that are known already; their inputs are computed before training.
    scheduler
        A Ray Tune scheduler, or None.
    """
    execution = session.execution
    location = execution.cluster.storage
    storage = Storage(location) if location else None
    session.tracker.connect()
    if execution.cluster.ray == "local":
        session.report.note(
            "Starting Ray on this machine (about ten seconds). Runs of a few seconds end sooner without --ray."
        )
    with connected(execution.cluster) as nodes:
        resources = resources_per_trial(nodes, runs=runs, execution=execution)
        files = {run.model.weights for run in first if run.model.weights not in NAMED_WEIGHTS}
        files |= {
            find_family(run.model.backbone).file(run.model.backbone) for run in first if run.model.backbone_sha256
        }
        check_nodes(nodes, results=session.store.results, storage=storage, files=sorted(files))
        images, tasks = _InputBuilder(source.datasets, session, storage), InputTasks(nodes, session)
        for run in first:
            images.of(run, build_chunks=tasks)
        _run_tune(source, session, nodes, resources, images, first, scheduler)


class _InputBuilder:
    """Computes the inputs of each run once, and returns their cache entries."""

    def __init__(self, datasets: Mapping[str, Dataset], session: Session, storage: Storage | None) -> None:
        self.datasets, self.session, self.storage = datasets, session, storage
        self.entries: dict[tuple[Any, ...], list[str]] = {}

    def of(self, run: Run, *, build_chunks: BuildChunks | None = None) -> list[str]:
        """Return the cache entries of `run`, after computing missing ones and copying them to the storage.

        `build_chunks` computes inputs on all nodes. It is None while the trials need the cores.
        """
        key = get_input_key(run)
        if key not in self.entries:
            versions = load_run_inputs(run, self.datasets[run.data.content], self.session, build_chunks=build_chunks)
            self.entries[key] = [version.entry for version in versions]
            for entry in self.entries[key]:
                if self.storage:
                    self.storage.put_entry(self.session.store.cache / entry)
        return self.entries[key]


def _run_tune(
    source: TrialSource,
    session: Session,
    nodes: list[Node],
    resources: TrialResources,
    images: _InputBuilder,
    first: Sequence[Run],
    scheduler: Any,
) -> None:
    cluster = session.execution.cluster
    execution = dataclasses.replace(
        session.execution,
        threads=resources.threads,
        results=session.store.results,
        device=session.execution.device if resources.gpus else "cpu",
        cluster=RayOptions(storage=cluster.storage),  # a trial needs no other option
        track="none",  # this process sends the runs to the tracker
    )
    share = min(1.0, resources.gpus or resources.cpus / max(node.cpus for node in nodes))
    context = TrialContext(source.datasets, execution, share, every_epoch=scheduler is not None)
    n_slots = count_slots(resources, nodes)
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(n_slots)  # start all workers at the same time
    n_concurrent = min(n_slots, cluster.max_concurrent or n_slots)
    source.split_trials(n_concurrent)

    def schedulable() -> bool:
        return any(fits(resources, node) for node in alive_nodes())

    session.time_left = TimeLeft(
        first,
        source.datasets,
        session,
        concurrent=n_concurrent,
        threads=resources.threads,
        to_come=max(0, source.total - source.found - len(first)),
    )
    session.time_left.announce_plan()
    progress = SweepProgress(source, session, images.storage, session.time_left, schedulable=schedulable)
    trainable = tune.with_resources(
        tune.with_parameters(train_trial, context=context),
        {"cpu": resources.cpus} | ({"gpu": resources.gpus} if resources.gpus else {}),
    )
    with tempfile.TemporaryDirectory(prefix="audio-ablation-") as folder:
        tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=tune_classes.Searcher(source, images.of),
                scheduler=scheduler,
                num_samples=-1,
                max_concurrent_trials=cluster.max_concurrent,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                storage_path=folder,
                verbose=0,
                callbacks=[tune_classes.Callback(progress)],
                stop=tune_classes.Stopper(progress),
                failure_config=tune.FailureConfig(max_failures=cluster.max_failures),
            ),
        ).fit()
    if progress.fatal_error:
        raise UserError(progress.fatal_error)
