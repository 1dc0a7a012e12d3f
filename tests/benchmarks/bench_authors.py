"""A training step of the trainer, in bf16 and in fp32, against the same as the authors of a report take it.

Theirs is `tests.benchmarks.authors`, in a process that has its environment as it is unasked; ours are in processes of
their own too, one for each precision, as runs are. All train networks with random weights on 32 images of 3 x 128 x 250
that are in memory, on two threads, in turn.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from core.config.run import Training
from core.inference.precision import ComputeMode, has_bf16_instructions
from core.models.backbone import build_backbone
from core.training.optimizers import make_optimizer
from core.training.step import TrainingStep
from tests.benchmarks.authors import CLASSES, LAST, LR, SHAPE, WEIGHT_DECAY, serve
from tests.benchmarks.comparison import REPEATS, row

ROOT = Path(__file__).parent.parent.parent
WANTED = {"bf16": 2.0, "fp32": 1.0}
OURS = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # what `commands.cli.process_setup` sets


def measure() -> Iterator[dict[str, Any]]:
    """Yield a row per network and precision; none in bf16 where this CPU only imitates it."""
    precisions = [p for p in WANTED if p != "bf16" or has_bf16_instructions()]
    with ExitStack() as stack:
        theirs = stack.enter_context(elsewhere("tests.benchmarks.authors"))
        ours = {p: stack.enter_context(elsewhere("tests.benchmarks.bench_authors", p)) for p in precisions}
        for name in LAST:
            rounds = [(theirs(name), {p: step(name) for p, step in ours.items()}) for _ in range(1 + REPEATS)][1:]
            for precision in precisions:
                what = f"a training step of {name}: the authors' / ours in {precision}"
                yield row(what, *zip(*((by, own[precision]) for by, own in rounds), strict=True), WANTED[precision])


@contextmanager
def elsewhere(*words: str) -> Iterator[Callable[[str], float]]:
    """Start another process; what is given takes a step of the network of a name there, and returns its seconds."""
    env = {name: value for name, value in os.environ.items() if name not in OURS} | {"PYTHONPATH": str(ROOT)}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-m", *words], cwd=ROOT, env=env, **pipes) as child:
        assert child.stdin and child.stdout

        def step(name: str) -> float:
            print(name, file=child.stdin, flush=True)
            return float(child.stdout.readline())

        yield step
        child.stdin.close()


def _step(name: str, precision: str) -> Callable[[], Any]:
    training, cpu = Training(precision=precision, lr=LR, weight_decay=WEIGHT_DECAY), torch.device("cpu")
    torch.manual_seed(0)
    network = ComputeMode(training, cpu).to_device(build_backbone(name, CLASSES, weights="random")).train()
    step = TrainingStep(network, make_optimizer(network.parameters(), training), training, cpu)
    x = torch.randn(SHAPE).contiguous(memory_format=step.compute_mode.layout)
    return partial(step, x, torch.arange(SHAPE[0]) % CLASSES)


if __name__ == "__main__":
    serve(partial(_step, precision=sys.argv[1]))
