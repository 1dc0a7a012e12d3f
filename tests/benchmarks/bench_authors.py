"""A training step of the trainer, in bf16 and in fp32, against the same as the authors of a report take it.

Theirs is `tests.benchmarks.authors`, in a process that has its environment as it is unasked. Both train networks with
random weights on 32 images of 3 x 128 x 250 that are in memory, on two threads, in turn.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from core.config import Training
from core.models.backbone import build
from core.training.arithmetic import Arithmetic, multiplies_bf16
from core.training.optimizers import make_optimizer
from core.training.step import Step
from tests.benchmarks.authors import CLASSES, LAST, LR, SHAPE, THREADS, WEIGHT_DECAY

ROOT = Path(__file__).parent.parent.parent
REPEATS = 3
WANTED = {"bf16": 2.0, "fp32": 1.0}
OURS = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # what importing `core` sets


def measure() -> Iterator[dict[str, Any]]:
    """Yield a row per network and precision; none in bf16 where this CPU only imitates it."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        with _authors() as theirs:
            for name in LAST:
                yield from _rows(name, partial(theirs, name))
    finally:
        torch.set_num_threads(before)


def _rows(name: str, theirs: Callable[[], float]) -> Iterator[dict[str, Any]]:
    steps = {p: _step(name, p) for p in WANTED if p != "bf16" or multiplies_bf16()}
    rounds = [(theirs(), {p: _timed(step) for p, step in steps.items()}) for _ in range(1 + REPEATS)][1:]
    for precision in steps:
        pairs = [(reference, ours[precision]) for reference, ours in rounds]
        ratios = sorted(reference / ours for reference, ours in pairs)
        spread = f"{ratios[0]:.2f} / {statistics.median(ratios):.2f} / {ratios[-1]:.2f}"
        seconds, over = (statistics.median(part) for part in zip(*pairs, strict=True))
        yield {
            "what": f"a training step of {name}: the authors' / ours in {precision} (min / median / max {spread})",
            "ratio": statistics.median(ratios),
            "target": WANTED[precision],
            "seconds": seconds,
            "over_seconds": over,
        }


@contextmanager
def _authors() -> Iterator[Callable[[str], float]]:
    """Start the other process; what is given takes a step of the network of a name there, and returns its seconds."""
    env = {name: value for name, value in os.environ.items() if name not in OURS} | {"PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "tests.benchmarks.authors"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, cwd=ROOT, env=env, **pipes) as child:
        assert child.stdin and child.stdout

        def step(name: str) -> float:
            print(name, file=child.stdin, flush=True)
            return float(child.stdout.readline())

        yield step
        child.stdin.close()


def _step(name: str, precision: str) -> Callable[[], Any]:
    training, cpu = Training(precision=precision, lr=LR, weight_decay=WEIGHT_DECAY), torch.device("cpu")
    torch.manual_seed(0)
    network = Arithmetic(training, cpu).place(build(name, CLASSES, weights="random")).train()
    step = Step(network, make_optimizer(network.parameters(), training), training, cpu)
    x = torch.randn(SHAPE).contiguous(memory_format=step.arithmetic.layout)
    return partial(step, x, torch.arange(SHAPE[0]) % CLASSES)


def _timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
