"""Many small runs: trained together against one by one, and a search over heads against one minute.

Images and activations are built before anything is timed; only the search starts without them. One by one, every run
takes equally long, so 10 of the 100 runs are timed and their time multiplied by ten.
"""

import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd

from core import executor
from core.config.execution import ExecutionOptions
from core.plan import Plan, make_plan
from core.session import Session
from core.training.prepare import prepare
from tests.benchmarks.comparison import COMMAND, REPEATS, Row, compare, run_process, time_in_turn, time_once

SEEDS, EPOCHS = 20, 20
SINGLE_SEEDS = 2  # timed one by one
HEAD = {"model__freeze": "block4"}
PERCEPTRON = {"data__name": "features", "model__backbone": "mlp", "model__weights": "random", "data__folds": 5}


def measure() -> Iterator[Row]:
    """Yield a row per comparison."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder)
        session = Session(ExecutionOptions(results=results))
        yield _together("a head", session, HEAD)
        yield _together("a perceptron", session, PERCEPTRON, _write_table(results))
        yield _search(results)


def _plan(session: Session, seeds: int, settings: dict[str, Any], *roots: Path) -> Plan:
    """Return a plan of some seeds x 5 folds, whose inputs are in the cache."""
    points = [{"data__fold": "all", "seed": seed, "training__epochs": EPOCHS, **settings} for seed in range(seeds)]
    plan = make_plan("bench", lambda base, scratch: {"one": base}, points, roots=roots, cache=session.store.cache)
    prepare(plan.runs[0], plan.datasets[plan.runs[0].data.content], session)
    return plan


def _write_table(results: Path) -> Path:
    """Write a table of 1000 rows and 57 features, the size of the feature table of GTZAN."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.standard_normal((1000, 57)), columns=[f"feature{k}" for k in range(57)])
    frame.insert(0, "filename", [f"{k}.wav" for k in range(1000)])
    frame["label"] = [f"class{k % 10}" for k in range(1000)]
    frame.to_csv(results / "features.csv", index=False)
    return results / "features.csv"


def _together(what: str, session: Session, settings: dict[str, Any], *roots: Path) -> Row:
    """Compare runs one by one with runs in groups."""
    few, all_runs = (_plan(session, seeds, settings, *roots) for seeds in (SINGLE_SEEDS, SEEDS))

    def train_single() -> None:
        with mock.patch.object(executor, "group_runs", lambda runs, datasets: [[run] for run in runs]):
            _train(few, session)

    single, together = time_in_turn(train_single, partial(_train, all_runs, session), warm_up=False)
    scaled = [seconds * SEEDS / SINGLE_SEEDS for seconds in single]
    return compare(f"{SEEDS} seeds x 5 folds of {what}: one by one / together", scaled, together, 5.0)


def _train(plan: Plan, session: Session) -> None:
    """Train all runs of a plan, after deleting those in the store."""
    shutil.rmtree(session.store.runs)
    session.store.runs.mkdir()
    summary = executor.execute(plan, session)
    assert (summary.trained, summary.failed) == (len(plan.runs), 0)


def _search(results: Path) -> Row:
    """Compare the command that tries 200 configurations, from an empty results folder, with a minute."""
    rates = [f"{base}e-{k}" for base in (1, 2, 3, 5) for k in range(1, 6)]
    decays = [f"{base}e-{k}" for base in (1, 3) for k in range(1, 6)]
    words = [*COMMAND, "tune", "--freeze", "last", "--lr", *rates, "--weight-decay", *decays]
    folders = (["--results", str(results / f"tune{k}")] for k in range(REPEATS))
    seconds = [time_once(partial(run_process, [*words, *folder])) for folder in folders]
    return compare("tune of 200 heads / 60 s", seconds, 60.0, 1.0, at_most=True)
