"""Results folders of 1,000 and 10,000 finished runs: the finished command again, its plan, and the report page.

The runs are written by the store with random logits instead of training. Times are of whole processes.
"""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from core import executor
from core.config.run import Run
from core.datasets.dataset import Dataset
from core.session import Session
from core.training import metrics
from core.training.results import collect_provenance
from run_ablation import main
from tests.benchmarks.comparison import COMMAND, Row, compare, run_process, time_in_turn

SIZES = (1_000, 10_000)
MAX_SECONDS = {"finished command": 10.0, "its plan (--dry-run)": 10.0, "report page": 60.0}  # at the larger size
SETTINGS = "--block 3 --n-mels 32 --n-frames 32 --duration 0.3 --epochs 1 --device cpu --fold all"


def measure() -> Iterator[Row]:
    """Yield two rows per command: against its time with fewer runs, and against the seconds it may take."""
    with tempfile.TemporaryDirectory() as folder:
        fewer, more = (_time_commands(Path(folder) / str(size), size) for size in SIZES)
    for (name, limit), few, many in zip(MAX_SECONDS.items(), fewer, more, strict=True):
        yield compare(f"{name}: {SIZES[1]:,} runs / {SIZES[0]:,} runs", many, few, SIZES[1] / SIZES[0], at_most=True)
        yield compare(f"{name}: {SIZES[1]:,} runs / {limit:g} s", many, limit, 1.0, at_most=True)


def _time_commands(results: Path, n_runs: int) -> tuple[list[float], ...]:
    """Return the seconds of each command of MAX_SECONDS: two conditions, five folds and as many seeds as needed."""
    seeds = [str(seed) for seed in range(n_runs // 10)]
    words = ["freeze", *SETTINGS.split(), "--seed", *seeds, "--results", str(results)]
    write_runs(words)
    run_process([*COMMAND, *words])  # writes tables and figures for the first time
    lines = words, [*words, "--dry-run"], ["report", "--results", str(results)]
    return time_in_turn(*(partial(run_process, [*COMMAND, *line]) for line in lines), warm_up=False)


def write_runs(words: list[str]) -> None:
    """Write the runs of a command without training them."""
    patches = {
        "train": _write_run,
        "group_runs": lambda runs, datasets: [[run] for run in runs],
        "report_accuracy": lambda *arguments, **options: None,
    }
    with mock.patch.multiple(executor, **patches):
        assert main(words) == 0


def _write_run(run: Run, dataset: Dataset, session: Session, *, label: str = "") -> None:
    """Write a finished run with random logits in place of `core.training.trainer.train`."""
    rng = np.random.default_rng(int(run.id, 16))
    rows = dataset.clips.iloc[dataset.split(run.data.fold).test]
    targets, n_classes = rows["label"].to_numpy(), len(dataset.class_names)
    logits = rng.normal(size=(len(rows), n_classes)).astype(np.float32)
    logits[np.arange(len(rows)), targets] += 1
    history = {"epoch": 1, "train_loss": rng.random(), "train_accuracy": 0.5, "train_seconds": 1.0}
    history |= {"test_loss": rng.random(), "test_accuracy": metrics.accuracy(logits, targets)}
    by_class = metrics.per_class(logits, targets)
    values = collect_provenance(session) | {
        "metrics": metrics.summarise(logits, targets) | {"epochs": 1},
        "per_class": {name: getattr(by_class, name).tolist() for name in ("precision", "recall", "f1", "support")},
        "confusion": metrics.confusion_matrix(logits, targets).tolist(),
        "class_names": list(dataset.class_names),
        "parameters": 1000,
        "trainable_parameters": 900,
        "clips": {"train": len(dataset.clips) - len(rows), "validation": 0, "test": len(rows)},
        "seconds": {"preparation": 1.0, "training": 1.0, "evaluation": 0.1},
    }
    outputs = rows["path"].tolist(), targets, logits
    weights = {"w": torch.zeros(3)}
    session.store.write_outcome(run, values, history=[history], predictions=outputs, weights=weights)
