"""Make a plan true with Ray Tune: a trial for each run or lot of runs, in processes that go from trial to trial.

The store decides what is missing, so Tune's own record of an experiment is never read back and lies in a temporary
folder. This process prepares images, hands runs to Tune, and writes down what failed for good; the trials write the
rest themselves.
"""

import dataclasses
import os
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

from core.cluster.connect import Node, TrialResources, alive_nodes, connected, fits, resources_per_trial, slots
from core.cluster.image_tasks import Makers
from core.cluster.node_check import check_nodes
from core.cluster.storage import Storage
from core.cluster.sweep_progress import Watch, collect
from core.cluster.trial import Work, trial
from core.cluster.trial_source import Feed, PlanFeed
from core.config.execution import Cluster
from core.config.run import Run
from core.datasets.dataset import Dataset
from core.errors import UserError
from core.executor import Executed, say_damaged, unfinished
from core.inputs.store.build_inputs import Spread
from core.models import family_of
from core.models.weights import WORDS
from core.plan import Plan
from core.registry import Lazy
from core.session import Session
from core.store.runs import FAILED, FINISHED, STOPPED
from core.training.run_inputs import load_images

tune = Lazy("ray.tune")
hooks = Lazy("core.cluster.tune_classes")  # classes of Ray's own


def execute_on_ray(plan: Plan, session: Session, *, scheduler: Any = None) -> Executed:
    """Train the missing runs of a plan as Ray Tune trials.

    The same runs end in the same store as with `core.executor.execute`, on a CPU with the same bits for the same
    number of threads.

    Parameters
    ----------
    plan, session
        As in `core.executor.execute`; ``session.execution.cluster`` says where.
    scheduler
        A Ray Tune scheduler that may stop runs early, or None.

    Raises
    ------
    UserError
        For a cluster, resources, a storage or clips that cannot be used.
    """
    place = session.execution.cluster.storage
    if place:  # what a command that was killed had finished there
        for run in unfinished(plan, session):
            collect(run, session, Storage(place))
    missing = unfinished(plan, session)
    if scheduler is not None:
        missing = [run for run in missing if session.store.status(run) != STOPPED]
    say_damaged(missing, plan, session)
    if missing:
        sweep(
            PlanFeed(plan, missing, alone=scheduler is not None),
            session,
            runs=len(plan.runs),
            first=missing,
            scheduler=scheduler,
        )
    failed = sum(session.store.status(run) == FAILED for run in plan.runs)
    new = frozenset(run.id for run in missing if session.store.status(run) in (FINISHED, FAILED, STOPPED))
    return Executed(len(new), len(plan.runs) - len(missing), failed, new)


def sweep(feed: Feed, session: Session, *, runs: int, first: Iterable[Run], scheduler: Any = None) -> None:
    """Train the runs of a feed.

    Parameters
    ----------
    feed
        The runs.
    session
        Store and progress; its execution says on which cluster.
    runs
        About how many there are, to share out the cores.
    first
        Those known already; their images are prepared before anything is trained.
    scheduler
        A Ray Tune scheduler, or None.
    """
    execution = session.execution
    place = execution.cluster.storage
    storage = Storage(place) if place else None
    with connected(execution.cluster) as nodes:
        demand = resources_per_trial(nodes, runs=runs, execution=execution)
        files = {run.model.weights for run in first if run.model.weights not in WORDS}
        files |= {family_of(run.model.backbone).file(run.model.backbone) for run in first if run.model.backbone_sha256}
        check_nodes(nodes, results=session.store.results, storage=storage, files=sorted(files))
        images = _Images(feed.datasets, session, storage)
        images.spread = Makers(nodes, session, storage)
        for run in first:
            images.of(run)
        images.spread = None  # from now on the cores are the trials'
        _fit(feed, session, nodes, demand, images, scheduler)


class _Images:
    """Makes images where the clips are, once, and tells which entries of the cache a run reads.

    Attributes
    ----------
    spread
        Makes those of many clips on other nodes too, while it is set.
    """

    def __init__(self, datasets: Mapping[str, Dataset], session: Session, storage: Storage | None) -> None:
        self.datasets, self.session, self.storage = datasets, session, storage
        self.spread: Spread | None = None
        self.known: dict[tuple[Any, ...], list[str]] = {}

    def of(self, run: Run) -> list[str]:
        """Return the entries that `run` reads, made and in the storage."""
        frontend = dataclasses.replace(run.frontend, normalise="fixed")  # plays no part in images
        training = run.training
        key = (run.data.content, run.clip, frontend, training.live, training.augment, training.variants)
        if key not in self.known:
            made = load_images(run, self.datasets[run.data.content], self.session, spread=self.spread)
            self.known[key] = [version.entry for version in made]
            for entry in self.known[key]:
                if self.storage:
                    self.storage.put_entry(self.session.store.cache / entry)
        return self.known[key]


def _fit(
    feed: Feed, session: Session, nodes: list[Node], demand: TrialResources, images: _Images, scheduler: Any
) -> None:
    cluster = session.execution.cluster
    execution = dataclasses.replace(
        session.execution,
        threads=demand.threads,
        results=session.store.results,
        device=session.execution.device if demand.gpus else "cpu",
        cluster=Cluster(storage=cluster.storage),  # a trial asks for nothing more
    )
    share = min(1.0, demand.gpus or demand.cpus / max(node.cpus for node in nodes))
    work = Work(feed.datasets, execution, share, every_epoch=scheduler is not None)
    places = slots(demand, nodes)
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(places)  # all workers start at once, not one by one
    at_once = min(places, cluster.max_concurrent or places)
    feed.share(at_once)
    watch = Watch(feed, session, images.storage, schedulable=lambda: any(fits(demand, node) for node in alive_nodes()))
    trainable = tune.with_resources(
        tune.with_parameters(trial, work=work),
        {"cpu": demand.cpus} | ({"gpu": demand.gpus} if demand.gpus else {}),
    )
    with tempfile.TemporaryDirectory(prefix="audio-ablation-") as folder:
        tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=hooks.Searcher(feed, images.of),
                scheduler=scheduler,
                num_samples=-1,
                max_concurrent_trials=cluster.max_concurrent,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                storage_path=folder,
                verbose=0,
                callbacks=[hooks.Callback(watch)],
                stop=hooks.Stopper(watch),
                failure_config=tune.FailureConfig(max_failures=cluster.max_failures),
            ),
        ).fit()
    if watch.refused:
        raise UserError(watch.refused)
