"""A store of thousands of finished runs: the finished command again, its plan and the page, at 1,000 and 10,000 runs.

One real run stands for all: the others are written by the store itself, each with outputs of its own. Seconds are of
whole processes, as a user starts them; the ratios are of those at ten times the runs, and against the wanted seconds.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core import executor
from core.config.run import Run
from core.datasets.dataset import Dataset
from core.session import Session
from core.training import metrics
from core.training.results import collect_provenance
from run_ablation import main
from tests.benchmarks.comparison import in_turn, row

ROOT = Path(__file__).parent.parent.parent
SIZES = (1_000, 10_000)
WANTED = {"the finished command": 10.0, "its plan (--dry-run)": 10.0, "the page": 60.0}  # seconds at the larger size
SMALL = ["--block", "3", "--n-mels", "32", "--n-frames", "32", "--duration", "0.3", "--epochs", "1", "--device", "cpu"]


def measure() -> Iterator[dict[str, Any]]:
    """Yield a row per comparison; all want a ratio no larger than their target."""
    with tempfile.TemporaryDirectory() as folder:
        seconds: dict[tuple[str, int], list[float]] = {}
        for size in SIZES:
            results = Path(folder) / str(size)
            words = command(size, results)
            fill(words)
            kinds = {
                "the finished command": words,
                "its plan (--dry-run)": [*words, "--dry-run"],
                "the page": ["report", "--results", str(results)],
            }
            _run(words)  # writes tables and figures for the first time
            found = in_turn(*(partial(_run, said) for said in kinds.values()), warm=False)
            seconds |= {(name, size): each for name, each in zip(kinds, found, strict=True)}
    few, many = SIZES
    for name in dict.fromkeys(name for name, _ in seconds):
        larger, smaller = seconds[name, many], seconds[name, few]
        yield row(f"{name}: {many:,} runs / {few:,} runs", larger, smaller, many / few, at_most=True)
        if name in WANTED:
            yield row(f"{name}: {many:,} runs / {WANTED[name]:g} s", larger, WANTED[name], 1.0, at_most=True)


def command(runs: int, results: Path) -> list[str]:
    """Return the words of a command of so many runs: two conditions, five folds, and as many seeds as it takes."""
    seeds = [str(seed) for seed in range(runs // 10)]
    return ["freeze", *SMALL, "--fold", "all", "--seed", *seeds, "--results", str(results)]


def fill(words: list[str]) -> None:
    """Write the runs of a command without training them: logits are drawn, everything else is made from those."""
    rng = np.random.default_rng(0)

    def drawn(run: Run, dataset: Dataset, session: Session, *, label: str = "") -> None:
        rows = dataset.clips.iloc[dataset.split(run.data.fold).test]
        targets, classes = rows["label"].to_numpy(), len(dataset.class_names)
        logits = rng.normal(size=(len(rows), classes)).astype(np.float32)
        logits[np.arange(len(rows)), targets] += 1
        history = [{"epoch": 1, "train_loss": rng.random(), "train_accuracy": 0.5, "train_seconds": 1.0}]
        history[0] |= {"test_loss": rng.random(), "test_accuracy": metrics.accuracy(logits, targets)}
        by_class = metrics.per_class(logits, targets)
        scores = {"precision": by_class.precision, "recall": by_class.recall, "f1": by_class.f1}
        values = collect_provenance(session) | {
            "metrics": metrics.summarise(logits, targets) | {"epochs": 1},
            "per_class": {n: v.tolist() for n, v in (scores | {"support": by_class.support}).items()},
            "confusion": metrics.confusion_matrix(logits, targets).tolist(),
            "class_names": list(dataset.class_names),
            "parameters": 1000,
            "trainable_parameters": 900,
            "clips": {"train": len(dataset.clips) - len(rows), "validation": 0, "test": len(rows)},
            "seconds": {"preparation": 1.0, "training": 1.0, "evaluation": 0.1},
        }
        outputs = rows["path"].tolist(), targets, logits
        weights = {"w": torch.zeros(3)}
        session.store.write_outcome(run, values, history=history, predictions=outputs, weights=weights)

    trained, together, said = executor.train, executor.group_runs, executor.report_accuracy
    executor.train = drawn
    executor.group_runs = lambda runs, datasets: [[run] for run in runs]
    executor.report_accuracy = lambda *arguments, **more: None
    try:
        assert main(words) == 0
    finally:
        executor.train, executor.group_runs, executor.report_accuracy = trained, together, said


def _run(words: list[str]) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    whole = [sys.executable, str(ROOT / "run_ablation.py"), *words]
    subprocess.run(whole, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
