"""A training step against the code of the authors of "Rethinking CNN Models for Audio Classification".

Their step follows train.py of github.com/kamalesh0406/Audio-Classification (arXiv:2007.11154): torchvision's network
with a new last layer, fp32, Adam with weight decay, and a loss that is read after every step. Ours is the trainer's
step, in fp32 and in bf16. All train random weights on 32 images of 3 x 128 x 250 on two threads, each in a process of
its own; ours has the process settings of a command.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import torch
import torchvision
from torch import nn

from commands.cli.process_setup import OPENMP, set_up_libraries
from core.config.run import Training
from core.inference.precision import ComputeMode, has_bf16_instructions
from core.models.backbone import build_backbone
from core.training.optimizers import make_optimizer
from core.training.step import TrainingStep
from tests.benchmarks.comparison import REPEATS, Function, Row, compare, serve_times, worker_process

SHAPE, CLASSES, THREADS, LR, WEIGHT_DECAY = (32, 3, 128, 250), 50, 2, 1e-4, 1e-3
LAST_LAYERS = {"resnet50": "fc", "densenet201": "classifier"}
TARGETS = {"bf16": 2.0, "fp32": 1.0}


def measure() -> Iterator[Row]:
    """Yield a row per network and precision; bf16 is left out if the CPU has no instructions for it."""
    precisions = [precision for precision in TARGETS if precision != "bf16" or has_bf16_instructions()]
    with ExitStack() as stack:
        theirs = stack.enter_context(worker_process(__name__, "authors", without=tuple(OPENMP)))
        ours = {name: stack.enter_context(worker_process(__name__, name)) for name in precisions}
        for name in LAST_LAYERS:
            rounds = [(theirs(name), {p: time_of(name) for p, time_of in ours.items()}) for _ in range(1 + REPEATS)]
            for precision in precisions:
                what = f"training step of {name}: authors' code / ours in {precision}"
                times = zip(*((by, own[precision]) for by, own in rounds[1:]), strict=True)
                yield compare(what, *times, TARGETS[precision])


def authors_step(name: str) -> Function:
    """Return a function that trains one step as the authors' code does and returns the loss."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None)
    setattr(model, LAST_LAYERS[name], nn.Linear(getattr(model, LAST_LAYERS[name]).in_features, CLASSES))
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    criterion = nn.CrossEntropyLoss()
    x, y = torch.randn(SHAPE), torch.arange(SHAPE[0]) % CLASSES
    model.train()

    def step() -> float:
        loss = criterion(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def trainer_step(name: str, precision: str) -> Function:
    """Return a function that trains one step as the trainer does."""
    training, cpu = Training(precision=precision, lr=LR, weight_decay=WEIGHT_DECAY), torch.device("cpu")
    torch.manual_seed(0)
    network = ComputeMode(training, cpu).to_device(build_backbone(name, CLASSES, weights="random")).train()
    step = TrainingStep(network, make_optimizer(network.parameters(), training), training, cpu)
    x = torch.randn(SHAPE).contiguous(memory_format=step.compute_mode.layout)
    return partial(step, x, torch.arange(SHAPE[0]) % CLASSES)


if __name__ == "__main__":
    if sys.argv[1] == "authors":
        prepare = authors_step
    else:
        set_up_libraries()
        prepare = partial(trainer_step, precision=sys.argv[1])
    torch.set_num_threads(THREADS)
    serve_times(prepare)
