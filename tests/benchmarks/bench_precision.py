"""bf16 on a CPU that has instructions for it, against fp32: a step of training, evaluation, and a frozen prefix.

Networks with random weights, images of 3 x 128 x 250 in memory, all of the machine's cores. The step is the trainer's
own, of 32 images; evaluation and a prefix take 64, computed as in `core.inference.fast_forward`. Both are compared
twice: with fp32 as it is, and with the plain network in fp32 without folded batch norms.
NETWORKS="resnet18 resnet50" in the environment measures those alone.
"""

import os
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from core.config.run import Training
from core.inference.fast_forward import CPU_BATCH_SIZE, evaluation_batch_size, fast_eval
from core.inference.precision import ComputeMode, has_bf16_instructions
from core.models.backbone import Backbone, build_backbone
from core.training.optimizers import make_optimizer
from core.training.step import TrainingStep
from tests.benchmarks.comparison import Work, in_turn, row

NETWORKS = {"resnet18": 1.7, "resnet50": 1.7, "densenet121": 1.7, "densenet201": 1.7}
PASSES = 1.7  # wanted of evaluation and of prefixes
SHAPE, CLASSES, THROUGH = (32, 3, 128, 250), 10, "block3"
PASSED = 64  # images
PLAIN = "the plain network: "


def measure() -> Iterator[dict[str, Any]]:
    """Yield a row per network and kind of work; none where this CPU has no bf16."""
    if not has_bf16_instructions():
        print("  this CPU has no bf16 instructions: nothing of this was measured")  # noqa: T201
        return
    for name in os.environ.get("NETWORKS", " ".join(NETWORKS)).split():
        exact, short = (_works(name, precision) for precision in ("fp32", "bf16"))
        for what, work in exact.items():
            quick = short.get(what.removeprefix(PLAIN), work)
            target = NETWORKS[name] if what == "a step" else PASSES
            yield row(f"{what} of {name}: fp32 / bf16", *in_turn(work, quick), target)


class _Through(nn.Module):
    """A network through one of its stages."""

    def __init__(self, network: Backbone, last: str) -> None:
        super().__init__()
        self.network, self.last = network, last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network.forward_stages(x, first="stem", last=self.last)


def _works(name: str, precision: str) -> dict[str, Work]:
    training, cpu = Training(precision=precision), torch.device("cpu")
    torch.manual_seed(0)
    compute_mode = ComputeMode(training, cpu)
    trained, fixed = (compute_mode.to_device(build_backbone(name, CLASSES, weights="random")) for _ in range(2))
    step = TrainingStep(trained.train(), make_optimizer(trained.parameters(), training), training, cpu)
    x, images = (torch.randn(n, *SHAPE[1:]).contiguous(memory_format=compute_mode.layout) for n in (SHAPE[0], PASSED))
    fixed.eval()

    def passed(part: _Through) -> None:
        batches = images.split(evaluation_batch_size(part, cpu))  # asked of the network as it is, before it is fused
        with torch.inference_mode(), fast_eval(part, compute_mode, lambda: images[:2]) as through:
            for out in through(batches):
                out.float()

    def plainly(part: _Through) -> None:
        with torch.inference_mode(), compute_mode.autocast():
            for x in images.split(CPU_BATCH_SIZE):
                part(x).float()

    works: dict[str, Work] = {"a step": partial(step, x, torch.arange(len(x)) % CLASSES)}
    for what, last in (("evaluation", "head"), (f"a prefix through {THROUGH}", THROUGH)):
        part = _Through(fixed, last).eval()
        works[what] = partial(passed, part)
        works[PLAIN + what] = partial(plainly, part)
    return works
