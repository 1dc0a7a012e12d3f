"""Many small runs: trained together against one by one, and a search of heads against the minute it may take.

Images and activations are made before anything is timed; the search is a command of its own and makes its own.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd

from core import executor
from core.execution import Execution
from core.plan import Plan, make_plan
from core.session import Session
from core.training.prepare import prepare

ROOT = Path(__file__).parent.parent.parent
SEEDS, EPOCHS, REPEATS = 20, 20, 2
HEAD = {"model__freeze": "block4"}
PERCEPTRON = {"data__name": "features", "model__backbone": "mlp", "model__weights": "random", "data__folds": 5}


def measure() -> Iterator[dict[str, Any]]:
    """Yield a row per comparison; a row with ``at_most`` wants a ratio no larger than its target."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder)
        session = Session(Execution(results=results))
        yield _together("a head", _plan(session, HEAD), session, target=5.0)
        yield _together("a perceptron", _plan(session, PERCEPTRON, _table(results)), session, target=5.0)
        yield _search(results / "search")


def _plan(session: Session, settings: dict[str, Any], *roots: Path) -> Plan:
    """Plan 20 seeds x 5 folds, with what they read made."""
    points = [{"data__fold": "all", "seed": seed, "training__epochs": EPOCHS, **settings} for seed in range(SEEDS)]
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


def _together(what: str, plan: Plan, session: Session, *, target: float) -> dict[str, Any]:
    """Time the runs of a plan one by one and together, in turn, so that both meet the same load; the least counts."""
    seconds: dict[str, list[float]] = {"alone": [], "together": []}
    for k in range(REPEATS):
        for way in sorted(seconds, reverse=bool(k % 2)):
            shutil.rmtree(session.store.runs)
            session.store.runs.mkdir()
            lots = executor.lots if way == "together" else lambda runs, datasets: [[run] for run in runs]
            with mock.patch.object(executor, "lots", lots):
                start = time.perf_counter()
                done = executor.execute(plan, session)
                seconds[way].append(time.perf_counter() - start)
            assert (done.trained, done.failed) == (len(plan.runs), 0)
    alone, together = min(seconds["alone"]), min(seconds["together"])
    return _row(f"{SEEDS} seeds x 5 folds of {what}: one by one / together", alone, together, target)


def _search(results: Path) -> dict[str, Any]:
    """Time the command that tries 200 configurations, from nothing, images and tables included."""
    rates = [f"{base}e-{k}" for base in (1, 2, 3, 5) for k in range(1, 6)]
    decays = [f"{base}e-{k}" for base in (1, 3) for k in range(1, 6)]
    words = [sys.executable, "run_ablation.py", "tune", "--frozen", "last", "--results", str(results)]
    start = time.perf_counter()
    subprocess.run([*words, "--lr", *rates, "--weight-decay", *decays], check=True, capture_output=True, cwd=ROOT)
    return _row("tune of 200 heads / a minute", time.perf_counter() - start, 60.0, 1.0) | {"at_most": True}


def _row(what: str, one: float, other: float, target: float) -> dict[str, Any]:
    return {"what": what, "seconds": one, "over_seconds": other, "ratio": one / other, "target": target}
