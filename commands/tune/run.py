"""Run the command ``tune``: train configurations as ordinary runs and show the best one."""

import json
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pandas as pd

from ablations.base import freeze_through
from ablations.planning.call import Call
from ablations.planning.experiment import Experiment, plan_conditions
from ablations.planning.grid import explicit_options, read_execution_options
from ablations.planning.run_plan import analyse_with_repair, execute
from analysis.metrics.registry import METRICS_WITHOUT_TEST_CLIPS
from analysis.output.output_folder import OutputFolder
from analysis.output.results_index import choose_folder
from analysis.search.best_configurations import (
    best_configuration_row,
    make_best_command,
    write_search_results,
)
from analysis.search.space import (
    OptunaSampler,
    Point,
    Range,
    Space,
    column_name,
    contains,
    draw_points,
    flag_of,
    grid_points,
    option_values,
    parse_values,
    read_validation_score,
)
from commands.ablation import conclude, show_plan
from commands.cli.console import EscapingConsole
from commands.cli.exit_handling import INTERRUPTED
from commands.tune.options import VALIDATION, Tune
from core.cluster.sweep import sweep
from core.config.run import Run
from core.datasets.dataset import Dataset
from core.errors import UserError
from core.executor import ExecutionSummary, is_done, run_label
from core.plan import Plan, PlannedRun
from core.progress import Reporter
from core.registry import Lazy
from core.session import Session
from core.store.run_store import FAILED, STOPPED
from core.system.atomic_files import read_json, short_digest, write_text

Asha = Lazy("ray.tune.schedulers:ASHAScheduler")
REPEAT_FIELDS = ("data__fold", "seed")  # the runs of one configuration differ in these; their scores are averaged


def search(call: Call) -> int:
    """Run a search; return the exit status, as `commands.ablation.run`."""
    tune: Tune = call.command
    settings = read_execution_options(call)
    space, fixed = split_search_space(call)
    uses_optuna = tune.search == "optuna"  # which chooses configurations during the search
    if tune.scheduler != "none" and not settings.cluster.ray:
        raise UserError(f"--scheduler {tune.scheduler} needs Ray: add --ray local, or leave the scheduler out")
    _check_metrics(settings.metric)
    console, out = EscapingConsole(stderr=settings.json, soft_wrap=False), sys.stdout
    with Reporter() as report, redirect_stdout(sys.stderr if settings.json else out):  # own networks may print
        session = Session(settings, report)
        make = _make_planner(call, space, fixed, session)
        if uses_optuna:
            first = make([{key: _first_value(values) for key, values in space.items()}])
            name = _folder_name(first, space, tune)
            trials = session.store.output / call.name / name / "trials.json"
            optuna_search = OptunaSearch(tune, space, make, session, trials)
            plan = make(optuna_search.earlier_points) if optuna_search.earlier_points else first
        else:
            plan = prepare(call, session).plan
            name = plan.name
        default = f"{call.name}/{'-'.join(filter(None, (name, settings.output_key)))}"
        folder = choose_folder(session.store.output, default, settings.folder_name)
        if settings.dry_run:
            show_plan(plan, session, console, out)
            return 0
        try:
            if uses_optuna:
                executed = train_suggestions(optuna_search, session, _make_scheduler(tune, plan))
                plan = optuna_search.plan
            else:
                executed = execute(plan, session, scheduler=_make_scheduler(tune, plan))
        except KeyboardInterrupt:
            report.note("Interrupted. Run the same command again to resume.")
            return INTERRUPTED

        def write_analysis() -> tuple[OutputFolder, pd.DataFrame]:
            results = OutputFolder(plan, session, folder, published_as=settings.published_as, analysis=default)
            is_adaptive = uses_optuna or tune.scheduler != "none"
            return results, write_search_results(results, space, is_adaptive=is_adaptive)

        (results, frame), executed = analyse_with_repair(write_analysis, plan, session, executed)
    status = conclude(results, frame, executed, console, command=call.line)
    if best := make_best_command(frame, plan, space, command=call.line):
        console.print(f"To use the best configuration:\n{best}", soft_wrap=True)
    return status


def prepare(call: Call, session: Session) -> Experiment:
    """Plan a search whose configurations are known in advance, as a study requires.

    Raises
    ------
    UserError
        For a search that chooses configurations during the search.
    """
    tune: Tune = call.command
    if tune.search == "optuna":
        raise UserError(
            "--search optuna: a study needs a search whose configurations are known in advance; give grid or random, "
            "or run tune outside the study"
        )
    space, fixed = split_search_space(call)
    points = (
        draw_points(space, trials=tune.trials, seed=tune.search_seed) if tune.search == "random" else grid_points(space)
    )
    plan = _make_planner(call, space, fixed, session)(points)
    return Experiment(
        plan,
        "",
        lambda results: best_configuration_row(write_search_results(results, space), plan, session.store, space),
    )


def _check_metrics(metrics: Sequence[str]) -> None:
    """Raise `UserError` if a metric is computed on test clips."""
    if on_test := [name for name in metrics if name not in METRICS_WITHOUT_TEST_CLIPS]:
        raise UserError(
            f"--metric {on_test[0]}: is computed on test clips, which must not be used to choose settings; tune shows "
            f"{', '.join(METRICS_WITHOUT_TEST_CLIPS)}"
        )


def _make_planner(call: Call, space: Space, fixed: list[Point], session: Session) -> Callable[[list[Point]], Plan]:
    """Return a function that plans the runs of the given points of the search space."""

    def conditions(base: Run, scratch: Run) -> dict[str, Run]:
        return {_configuration_name(base, space): freeze_through(base, call.command.freeze)}

    def make(points: list[Point]) -> Plan:
        return plan_conditions(call, conditions, [point | more for point in points for more in fixed], session)

    return make


def split_search_space(call: Call) -> tuple[Space, list[Point]]:
    """Split the given options into the search space and fixed options.

    Returns
    -------
    space
        Values or range of each option that has several.
    fixed
        The other options, one dictionary for each fold and seed.

    Raises
    ------
    UserError
        If no option has several values, or one of these options cannot be searched.
    """
    space: Space = {}
    fixed: list[Point] = [{"data__validation": VALIDATION}]
    for key, texts in explicit_options(call).items():
        values = texts if key in REPEAT_FIELDS else parse_values(key, texts)
        if key not in REPEAT_FIELDS and (isinstance(values, Range) or len(values) > 1):
            if key in ("data__name", "data__validation"):
                raise UserError(f"{flag_of(key)} cannot be searched: give one value")
            space[key] = values
        else:
            assert not isinstance(values, Range)
            fixed = [point | {key: value} for point in fixed for value in values]
    if not space:
        raise UserError(
            "tune has nothing to search: give an option several values (--lr 1e-4 1e-3) or a range (--lr 1e-5:1e-2)"
        )
    if not fixed[0]["data__validation"]:
        raise UserError("--validation 0: tune ranks by accuracy on validation clips; give a fraction above 0")
    return space, fixed


class OptunaSearch:
    """Source of runs for a search with Optuna, which suggests one configuration after the other.

    The suggested configurations are stored in a file, so that an interrupted search resumes with the same ones.

    Parameters
    ----------
    tune, space
        Options of the command, and the search space.
    make
        Function that returns the plan of a list of configurations.
    session
        Store and progress display.
    file
        JSON file of the suggested configurations.
    """

    def __init__(
        self, tune: Tune, space: Space, make: Callable[[list[Point]], Plan], session: Session, file: Path
    ) -> None:
        self.earlier_points = _read_trials(file, space) if file.exists() else []
        self.optimizer = OptunaSampler(space, seed=tune.search_seed, known=self.earlier_points)
        self.trials = max(tune.trials, len(self.earlier_points))
        self.stops = tune.scheduler != "none"
        self.make, self.session, self.file = make, session, file
        self.points: list[Point] = []
        self.open: list[tuple[Point, tuple[Run, ...]]] = []  # configurations whose scores Optuna does not have yet
        self.planned: list[PlannedRun] = []
        self.datasets: Mapping[str, Dataset] = {}
        self.waiting: deque[Run] = deque()
        self.total = self.found = 0
        self.new: set[str] = set()  # ids of the runs that had to be trained

    @property
    def plan(self) -> Plan:
        """The runs of all configurations that were suggested so far."""
        return Plan("tune", tuple(self.planned), self.datasets)

    def split_trials(self, n_processes: int) -> None:
        """Do nothing, because every run is already a trial of its own."""

    def next(self) -> Sequence[Run]:
        """Return a list with the next run to train, or an empty sequence after the last one."""
        while not self.waiting and len(self.points) < self.trials:
            self._ask()
        return [self.waiting.popleft()] if self.waiting else ()

    def label(self, run: Run) -> str:
        """Return the name of a run for progress lines, with its number and its configuration."""
        plan = self.plan
        return run_label(run, plan).replace(f"/{len(plan.runs)}]", f"/{self.total}]", 1)

    def run_ended(self, run: Run) -> None:
        """Report to Optuna the mean score of each configuration whose runs have all ended."""
        store = self.session.store
        for entry in list(self.open):
            point, runs = entry
            if all(self._has_ended(run) for run in runs):
                scores = [read_validation_score(store, run) for run in runs]
                finite = [score[0] for score in scores if score is not None]
                self.optimizer.tell(point, sum(finite) / len(finite) if len(finite) == len(runs) else None)
                self.open.remove(entry)

    def _ask(self) -> None:
        """Ask Optuna for the next configuration, and queue those of its runs that are not in the store."""
        point = self.optimizer.ask()
        self.points.append(point)
        if len(self.points) > len(self.earlier_points):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.file, json.dumps(self.points, indent=1))
        plan, earlier = self.make([point]), self.plan.runs
        new = [run for run in plan.runs if run not in earlier]
        missing = [run for run in new if not self._has_ended(run)]
        self.waiting.extend(missing)
        self.new |= {run.id for run in missing}
        self.found += len(new) - len(missing)
        self.planned += plan.planned
        self.datasets = {**self.datasets, **plan.datasets}
        self.total = self.trials * len(plan.runs)
        self.open.append((point, plan.runs))
        self.run_ended(plan.runs[0])

    def _has_ended(self, run: Run) -> bool:
        """Return whether a run needs no more training: it has finished or failed, or the scheduler has stopped it."""
        stopped = self.stops and self.session.store.status(run) == STOPPED
        return stopped or is_done(run, self.session)


def _read_trials(file: Path, space: Space) -> list[Point]:
    """Read the configurations that an earlier, interrupted search has suggested."""
    try:
        points: list[Point] = read_json(file)
        if not isinstance(points, list) or not all(contains(space, point) for point in points):
            raise ValueError("it has no configurations of this search")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file} cannot be read ({error}); delete it: the search starts again and finds its runs in the store"
        ) from None
    return points


def train_suggestions(optuna_search: OptunaSearch, session: Session, scheduler: Any) -> ExecutionSummary:
    """Train the suggested configurations until the last one, on Ray with ``--ray``."""
    while runs := optuna_search.next():
        if session.execution.cluster.ray:
            optuna_search.waiting.extendleft(runs)
            sweep(optuna_search, session, runs=optuna_search.total, first=runs, scheduler=scheduler)
        else:
            session.n_runs_to_come = optuna_search.total - len(optuna_search.plan.runs)
            execute(optuna_search.plan, session)
            optuna_search.waiting.clear()
            optuna_search.run_ended(runs[0])
    runs = optuna_search.plan.runs
    failed = sum(session.store.status(run) == FAILED for run in runs)
    trained = sum(session.store.status(id) != FAILED for id in optuna_search.new)
    return ExecutionSummary(trained, len(runs) - trained - failed, failed, frozenset(optuna_search.new))


def _make_scheduler(tune: Tune, plan: Plan) -> Any:
    """Return the scheduler of Ray Tune, or None; `max_t` is above the last epoch, so that it never ends a run."""
    if tune.scheduler == "none":
        return None
    longest = max(run.training.epochs for run in plan.runs)
    rules = {"metric": "validation_accuracy", "mode": "max", "grace_period": 1, "reduction_factor": 3}
    return Asha(time_attr="epoch", max_t=longest + 1, **rules)


def _configuration_name(run: Run, space: Space) -> str:
    """Return the name of a configuration: its values in the search space."""
    values = option_values(run, list(space)).items()
    return ", ".join(f"{column_name(key)} {f'{v:g}' if isinstance(v, float) else v}" for key, v in values)


def _first_value(values: Any) -> Any:
    return values.low if isinstance(values, Range) else values[0]


def _folder_name(plan: Plan, space: Space, tune: Tune) -> str:
    """Return the name of the results folder of a search with Optuna, which does not depend on the number of trials."""
    text = f"{plan.name} {space} {tune.search} {tune.search_seed}"
    return f"{plan.name.rpartition('-')[0]}-{short_digest(text)}"
