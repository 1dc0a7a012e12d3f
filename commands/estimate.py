"""How long runs will take: one measured step for each backbone and size of its input."""

import time
from collections.abc import Sequence
from typing import Any

import torch

from core.config import Run
from core.inputs.made import input_shape
from core.models.assembly import make_backbone
from core.plan import Plan
from core.session import Session
from core.training import AUGMENTATIONS


def estimate(runs: Sequence[Run], plan: Plan, session: Session) -> float:
    """Estimate the seconds that runs take, from one measured step for each backbone and image size.

    Frozen and cut networks are counted whole, so it is an upper bound of the training; images come on top.
    """
    per_clip: dict[tuple[Any, ...], float] = {}
    total = 0.0
    for run in runs:
        key = (run.model.network, run.model.head, run.clip, run.frontend, run.training.batch_size)
        dataset = plan.datasets[run.data.content]
        if key not in per_clip:
            per_clip[key] = _step_seconds(run, len(dataset.class_names), session) / run.training.batch_size
        split = dataset.split(run.data.fold)
        share = 1 + 0.35 * len(split.test) / len(split.train)
        doubled = 2 if AUGMENTATIONS[run.training.augment].waveform else 1
        clips = len(split.train) * doubled * share
        total += per_clip[key] * clips * run.training.epochs
    return total


def _step_seconds(run: Run, num_classes: int, session: Session) -> float:
    plain = run.replace(model__weights="random", model__freeze="none", model__cut="none", model__fuse="all")
    network = make_backbone(plain, num_classes).to(session.device)
    images = torch.zeros(run.training.batch_size, *input_shape(run), device=session.device)
    if images.ndim == 4:  # sequences and vectors have no such order
        network = network.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        loss: torch.Tensor = network(images).sum()
        loss.backward()
        loss.detach().item()  # waits for a GPU
        times.append(time.perf_counter() - start)
    return min(times)  # the first one warms up
