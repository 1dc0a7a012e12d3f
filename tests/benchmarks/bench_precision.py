"""bf16 against fp32 on a CPU with bf16 instructions: a training step, evaluation, and a frozen prefix.

Networks with random weights on all cores; images of 3 x 128 x 250 in memory, 32 for a step and 64 otherwise. Evaluation
and the prefix are compared with fp32 as commands compute it (`core.inference.fast_evaluation`) and with the plain
network in fp32. NETWORKS="resnet18 resnet50" in the environment measures these networks only.
"""

import os
from collections.abc import Iterator
from functools import partial

import torch
from torch import nn

from core.config.run import Training
from core.inference.fast_evaluation import CPU_BATCH_SIZE, evaluation_batch_size, fast_eval
from core.inference.precision import ComputeMode, has_bf16_instructions
from core.models.backbone import Backbone, build_backbone
from core.training.optimizers import make_optimizer
from core.training.step import TrainingStep
from tests.benchmarks.comparison import Function, Row, compare, time_in_turn

NETWORKS = ("resnet18", "resnet50", "densenet121", "densenet201")
SHAPE, CLASSES, STAGE, TARGET = (3, 128, 250), 10, "block3", 1.7
TRAINING_BATCH, EVALUATED = 32, 64
PLAIN = "plain network, "


def measure() -> Iterator[Row]:
    """Yield a row per network and kind of work; none if this CPU has no bf16 instructions."""
    if not has_bf16_instructions():
        print("  not measured: this CPU has no bf16 instructions")
        return
    for name in os.environ.get("NETWORKS", " ".join(NETWORKS)).split():
        exact, fast = (_functions(name, precision) for precision in ("fp32", "bf16"))
        for what, function in exact.items():
            times = time_in_turn(function, fast[what.removeprefix(PLAIN)])
            yield compare(f"{name}, {what}: fp32 / bf16", *times, TARGET)


class _Stages(nn.Module):
    """The stages of a network up to `last`."""

    def __init__(self, network: Backbone, last: str) -> None:
        super().__init__()
        self.network, self.last = network, last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network.forward_stages(x, first="stem", last=self.last)


def _functions(name: str, precision: str) -> dict[str, Function]:
    training, cpu = Training(precision=precision), torch.device("cpu")
    torch.manual_seed(0)
    compute_mode = ComputeMode(training, cpu)
    trained, fixed = (compute_mode.to_device(build_backbone(name, CLASSES, weights="random")) for _ in range(2))
    step = TrainingStep(trained.train(), make_optimizer(trained.parameters(), training), training, cpu)
    x, images = (
        torch.randn(n, *SHAPE).contiguous(memory_format=compute_mode.layout) for n in (TRAINING_BATCH, EVALUATED)
    )
    fixed.eval()

    def evaluate(part: _Stages) -> None:
        batches = images.split(evaluation_batch_size(part, cpu))
        with torch.inference_mode(), fast_eval(part, compute_mode, lambda: images[:2]) as forward:
            for out in forward(batches):
                out.float()

    def evaluate_plain(part: _Stages) -> None:
        with torch.inference_mode(), compute_mode.autocast():
            for batch in images.split(CPU_BATCH_SIZE):
                part(batch).float()

    functions: dict[str, Function] = {"training step": partial(step, x, torch.arange(len(x)) % CLASSES)}
    for what, last in (("evaluation", "head"), (f"prefix through {STAGE}", STAGE)):
        part = _Stages(fixed, last).eval()
        functions[what] = partial(evaluate, part)
        functions[PLAIN + what] = partial(evaluate_plain, part)
    return functions
