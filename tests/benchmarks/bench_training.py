"""The trainer against the bare model step, and a frozen prefix computed once against one computed in every epoch.

On the embedded data set with EfficientNet-Lite0, as a newcomer runs it.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from core import datasets
from core.config import Run
from core.datasets.table import Dataset
from core.execution import Execution
from core.executor import execute
from core.plan import make_plan, resolve
from core.session import Session
from core.training.optimizers import make_optimizer
from core.training.prepare import Prepared, prepare
from core.training.trainer import Fit, epoch_rows, seed_epoch

ROOT = Path(__file__).parent.parent.parent
EPOCHS, REPEATS = 20, 6


def measure() -> Iterator[dict[str, Any]]:
    """Yield a row per comparison; a row with ``at_most`` wants a ratio no larger than its target."""
    results = Path(tempfile.mkdtemp())
    try:
        session = Session(Execution(results=results))
        dataset = datasets.load("instruments")
        run = resolve(Run().replace(training__epochs=EPOCHS), dataset, dataset.fingerprint(session.store.cache))
        prepare(run, dataset, session)  # the images are made once, before anything is timed
        yield _epoch(run, dataset, session)
        yield _frozen(run, dataset, session, through="block4", target=8.0)
        yield _frozen(run, dataset, session, through="block3", target=1.8)
        yield _folds_and_seeds(run, dataset, session)
        yield from _commands()
    finally:
        shutil.rmtree(results)


def _epoch(run: Run, dataset: Dataset, session: Session) -> dict[str, Any]:
    """Time the training part of an epoch, and the bare loop over the same batches already in memory."""
    fits = [Fit(run, prepare(run, dataset, session), session, "epoch") for _ in range(2)]
    rows = epoch_rows(fits[0].prepared, 0, seed_epoch(0, 0))
    sides = {"ours": lambda: fits[0]._train(rows, 0), "bare": _bare_loop(fits[1].prepared, rows, run)}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for k in range(REPEATS):  # in turn, so that both meet the same load
        for name in sorted(sides, reverse=bool(k % 2)):
            seconds[name].append(_timed(sides[name]))
    ours, bare = min(seconds["ours"]), min(seconds["bare"])
    return _row("epoch of the trainer / bare forward, backward, step", ours, bare, 1.05, at_most=True)


def _bare_loop(prepared: Prepared, rows: torch.Tensor, run: Run) -> Callable[[], None]:
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
    shutil.rmtree(session.store.cache / "activations", ignore_errors=True)
    seconds, accuracies, outputs = [], [], []
    for reuse in (True, False):
        start = time.perf_counter()
        prepared = prepare(run, dataset, session, reuse=reuse)
        with torch.inference_mode():
            x = next(prepared.source.batches(torch.arange(64), 64))
            outputs.append(prepared.network.eval()(x))
        history, _ = Fit(run, prepared, session, f"{through} {'with' if reuse else 'without'} reuse").run()
        seconds.append(time.perf_counter() - start)
        accuracies.append(history[-1]["test_accuracy"])
        shutil.rmtree(session.store.folder(run), ignore_errors=True)
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-5, rtol=1e-5)
    row = _row(f"{EPOCHS} epochs frozen through {through}: without reuse / with", seconds[1], seconds[0], target)
    return row | {"accuracy_difference": abs(accuracies[0] - accuracies[1])}


def _folds_and_seeds(run: Run, dataset: Dataset, session: Session) -> dict[str, Any]:
    """Time 25 head-only runs that share one prefix against 25 times a single run that reuses nothing."""
    shutil.rmtree(session.store.cache / "activations", ignore_errors=True)
    points = [
        {"data__fold": "all", "seed": seed, "training__epochs": EPOCHS, "model__freeze": "block4"} for seed in range(5)
    ]
    plan = make_plan("freeze", lambda base, scratch: {"block4": base}, points, cache=session.store.cache)
    start = time.perf_counter()
    done = execute(plan, session)
    shared = time.perf_counter() - start
    assert (done.trained, done.failed) == (25, 0)
    frozen = run.replace(model__freeze="block4")
    start = time.perf_counter()
    Fit(frozen, prepare(frozen, dataset, session, reuse=False), session, "single").run()
    single = time.perf_counter() - start
    return _row(
        "5 seeds x 5 folds head-only: 25 x a single run without sharing / all shared", 25 * single, shared, 40.0
    )


def _commands() -> list[dict[str, Any]]:
    """Time ``--help`` and a finished command again, against the seconds they may take."""
    words = [sys.executable, str(ROOT / "run_ablation.py")]
    results = tempfile.mkdtemp()
    freeze = [*words, "freeze", "--block", "4", "--epochs", "1", "--results", results]
    subprocess.run(freeze, check=True, capture_output=True, cwd=ROOT)
    rows = []
    for what, command, limit in (("--help", [*words, "--help"], 1.0), ("the finished command again", freeze, 10.0)):
        took = min(_timed(lambda c=command: subprocess.run(c, check=True, capture_output=True, cwd=ROOT)) for _ in "12")  # type: ignore[misc]
        rows.append(_row(f"{what} / seconds allowed", took, limit, 1.0, at_most=True))
    shutil.rmtree(results)
    return rows


def _timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _row(what: str, one: float, other: float, target: float, *, at_most: bool = False) -> dict[str, Any]:
    """Return a row whose ratio is the first time over the second, as `what` says."""
    return {"what": what, "seconds": one, "over_seconds": other, "ratio": one / other, "target": target} | {
        "at_most": at_most
    }
