"""Training on a GPU: epochs against the bare loop, and a cached frozen prefix.

Epochs are in bf16 and channels-last; torch checks that nothing in them waits for the device.
`rows` accepts any device, so that a test can run it on a CPU.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from core.config.execution import ExecutionOptions
from core.config.run import Run
from core.datasets.dataset import Dataset
from core.session import Session
from core.training.epoch_order import seed_epoch, shuffle_epoch_rows
from core.training.prepare import PreparedRun, prepare
from core.training.trainer import TrainingLoop
from tests.benchmarks.bench_training import bare_loop, embedded_run
from tests.benchmarks.comparison import Function, Row, compare, time_in_turn

RANDOM_WEIGHTS = {"model__weights": "random", "model__weights_sha256": ""}
NO_GPU = "  not measured: this machine has no GPU"


@dataclass(frozen=True)
class Size:
    """Amount of work of each comparison."""

    backbones: tuple[str, ...] = ("resnet50", "densenet201", "efficientnet_lite0")
    batch_sizes: tuple[int, ...] = (8, 32, 128)
    compiled_batch_size: int = 8
    steps: int = 50
    repeats: int = 3
    precision: str = "bf16"
    epochs: int = 20


def measure() -> Iterator[Row]:
    """Yield a row per comparison; none without a GPU."""
    yield from on_gpu(rows)


def on_gpu(rows: Callable[[Run, Dataset, Session, Size], Iterator[Row]]) -> Iterator[Row]:
    """Yield rows measured on the embedded data set; none without a GPU."""
    if not torch.cuda.is_available():
        print(NO_GPU)
        return
    with tempfile.TemporaryDirectory() as results:
        session = Session(ExecutionOptions(results=Path(results)))
        yield from rows(*embedded_run(session), session, Size())


def rows(run: Run, dataset: Dataset, session: Session, size: Size) -> Iterator[Row]:
    """Yield a row per comparison in this process."""
    for backbone in size.backbones:
        for batch_size in size.batch_sizes:
            yield _epoch(random_run(run, backbone, batch_size, size.precision), dataset, session, size)
    yield _prefix(run.replace(training__epochs=size.epochs), dataset, session, size)


def random_run(run: Run, backbone: str, batch_size: int, precision: str) -> Run:
    """Return the run of a network with random weights."""
    training = {"training__precision": precision, "training__batch_size": batch_size}
    return run.replace(model__backbone=backbone, **RANDOM_WEIGHTS, **training)


def _epoch(run: Run, dataset: Dataset, session: Session, size: Size) -> Row:
    """Compare the training part of an epoch with the bare loop over four batches in memory."""
    fits = [TrainingLoop(run, prepare(run, dataset, session), session, "epoch") for _ in range(2)]
    order = batch_rows(fits[0].prepared, run, size)
    bare = bare_loop(fits[1].prepared, order, run, session, held=4)
    fits[0]._train_epoch(order, 0)
    with _waiting_is_an_error(session.device):
        fits[0]._train_batches(order, 0)
    times = time_on_device(size.repeats, session.device, lambda: fits[0]._train_epoch(order, 0), bare)
    what = f"{run.model.backbone}, {run.training.batch_size} clips: epoch / bare forward, backward, step"
    return compare(what, *times, 1.05, at_most=True)


def batch_rows(prepared: PreparedRun, run: Run, size: Size) -> torch.Tensor:
    """Return the indices of `size.steps` full batches (clips,); clips are repeated."""
    order, n = shuffle_epoch_rows(prepared, 0, seed_epoch(0, 0)), run.training.batch_size * size.steps
    return order.repeat(-(-n // len(order)))[:n]


def _prefix(run: Run, dataset: Dataset, session: Session, size: Size) -> Row:
    """Compare training of a head without and with a cached prefix, whose computation is included."""
    run = run.replace(model__freeze="block4", **RANDOM_WEIGHTS)

    def train(*, reuse: bool) -> None:
        shutil.rmtree(session.store.cache / "activations", ignore_errors=True)
        TrainingLoop(run, prepare(run, dataset, session, reuse=reuse), session, f"reuse {reuse}").train()
        shutil.rmtree(session.store.folder(run), ignore_errors=True)

    sides = partial(train, reuse=False), partial(train, reuse=True)
    times = time_in_turn(*sides, repeats=size.repeats, warm_up=False)
    return compare(f"{size.epochs} epochs of a head: prefix recomputed / cached", *times, 8)


@contextmanager
def _waiting_is_an_error(device: torch.device) -> Iterator[None]:
    """Let torch raise an error for every operation that makes the CPU wait for a GPU."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def time_on_device(repeats: int, device: torch.device, *functions: Function) -> tuple[list[float], ...]:
    """Return the seconds of each function as `time_in_turn` does, including the work of the device."""
    return time_in_turn(*(partial(_synchronised, function, device) for function in functions), repeats=repeats)


def _synchronised(function: Function, device: torch.device) -> None:
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
