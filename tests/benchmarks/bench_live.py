"""Training that computes its images on the fly against training on stored images, with equal weights at the end.

EfficientNet-Lite0 with default settings on the embedded data set: three windows, 128 x 160 pixels.
"""

import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

import torch

from core.config.execution import ExecutionOptions
from core.session import Session
from core.training.epoch_order import seed_epoch, shuffle_epoch_rows
from core.training.prepare import prepare
from core.training.trainer import TrainingLoop
from tests.benchmarks.bench_training import embedded_run
from tests.benchmarks.comparison import Row, compare, time_in_turn

CLIPS, EPOCHS, TARGET = 128, 6, 1.25


def measure() -> Iterator[Row]:
    """Yield one row."""
    with tempfile.TemporaryDirectory() as results:
        session = Session(ExecutionOptions(results=Path(results)))
        stored, dataset = embedded_run(session)
        runs = {"on the fly": stored.replace(training__live=True), "stored": stored}
        fits = [TrainingLoop(run, prepare(run, dataset, session), session, name) for name, run in runs.items()]
        times = time_in_turn(*(partial(_epoch, fit, count()) for fit in fits), repeats=EPOCHS)
        weights = [fit.prepared.backbone.state_dict() for fit in fits]
        if session.device.type == "cpu":
            assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    yield compare(f"training on {CLIPS} clips: images on the fly / stored", *times, TARGET, at_most=True)


def _epoch(fit: TrainingLoop, epochs: Iterator[int]) -> None:
    epoch = next(epochs)
    fit._train_epoch(shuffle_epoch_rows(fit.prepared, epoch, seed_epoch(0, epoch))[:CLIPS], epoch)
