"""The trainer against the bare training loop, and a cached frozen prefix against one computed in every epoch.

EfficientNet-Lite0 with default settings on the embedded data set.
"""

import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from core import datasets
from core.config.execution import ExecutionOptions
from core.config.run import Run
from core.datasets.dataset import Dataset
from core.executor import execute
from core.plan import make_plan, resolve
from core.session import Session
from core.training.epoch_order import seed_epoch, shuffle_epoch_rows
from core.training.optimizers import make_optimizer
from core.training.prepare import PreparedRun, prepare
from core.training.step import TrainingStep
from core.training.trainer import TrainingLoop
from tests.benchmarks.comparison import COMMAND, Function, Row, compare, run_process, time_in_turn

EPOCHS = 20


def measure() -> Iterator[Row]:
    """Yield a row per comparison."""
    with tempfile.TemporaryDirectory() as results:
        session = Session(ExecutionOptions(results=Path(results)))
        run, dataset = embedded_run(session, training__epochs=EPOCHS)
        prepare(run, dataset, session)  # builds the images, which is not measured
        yield _epoch(run, dataset, session)
        yield _frozen(run, dataset, session, through="block4", target=8.0)
        yield _frozen(run, dataset, session, through="block3", target=1.8)
        yield _folds_and_seeds(run, dataset, session)
    yield from _commands()


def embedded_run(session: Session, **settings: Any) -> tuple[Run, Dataset]:
    """Return a fully specified run on the embedded data set, and the data set."""
    dataset = datasets.load_dataset("instruments")
    return resolve(Run().replace(**settings), dataset, dataset.compute_fingerprint(session.store.cache)), dataset


def _epoch(run: Run, dataset: Dataset, session: Session) -> Row:
    """Compare the training part of an epoch with the bare loop over batches that are in memory."""
    fits = [TrainingLoop(run, prepare(run, dataset, session), session, "epoch") for _ in range(2)]
    rows = shuffle_epoch_rows(fits[0].prepared, 0, seed_epoch(0, 0))
    times = time_in_turn(lambda: fits[0]._train_epoch(rows, 0), bare_loop(fits[1].prepared, rows, run, session))
    return compare("epoch of the trainer / bare forward, backward, step", *times, 1.05, at_most=True)


def bare_loop(
    prepared: PreparedRun, rows: torch.Tensor, run: Run, session: Session, *, held: int | None = None
) -> Function:
    """Return a function that trains on batches in memory by forward pass, backward pass and optimizer step alone.

    Parameters
    ----------
    rows
        Indices of clips (clips,), in batches of `run.training.batch_size`.
    held
        Number of batches in memory, which are used again and again (default: all).
    """
    parts = rows.split(run.training.batch_size)
    batches = [
        (x.clone(memory_format=torch.preserve_format), prepared.labels[part.to(session.device)])
        for x, part in zip(
            prepared.source.batches(torch.cat(parts[:held]), run.training.batch_size), parts[:held], strict=True
        )
    ]
    network, criterion = prepared.network.train(), torch.nn.CrossEntropyLoss()
    optimizer = make_optimizer(network.parameters(), run.training)
    compute_mode = TrainingStep(network, optimizer, run.training, session.device).compute_mode

    def loop() -> None:
        for k in range(len(parts)):
            x, y = batches[k % len(batches)]
            optimizer.zero_grad(set_to_none=True)
            with compute_mode.autocast():
                loss = criterion(network(x), y)
            loss.backward()
            optimizer.step()

    return loop


def _frozen(run: Run, dataset: Dataset, session: Session, *, through: str, target: float) -> Row:
    """Compare training without and with a cached prefix, whose computation is included; check that both agree."""
    run = run.replace(model__freeze=through)
    outputs, accuracies = {}, {}

    def train(*, reuse: bool) -> None:
        shutil.rmtree(session.store.cache / "activations", ignore_errors=True)
        prepared = prepare(run, dataset, session, reuse=reuse)
        with torch.inference_mode():
            outputs[reuse] = prepared.network.eval()(next(prepared.source.batches(torch.arange(64), 64)))
        history, _ = TrainingLoop(run, prepared, session, f"{through}, {'cached' if reuse else 'recomputed'}").train()
        accuracies[reuse] = history[-1]["test_accuracy"]
        shutil.rmtree(session.store.folder(run), ignore_errors=True)

    times = time_in_turn(partial(train, reuse=False), partial(train, reuse=True), warm_up=False)
    torch.testing.assert_close(outputs[True], outputs[False], atol=1e-5, rtol=1e-5)
    row = compare(f"{EPOCHS} epochs frozen through {through}: prefix recomputed / cached", *times, target)
    return row | {"accuracy_difference": abs(accuracies[True] - accuracies[False])}


def _folds_and_seeds(run: Run, dataset: Dataset, session: Session) -> Row:
    """Compare 25 runs of a head that share one prefix with 25 times a single run without a cached prefix."""
    points = [
        {"data__fold": "all", "seed": seed, "training__epochs": EPOCHS, "model__freeze": "block4"} for seed in range(5)
    ]
    plan = make_plan("freeze", lambda base, scratch: {"block4": base}, points, cache=session.store.cache)
    frozen = run.replace(model__freeze="block4")

    def train_single() -> None:
        TrainingLoop(frozen, prepare(frozen, dataset, session, reuse=False), session, "single").train()

    def train_all() -> None:
        shutil.rmtree(session.store.cache / "activations", ignore_errors=True)
        shutil.rmtree(session.store.runs, ignore_errors=True)
        session.store.runs.mkdir()
        summary = execute(plan, session)
        assert (summary.trained, summary.failed) == (25, 0)

    single, together = time_in_turn(train_single, train_all, warm_up=False)
    what = "5 seeds x 5 folds of a head: 25 x a single run without a cached prefix / all together"
    return compare(what, [25 * seconds for seconds in single], together, 40.0)


def _commands() -> Iterator[Row]:
    """Compare ``--help`` and a finished command, run again, with the seconds they may take."""
    with tempfile.TemporaryDirectory() as results:
        freeze = [*COMMAND, "freeze", "--block", "4", "--epochs", "1", "--results", results]
        for what, command, limit in (("--help", [*COMMAND, "--help"], 1.0), ("a finished command again", freeze, 10.0)):
            (seconds,) = time_in_turn(partial(run_process, command))
            yield compare(f"{what} / {limit:g} s", seconds, limit, 1.0, at_most=True)
