"""Finished runs in a store, with logits chosen by a test instead of training."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from core.config.run import Run
from core.plan import Plan, PlannedRun
from core.store.run_store import FINISHED, Store
from core.training import metrics

History = Sequence[Mapping[str, float]]


def finish(
    store: Store,
    run: Run,
    logits: np.ndarray,
    targets: np.ndarray,
    *,
    history: History = (),
    best: np.ndarray | None = None,
    **more: Any,
) -> None:
    """Write a finished run: record, history and predictions.

    Parameters
    ----------
    logits, targets
        Of the last epoch: (clips, classes) and (clips,).
    history
        Rows of history.csv (default: one epoch).
    best
        Logits of the best epoch (clips, classes); None: not stored, with an accuracy of 1.
    more
        Fields of the record that replace the defaults.
    """
    best_accuracy = 1.0 if best is None else metrics.accuracy(best, targets)
    by_class = {name: values.tolist() for name, values in asdict(metrics.per_class(logits, targets)).items()}
    rows = [dict(row) for row in history] or [{"epoch": 1, "test_accuracy": metrics.accuracy(logits, targets)}]
    values = {
        "metrics": metrics.summarise(logits, targets) | {"accuracy_best_epoch": best_accuracy, "epochs": len(rows)},
        "per_class": by_class,
        "confusion": metrics.confusion_matrix(logits, targets).tolist(),
        "class_names": [f"class {k}" for k in range(logits.shape[1])],
        "parameters": 9,
        "trainable_parameters": 4,
        "clips": {"train": 6, "validation": 2, "test": len(targets)},
        "seconds": {"preparation": 0.0, "training": 1.0, "evaluation": 0.5},
    }
    store.folder(run).mkdir(parents=True, exist_ok=True)
    store.write_history(run, rows)
    store.write_predictions(run, [f"{k}.wav" for k in range(len(targets))], targets, logits, best=best)
    store.write_record(run, FINISHED, values | more, files=("history.csv", "predictions.parquet"))


def scored(right: int, clips: int) -> tuple[np.ndarray, np.ndarray]:
    """Return logits (clips, 2) and targets (clips,); the first `right` predictions are correct."""
    targets = np.arange(clips) % 2
    predicted = np.where(np.arange(clips) < right, targets, 1 - targets)
    return 4.0 * np.eye(2)[predicted], targets


def plan_of(runs: Mapping[str, Sequence[Run]], *, ablation: str = "freeze", groups: Sequence[str] = ()) -> Plan:
    """Return a plan of conditions with runs in the same order of folds and seeds; the first is the reference.

    `groups`: recording of each clip of `finish`, for tests over clips; without it the plan has no data set.
    """
    references = next(iter(runs.values()))
    planned = [
        PlannedRun(name, run, ref) for name, part in runs.items() for run, ref in zip(part, references, strict=True)
    ]
    clips = pd.DataFrame({"path": [f"{k}.wav" for k in range(len(groups))], "group": list(groups)})
    datasets: Any = {references[0].data.content: SimpleNamespace(clips=clips)} if groups else {}
    return Plan(ablation, tuple(planned), datasets)
