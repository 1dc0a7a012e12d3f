"""The trainer against the bare model step, and a frozen prefix computed once against one computed in every epoch.

On the embedded data set with EfficientNet-Lite0, as a newcomer runs it.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
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
from core.training.optimizers import make_optimizer
from core.training.prepare import PreparedRun, prepare
from core.training.trainer import TrainingLoop, seed_epoch, shuffle_epoch_rows
from tests.benchmarks.comparison import in_turn, row

ROOT = Path(__file__).parent.parent.parent
EPOCHS = 20


def measure() -> Iterator[dict[str, Any]]:
    """Yield a row per comparison; a row with ``at_most`` wants a ratio no larger than its target."""
    with tempfile.TemporaryDirectory() as results:
        session = Session(ExecutionOptions(results=Path(results)))
        dataset = datasets.load_dataset("instruments")
        run = resolve(Run().replace(training__epochs=EPOCHS), dataset, dataset.compute_fingerprint(session.store.cache))
        prepare(run, dataset, session)  # the images are made once, before anything is timed
        yield _epoch(run, dataset, session)
        yield _frozen(run, dataset, session, through="block4", target=8.0)
        yield _frozen(run, dataset, session, through="block3", target=1.8)
        yield _folds_and_seeds(run, dataset, session)
    yield from _commands()


def _epoch(run: Run, dataset: Dataset, session: Session) -> dict[str, Any]:
    """Time the training part of an epoch, and the bare loop over the same batches already in memory."""
    fits = [TrainingLoop(run, prepare(run, dataset, session), session, "epoch") for _ in range(2)]
    rows = shuffle_epoch_rows(fits[0].prepared, 0, seed_epoch(0, 0))
    sides = (lambda: fits[0]._train_epoch(rows, 0)), _bare_loop(fits[1].prepared, rows, run)
    return row("epoch of the trainer / bare forward, backward, step", *in_turn(*sides), 1.05, at_most=True)


def _bare_loop(prepared: PreparedRun, rows: torch.Tensor, run: Run) -> Callable[[], None]:
    batches = [
        (x.clone(memory_format=torch.preserve_format), prepared.labels[part])
        for x, part in zip(prepared.source.batches(rows, 32), torch.split(rows, 32), strict=True)
    ]
    network, criterion = prepared.network.train(), torch.nn.CrossEntropyLoss()
    optimizer = make_optimizer(network.parameters(), run.training)

    def loop() -> None:
        for x, y in batches:
            optimizer.zero_grad(set_to_none=True)
            criterion(network(x), y).backward()
            optimizer.step()

    return loop


def _frozen(run: Run, dataset: Dataset, session: Session, *, through: str, target: float) -> dict[str, Any]:
    """Time all epochs with the activations reused, their computation included, and without; check both agree."""
    run = run.replace(model__freeze=through)
    outputs, accuracies = {}, {}

    def train(*, reuse: bool) -> None:
        shutil.rmtree(session.store.cache / "activations", ignore_errors=True)
        prepared = prepare(run, dataset, session, reuse=reuse)
        with torch.inference_mode():
            outputs[reuse] = prepared.network.eval()(next(prepared.source.batches(torch.arange(64), 64)))
        history, _ = TrainingLoop(run, prepared, session, f"{through} {'with' if reuse else 'without'} reuse").train()
        accuracies[reuse] = history[-1]["test_accuracy"]
        shutil.rmtree(session.store.folder(run), ignore_errors=True)

    seconds = in_turn(partial(train, reuse=False), partial(train, reuse=True), warm=False)
    torch.testing.assert_close(outputs[True], outputs[False], atol=1e-5, rtol=1e-5)
    found = row(f"{EPOCHS} epochs frozen through {through}: without reuse / with", *seconds, target)
    return found | {"accuracy_difference": abs(accuracies[True] - accuracies[False])}


def _folds_and_seeds(run: Run, dataset: Dataset, session: Session) -> dict[str, Any]:
    """Time 25 head-only runs that share one prefix against 25 times a single run that reuses nothing."""
    points = [
        {"data__fold": "all", "seed": seed, "training__epochs": EPOCHS, "model__freeze": "block4"} for seed in range(5)
    ]
    plan = make_plan("freeze", lambda base, scratch: {"block4": base}, points, cache=session.store.cache)
    frozen = run.replace(model__freeze="block4")

    def single() -> None:
        TrainingLoop(frozen, prepare(frozen, dataset, session, reuse=False), session, "single").train()

    def shared() -> None:
        shutil.rmtree(session.store.cache / "activations", ignore_errors=True)
        shutil.rmtree(session.store.runs, ignore_errors=True)
        session.store.runs.mkdir()
        done = execute(plan, session)
        assert (done.trained, done.failed) == (25, 0)

    alone, together = in_turn(single, shared, warm=False)
    what = "5 seeds x 5 folds head-only: 25 x a single run without sharing / all shared"
    return row(what, [25 * seconds for seconds in alone], together, 40.0)


def _commands() -> Iterator[dict[str, Any]]:
    """Time ``--help`` and a finished command again, against the seconds they may take."""
    words = [sys.executable, str(ROOT / "run_ablation.py")]
    with tempfile.TemporaryDirectory() as results:
        freeze = [*words, "freeze", "--block", "4", "--epochs", "1", "--results", results]
        for what, command, limit in (("--help", [*words, "--help"], 1.0), ("the finished command again", freeze, 10.0)):
            (seconds,) = in_turn(partial(subprocess.run, command, check=True, capture_output=True, cwd=ROOT))
            yield row(f"{what} / seconds allowed", seconds, limit, 1.0, at_most=True)
