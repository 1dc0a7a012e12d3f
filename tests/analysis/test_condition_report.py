"""Summaries and footnotes from records written to a store, without training."""

import math
from pathlib import Path
from typing import Any

import finished_runs
import numpy as np
import pytest

from analysis.condition_report import make_footnotes
from analysis.metrics.condition_summary import run_counts, summarise_conditions
from analysis.search.best_configurations import _validation_fraction
from core.config.run import Run
from core.plan import Plan, PlannedRun
from core.store.run_store import FAILED, STOPPED, Store

TARGETS = np.array([0, 0, 1, 1])  # the test fold has no clip of the third class


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def plan_of(*runs: Run) -> Plan:
    return Plan("freeze", tuple(PlannedRun(str(k), run, runs[0]) for k, run in enumerate(runs)), {})


def finish(store: Store, run: Run, predicted: list[int], **more: Any) -> None:
    finished_runs.finish(store, run, np.eye(3)[predicted], TARGETS, **more)


def test_summary_macro_f1_is_over_classes_in_test_fold(store: Store) -> None:
    """Over the predicted classes as well, the second run would have 4 / 9."""
    first, second = Run(), Run().replace(model__freeze="stem")
    finish(store, first, [0, 0, 1, 0])
    finish(store, second, [0, 2, 1, 1])
    frame = summarise_conditions(plan_of(first, second), store)
    assert frame["macro_f1"].tolist() == pytest.approx([(4 / 5 + 2 / 3) / 2, (2 / 3 + 1) / 2])
    recorded = [store.record(run).metrics.macro_f1 for run in (first, second)]  # type: ignore[union-attr]
    assert recorded == pytest.approx([(4 / 5 + 2 / 3) / 2, (2 / 3 + 1 + 0) / 3])
    assert "classes in the test fold" in " ".join(make_footnotes(plan_of(first, second), store))


def test_footnotes_have_preparation_time(store: Store) -> None:
    first, second = Run(), Run().replace(model__freeze="stem")
    finish(store, first, [0, 0, 1, 1], seconds={"preparation": 3.0, "training": 0.1, "evaluation": 0.0})
    finish(store, second, [0, 0, 1, 1], seconds={"preparation": 0.5, "training": 0.1, "evaluation": 0.0})
    plan = plan_of(first, second)
    assert summarise_conditions(plan, store)["seconds"].tolist() == pytest.approx([0.1, 0.1])
    (note,) = [note for note in make_footnotes(plan, store) if note.startswith("Time:")]
    assert "another 3.5 s in total, at most 3.0 s per run" in note


def test_run_counts_of_each_status(store: Store) -> None:
    runs = [Run(seed=seed) for seed in range(4)]
    finish(store, runs[0], [0, 0, 1, 1])
    store.write_record(runs[1], FAILED, {"reason": "no"})
    scores = {"epoch": 1, "validation_accuracy": 0.5, "validation_loss": 1.0}
    store.write_record(runs[2], STOPPED, {"reason": "early", "metrics": scores})
    found = run_counts(runs, {run.id: store.record(run) for run in runs})
    assert found == {"runs": 4, "failed": 1, "missing": 2, "run_ids": [run.id for run in runs]}


def test_summary_of_record_without_metric_is_nan(store: Store) -> None:
    finish(store, Run(), [0, 0, 1, 1], metrics={"accuracy": 1.0})
    (row,) = summarise_conditions(plan_of(Run()), store).to_dict("records")
    assert row["accuracy"] == 1.0
    assert math.isnan(row["accuracy_best_epoch"])


def test_summary_with_missing_seed_weights_folds_equally(store: Store) -> None:
    """A mean over runs would be 2/3."""
    runs = [Run(seed=seed).replace(data__fold=fold) for fold, seed in ((1, 0), (1, 1), (2, 0), (2, 1))]
    for run, predicted in zip(runs, ([0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 2, 2]), strict=False):
        finish(store, run, predicted)  # the last run is missing
    plan = Plan("freeze", tuple(PlannedRun("none", run, run) for run in runs), {})
    (row,) = summarise_conditions(plan, store).to_dict("records")
    assert [row[name] for name in ("accuracy", "macro_f1", "balanced_accuracy", "recall")] == [0.5] * 4


def test_search_names_the_share_of_validation_clips(store: Store) -> None:
    """Groups are held out whole, so that 20 % may become 25 %."""
    runs = [Run(seed=seed).replace(data__validation=0.2) for seed in range(2)]
    assert _validation_fraction(runs, store) == "20%"
    finish(store, runs[0], [0, 0, 1, 1])
    assert _validation_fraction(runs, store) == "25% (requested: 20%)"
    finish(store, runs[1], [0, 0, 1, 1], clips={"train": 90, "validation": 10, "test": 4})
    assert _validation_fraction(runs, store) == "10% to 25% (requested: 20%)"
