"""Training that makes its images as it goes against training on stored ones, with equal weights at the end.

On the embedded data set with EfficientNet-Lite0, as a newcomer runs it: three windows, 128 x 160 pixels.
"""

import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch

from core import datasets
from core.config.execution import ExecutionOptions
from core.config.run import Run
from core.plan import resolve
from core.session import Session
from core.training.prepare import prepare
from core.training.trainer import TrainingLoop, seed_epoch, shuffle_epoch_rows
from tests.benchmarks.comparison import in_turn, row

CLIPS, EPOCHS, TARGET = 128, 6, 1.25


def measure() -> Iterator[dict[str, Any]]:
    """Yield one row: live training over training on stored images, at most `TARGET`."""
    with tempfile.TemporaryDirectory() as results:
        session = Session(ExecutionOptions(results=Path(results)))
        dataset = datasets.load_dataset("instruments")
        stored = resolve(Run(), dataset, dataset.compute_fingerprint(session.store.cache))
        runs = {"live": stored.replace(training__live=True), "stored": stored}
        fits = [TrainingLoop(run, prepare(run, dataset, session), session, name) for name, run in runs.items()]
        live, on_stored = in_turn(*(partial(_epoch, fit, count()) for fit in fits), repeats=EPOCHS)
        weights = [fit.prepared.backbone.state_dict() for fit in fits]
        if session.device.type == "cpu":
            assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    yield row(f"training on {CLIPS} clips live / on stored images", live, on_stored, TARGET, at_most=True)


def _epoch(fit: TrainingLoop, epochs: Iterator[int]) -> None:
    epoch = next(epochs)
    fit._train(shuffle_epoch_rows(fit.prepared, epoch, seed_epoch(0, epoch))[:CLIPS], epoch)
