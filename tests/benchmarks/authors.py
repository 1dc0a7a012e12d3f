"""A training step as the authors of "Rethinking CNN Models for Audio Classification" (arXiv:2007.11154) take it.

After what their repository does (github.com/kamalesh0406/Audio-Classification, train.py): torchvision's network with
another last layer, on pictures as a data loader hands them out, in fp32, with Adam and its decay, the loss looked at
after every step. In a process of its own that imports nothing of ours: every line of its input asks for a step of the
network that it names, and its answer is the seconds.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torchvision
from torch import nn

SHAPE, CLASSES, THREADS, LR, WEIGHT_DECAY = (32, 3, 128, 250), 50, 2, 1e-4, 1e-3
LAST = {"resnet50": "fc", "densenet201": "classifier"}


def step_of(name: str) -> Callable[[], float]:
    """Return what takes a step and returns its loss."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None)
    setattr(model, LAST[name], nn.Linear(getattr(model, LAST[name]).in_features, CLASSES))
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


def serve(make: Callable[[str], Callable[[], Any]]) -> None:
    """Take a step of the network that each line of the input names, and answer with its seconds."""
    torch.set_num_threads(THREADS)
    steps: dict[str, Callable[[], Any]] = {}
    for name in map(str.strip, sys.stdin):
        if name not in steps:
            steps.clear()  # before the next is made: two would not fit
            steps[name] = make(name)
        start = time.perf_counter()
        steps[name]()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    serve(step_of)
