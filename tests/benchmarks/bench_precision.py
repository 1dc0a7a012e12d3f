"""bf16 on a CPU that has instructions for it, against fp32: a step of training, evaluation, and a frozen prefix.

Networks with random weights, batches of 32 images of 3 x 128 x 250 in memory, all of the machine's cores. A prefix is
passed through as `core.training.prefix` does, evaluation as `core.training.evaluation`; the step is the trainer's own.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from core.config import Training
from core.models.backbone import build
from core.training.arithmetic import Arithmetic, multiplies_bf16
from core.training.optimizers import make_optimizer
from core.training.step import Step

NETWORKS = {"resnet18": 1.7, "resnet50": 1.7, "densenet121": 1.7, "densenet201": 1.7, "efficientnet_lite0": 1.3}
PASSES = 1.7  # wanted of evaluation and of prefixes
SHAPE, CLASSES, THROUGH, REPEATS = (32, 3, 128, 250), 10, "block3", 3
Works = dict[str, Callable[[], Any]]


def measure() -> Iterator[dict[str, Any]]:
    """Yield a row per network and kind of work; none where this CPU has no bf16."""
    if not multiplies_bf16():
        return
    for name, target in NETWORKS.items():
        exact, short = (_works(name, precision) for precision in ("fp32", "bf16"))
        for what, work in exact.items():
            yield _row(f"{what} of {name}: fp32 / bf16", work, short[what], target if what == "a step" else PASSES)


def _works(name: str, precision: str) -> Works:
    training, cpu = Training(precision=precision), torch.device("cpu")
    torch.manual_seed(0)
    arithmetic = Arithmetic(training, cpu)
    trained, fixed = (arithmetic.place(build(name, CLASSES, weights="random")) for _ in range(2))
    step = Step(trained.train(), make_optimizer(trained.parameters(), training), training, cpu)
    x = torch.randn(SHAPE).contiguous(memory_format=arithmetic.layout)
    fixed.eval()

    def passed(last: str) -> None:
        with torch.inference_mode(), arithmetic.autocast():
            fixed.forward_stages(x, first="stem", last=last).float()

    return {
        "a step": partial(step, x, torch.arange(len(x)) % CLASSES),
        "evaluation": partial(passed, "head"),
        f"a prefix through {THROUGH}": partial(passed, THROUGH),
    }


def _row(what: str, exact: Callable[[], Any], short: Callable[[], Any], target: float) -> dict[str, Any]:
    """Time both in turn, so that both meet the same load; the first time of each is not counted."""
    pairs = [(_timed(exact), _timed(short)) for _ in range(REPEATS + 1)][1:]
    ratios = sorted(one / other for one, other in pairs)
    spread = f"{ratios[0]:.2f} / {statistics.median(ratios):.2f} / {ratios[-1]:.2f}"
    seconds, over = (statistics.median(part) for part in zip(*pairs, strict=True))
    return {
        "what": f"{what} (min / median / max {spread})",
        "ratio": statistics.median(ratios),
        "target": target,
        "seconds": seconds,
        "over_seconds": over,
    }


def _timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
