"""What a GPU makes of it: epochs against bare steps, the frontend, and a frozen prefix.

Epochs are in bf16 (in fp32 in the test, since not every CPU has bf16) and channels-last; that nothing in them waits for
the device is checked by torch itself. The frontend is against librosa on one core. CUDA graphs and several trials at
once take long and are files of their own, ``gpu_compile`` and ``gpu_trials``. Without a GPU one line says so; `rows`
takes any device, so that a test goes through all of it on a CPU.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core import datasets
from core.config.execution import ExecutionOptions
from core.config.run import Clip, Frontend, Run
from core.datasets.dataset import Dataset
from core.inputs.log_mel import LogMel
from core.plan import resolve
from core.session import Session
from core.training.optimizers import make_optimizer
from core.training.prepare import PreparedRun, prepare
from core.training.step import TrainingStep
from core.training.trainer import TrainingLoop, seed_epoch, shuffle_epoch_rows
from tests.benchmarks.bench_frontend import _librosa_mels
from tests.benchmarks.comparison import Work, in_turn, row

RANDOM = {"model__weights": "random", "model__weights_sha256": ""}


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    backbones: tuple[str, ...] = ("resnet50", "densenet201", "efficientnet_lite0")
    batches: tuple[int, ...] = (8, 32, 128)
    small: int = 8  # the batch that is compiled too
    steps: int = 50
    repeats: int = 3
    precision: str = "bf16"
    clips: int = 256  # through the frontend
    compared: int = 16  # of them, by librosa
    seconds: float = 4.0
    epochs: int = 20


def measure() -> Iterator[dict[str, Any]]:
    """Yield a row per comparison, none without a GPU."""
    yield from on_gpu(rows)


def on_gpu(rows: Callable[[Run, Dataset, Session, Size], Iterator[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Yield the rows of the embedded data set on a GPU, none without one."""
    if not torch.cuda.is_available():
        print("  there is no GPU here: nothing of this was measured")  # noqa: T201
        return
    with tempfile.TemporaryDirectory() as results:
        session = Session(ExecutionOptions(results=Path(results)))
        dataset = datasets.load_dataset("instruments")
        yield from rows(
            resolve(Run(), dataset, dataset.compute_fingerprint(session.store.cache)), dataset, session, Size()
        )


def rows(run: Run, dataset: Dataset, session: Session, size: Size) -> Iterator[dict[str, Any]]:
    """Yield a row per comparison in this process."""
    for backbone in size.backbones:
        for batch in size.batches:
            yield _epoch(run_of(run, backbone, batch, size.precision), dataset, session, size)
    yield _frontend(session, size)
    yield _prefix(run.replace(training__epochs=size.epochs), dataset, session, size)


def compiled_rows(run: Run, dataset: Dataset, session: Session, size: Size) -> Iterator[dict[str, Any]]:
    """Yield a row per network: small batches with `--compile`, against without."""
    for backbone in size.backbones:
        yield _compiled(run_of(run, backbone, size.small, size.precision), dataset, session, size)


def run_of(run: Run, backbone: str, batch: int, precision: str) -> Run:
    """Return the run of a network with random weights."""
    return run.replace(model__backbone=backbone, **RANDOM, training__precision=precision, training__batch_size=batch)


def _epoch(run: Run, dataset: Dataset, session: Session, size: Size) -> dict[str, Any]:
    """Time the training part of an epoch, and the bare loop over the same batches already in memory."""
    fits = [TrainingLoop(run, prepare(run, dataset, session), session, "epoch") for _ in range(2)]
    order = _rows(fits[0].prepared, run, size)
    bare = _bare_loop(fits[1].prepared, order, run, session)
    fits[0]._train(order, 0)
    with _waiting_is_an_error(session.device):
        fits[0]._steps(order, 0)
    ours, reference = _timed(size.repeats, session.device, lambda: fits[0]._train(order, 0), bare)
    what = f"{run.model.backbone}, {run.training.batch_size} clips: epoch / bare forward, backward, step"
    return row(what, ours, reference, 1.05, at_most=True)


def _compiled(run: Run, dataset: Dataset, session: Session, size: Size) -> dict[str, Any]:
    """Time the same epoch with `--compile`, and without."""
    runs = [run.replace(training__compile=True), run]
    fits = [TrainingLoop(one, prepare(one, dataset, session), session, "epoch") for one in runs]
    order = _rows(fits[0].prepared, run, size)
    ours, reference = _timed(size.repeats, session.device, *(lambda fit=fit: fit._train(order, 0) for fit in fits))
    what = f"{run.model.backbone}, {run.training.batch_size} clips: epoch with --compile / without"
    return row(what, ours, reference, 1.0, at_most=True)


def _rows(prepared: PreparedRun, run: Run, size: Size) -> torch.Tensor:
    """Return whole batches of rows, the clips as often as it takes."""
    order, wanted = shuffle_epoch_rows(prepared, 0, seed_epoch(0, 0)), run.training.batch_size * size.steps
    return order.repeat(-(-wanted // len(order)))[:wanted]


def _bare_loop(prepared: PreparedRun, order: torch.Tensor, run: Run, session: Session) -> Callable[[], None]:
    batch = run.training.batch_size
    batches = [
        (x.clone(memory_format=torch.preserve_format), prepared.labels[part.to(session.device)])
        for x, part in zip(prepared.source.batches(order[: 4 * batch], batch), order.split(batch), strict=False)
    ]
    network, criterion = prepared.network.train(), torch.nn.CrossEntropyLoss()
    optimizer = make_optimizer(network.parameters(), run.training)
    compute_mode = TrainingStep(network, optimizer, run.training, session.device).compute_mode
    steps = len(order) // batch

    def loop() -> None:
        for k in range(steps):
            x, y = batches[k % len(batches)]
            optimizer.zero_grad(set_to_none=True)
            with compute_mode.autocast():
                loss = criterion(network(x), y)
            loss.backward()
            optimizer.step()

    return loop


def _frontend(session: Session, size: Size) -> dict[str, Any]:
    """Time the mel power of clips on the device, and librosa's on one core, both for each clip."""
    sr = 22050
    y = np.random.default_rng(0).normal(scale=0.1, size=(size.clips, round(size.seconds * sr))).astype(np.float32)
    kind = LogMel(clip=Clip(sr=sr), frontend=Frontend(n_frames=250)).to(session.device)
    batch = torch.from_numpy(y).to(session.device)
    for ours, theirs in zip(kind.power(batch[:1]), _librosa_mels(y[0], sr), strict=True):
        np.testing.assert_allclose(ours[0].cpu(), theirs, rtol=1e-3)
    with _one_core():
        (theirs,) = _timed(size.repeats, session.device, lambda: [_librosa_mels(one, sr) for one in y[: size.compared]])
    (ours,) = _timed(size.repeats, session.device, lambda: list(kind.power(batch)))
    scaled = [seconds * size.clips / size.compared for seconds in theirs]
    return row(f"mel power of {size.clips} clips at {sr} Hz: librosa on one core / ours", scaled, ours, 50)


def _prefix(run: Run, dataset: Dataset, session: Session, size: Size) -> dict[str, Any]:
    """Time all epochs of a head without its frozen prefix computed once, and with, that computation included."""
    run = run.replace(model__freeze="block4", **RANDOM)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(size.repeats):
        shutil.rmtree(session.store.cache / "activations", ignore_errors=True)
        for reuse in (True, False):
            start = time.perf_counter()
            TrainingLoop(run, prepare(run, dataset, session, reuse=reuse), session, f"reuse {reuse}").run()
            seconds[reuse].append(time.perf_counter() - start)
            shutil.rmtree(session.store.folder(run), ignore_errors=True)
    return row(f"{size.epochs} epochs of a head: without reuse of the prefix / with", seconds[False], seconds[True], 8)


@contextmanager
def _waiting_is_an_error(device: torch.device) -> Iterator[None]:
    """Let torch refuse whatever makes the CPU wait for a GPU."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@contextmanager
def _one_core() -> Iterator[None]:
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads)


def _timed(repeats: int, device: torch.device, *works: Work) -> tuple[list[float], ...]:
    """Return the seconds of each work as `in_turn` does, each until the device has done it."""
    return in_turn(*(partial(_waited, work, device) for work in works), repeats=repeats)


def _waited(work: Work, device: torch.device) -> None:
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
