"""How long runs will take: one measured step for each backbone and size of its input."""

import time
from collections.abc import Sequence
from typing import Any

import torch

from core.config import Run
from core.inputs.made import input_shape
from core.models.assembly import make_backbone
from core.models.stages import stages_named
from core.plan import Plan
from core.session import Session
from core.training import AUGMENTATIONS
from core.training.augmentations import batch_augmentation

MEASURED = 16  # clips of a measured step on a CPU at most; larger batches take no less for each


def estimate(runs: Sequence[Run], plan: Plan, session: Session) -> float:
    """Estimate the seconds that runs take, from one measured step for each backbone and image size.

    Frozen and cut networks are counted whole, so it is an upper bound of the training; images come on top. But where
    all is frozen before the head, the clips pass once, and what trains on that takes next to nothing.
    """
    per_clip: dict[tuple[Any, ...], float] = {}
    total = 0.0
    for run in runs:
        key = (run.model.network, run.model.head, run.clip, run.frontend, run.training.batch_size)
        dataset = plan.datasets[run.data.content]
        if key not in per_clip:
            per_clip[key] = _clip_seconds(run, len(dataset.class_names), session)
        split = dataset.split(run.data.fold)
        share = 1 + 0.35 * len(split.test) / len(split.train)
        doubled = 2 if AUGMENTATIONS[run.training.augment].waveform else 1
        clips = len(split.train) * doubled * share
        total += per_clip[key] * clips * (1 / 3 if _passes_once(run) else run.training.epochs)  # a step is three passes
    return total


def _passes_once(run: Run) -> bool:
    """Say whether all before the head is computed once for all epochs (`core.training.prepare`)."""
    model = run.model
    *_, last = stages_named((), model.network, input_shape(run))
    return model.freeze == last and model.frozen_batch_norm == "eval" and not len(batch_augmentation(run))


def _clip_seconds(run: Run, num_classes: int, session: Session) -> float:
    plain = run.replace(model__weights="random", model__freeze="none", model__cut="none", model__fuse="all")
    network = make_backbone(plain, num_classes).to(session.device)
    clips = min(run.training.batch_size, MEASURED) if session.device.type == "cpu" else run.training.batch_size
    images = torch.zeros(clips, *input_shape(run), device=session.device)
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
    return min(times) / clips  # the first one warms up
