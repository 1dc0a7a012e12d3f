"""Many small runs: trained together against one by one, and a search of heads against the minute it may take.

Images and activations are made before anything is timed; the search is a command of its own and makes its own. One by
one a run takes as long as the one before it, so that 10 of the 100 are timed and counted ten times.
"""

import shutil
import subprocess
import sys
import tempfile
import time
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
from tests.benchmarks.comparison import REPEATS, row, timed

ROOT = Path(__file__).parent.parent.parent
SEEDS, EPOCHS = 20, 20
ALONE = 2  # seeds that are timed one by one
HEAD = {"model__freeze": "block4"}
PERCEPTRON = {"data__name": "features", "model__backbone": "mlp", "model__weights": "random", "data__folds": 5}


def measure() -> Iterator[dict[str, Any]]:
    """Yield a row per comparison; a row with ``at_most`` wants a ratio no larger than its target."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder)
        session = Session(ExecutionOptions(results=results))
        yield _together("a head", session, HEAD)
        yield _together("a perceptron", session, PERCEPTRON, _table(results))
        yield _search(results)


def _plan(session: Session, seeds: int, settings: dict[str, Any], *roots: Path) -> Plan:
    """Plan some seeds x 5 folds, with what they read made."""
    points = [{"data__fold": "all", "seed": seed, "training__epochs": EPOCHS, **settings} for seed in range(seeds)]
    plan = make_plan("bench", lambda base, scratch: {"one": base}, points, roots=roots, cache=session.store.cache)
    prepare(plan.runs[0], plan.datasets[plan.runs[0].data.content], session)
    return plan


def _table(results: Path) -> Path:
    """Write 1000 rows of 57 features, about as many as reports have of GTZAN."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.standard_normal((1000, 57)), columns=[f"feature{k}" for k in range(57)])
    frame.insert(0, "filename", [f"{k}.wav" for k in range(1000)])
    frame["label"] = [f"class{k % 10}" for k in range(1000)]
    frame.to_csv(results / "features.csv", index=False)
    return results / "features.csv"


def _together(what: str, session: Session, *given: Any) -> dict[str, Any]:
    """Time runs one by one and together, in turn, so that both meet the same load."""
    plans = {"alone": _plan(session, ALONE, *given), "together": _plan(session, SEEDS, *given)}
    pairs = []
    for _ in range(REPEATS):
        alone, together = (_seconds(plan, session, alone=way == "alone") for way, plan in plans.items())
        pairs.append((alone * SEEDS / ALONE, together))
    return row(f"{SEEDS} seeds x 5 folds of {what}: one by one / together", *zip(*pairs, strict=True), 5.0)


def _seconds(plan: Plan, session: Session, *, alone: bool) -> float:
    """Train the runs of a plan anew."""
    shutil.rmtree(session.store.runs)
    session.store.runs.mkdir()
    group_runs = (lambda runs, datasets: [[run] for run in runs]) if alone else executor.group_runs
    with mock.patch.object(executor, "group_runs", group_runs):
        start = time.perf_counter()
        done = executor.execute(plan, session)
        seconds = time.perf_counter() - start
    assert (done.trained, done.failed) == (len(plan.runs), 0)
    return seconds


def _search(results: Path) -> dict[str, Any]:
    """Time the command that tries 200 configurations, from nothing, images and tables included."""
    rates = [f"{base}e-{k}" for base in (1, 2, 3, 5) for k in range(1, 6)]
    decays = [f"{base}e-{k}" for base in (1, 3) for k in range(1, 6)]
    seconds = []
    for k in range(REPEATS):
        words = [sys.executable, "run_ablation.py", "tune", "--freeze", "last", "--results", str(results / f"tune{k}")]
        words += ["--lr", *rates, "--weight-decay", *decays]
        command = partial(subprocess.run, words, check=True, capture_output=True, cwd=ROOT)
        seconds.append(timed(command))
    return row("tune of 200 heads / a minute", seconds, 60.0, 1.0, at_most=True)
