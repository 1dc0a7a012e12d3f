"""Fixtures that run an ablation on small recordings in this process."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from small_runs import SMALL_SETTINGS

from ablations.base import Ablation
from analysis.output.output_folder import OutputFolder
from core.config.execution import ExecutionOptions
from core.executor import execute
from core.plan import make_plan
from core.session import Session

Ran = tuple[pd.DataFrame, OutputFolder]
RunAblation = Callable[..., Ran]


@pytest.fixture(scope="session")
def shared_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one results folder for all ablations, so that they share runs."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture
def run_ablation(sounds: Path, shared_results: Path, tmp_path: Path) -> RunAblation:
    """Return a function that plans, trains and analyses an ablation for a grid of settings."""

    def run(ablation: Ablation, *points: Mapping[str, Any], name: str = "test") -> Ran:
        session = Session(ExecutionOptions(results=shared_results, device="cpu", threads=1))
        grid = [{**SMALL_SETTINGS, **point} for point in points or ({},)]
        plan = make_plan(name, ablation.conditions, grid, roots=[sounds], cache=session.store.cache)
        execute(plan, session)
        results = OutputFolder(plan, session, tmp_path / name)
        return ablation.analyse(results), results

    return run
