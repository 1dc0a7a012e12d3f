"""Integrated Gradients of 32 clips at 64 steps: ours, captum on all of them at once, and captum clip by clip.

captum is called on the network as it is built, all clips at once with the best of several internal_batch_size (it takes
none below the number of clips), and one clip after the other with its defaults. Each side runs in a process of its own,
so that its peak memory is its own: what it takes on top of the network and the images. Linux only: /proc.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from captum.attr import IntegratedGradients
from torch import nn

from analysis.attribution import AttributionModel
from analysis.attribution.integrated_gradients import mean_gradients
from core.config.run import Frontend
from core.inputs.log_mel import LogMel
from core.inputs.spectrogram import FLOOR_DB
from core.models.backbone import build_backbone
from core.models.input_transform.normalise import Normalise
from tests.benchmarks.comparison import REPEATS, row

CLIPS, STEPS, SHAPE = 32, 64, (3, 64, 64)
NETWORKS, WANTED = ("efficientnet_lite0", "resnet18"), 2.0  # wanted of captum clip by clip
SIZES = (32, 64, 128, 256)  # internal_batch_size to choose from
TUNING_STEPS = 8
BUDGET = 5 * 10**8  # bytes


def measure() -> Iterator[dict[str, Any]]:
    """Yield a row per network and way to call captum."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name in NETWORKS:
        trials = {size: _alone(captum_at_once, name, device, size, TUNING_STEPS)[1] for size in SIZES}
        best = min(trials, key=lambda size: trials[size])
        sides = ((ours, BUDGET), (captum_at_once, best), (captum_clip_by_clip, 0))
        rounds = [[_alone(side, name, device, option, STEPS) for side, option in sides] for _ in range(REPEATS)]
        for k, what, least in ((1, f"all at once, best internal_batch_size {best}", 1.0), (2, "clip by clip", WANTED)):
            yield _row(f"{name}, {CLIPS} clips x {STEPS} steps, {device}: captum {what} / ours", rounds, k, least)


def _row(what: str, rounds: list[list[tuple[np.ndarray, float, float]]], k: int, target: float) -> dict[str, Any]:
    """Compare the k-th side with ours, the first."""
    for (found, *_), *others in rounds:
        expected = others[k - 1][0]
        assert np.linalg.norm(found - expected) < 1e-2 * np.linalg.norm(expected)  # rounding decides at a kink
    reference, own = ([sides[side][1] for sides in rounds] for side in (k, 0))
    return row(what, reference, own, target) | {
        "peak_mb": max(sides[0][2] for sides in rounds),
        "budget_mb": BUDGET / 10**6,
        "over_peak_mb": max(sides[k][2] for sides in rounds),
    }


def inputs(name: str) -> tuple[nn.Module, np.ndarray, np.ndarray]:
    """Make the network, the images in dB and the targets."""
    torch.manual_seed(0)
    backbone = build_backbone(name, 10, weights="imagenet" if name == "efficientnet_lite0" else "random")
    network = nn.Sequential(
        Normalise.fixed(backbone.mean, backbone.std, LogMel.get_decibel_range(Frontend())), backbone
    ).eval()
    rng = np.random.default_rng(0)
    return network, rng.uniform(FLOOR_DB, 20, (CLIPS, *SHAPE)).astype(np.float32), rng.integers(0, 10, CLIPS)


def ours(name: str, device: str, budget: int, steps: int) -> Callable[[], np.ndarray]:
    """Prepare ours; `budget` in bytes."""
    network, x, target = inputs(name)
    silence = np.broadcast_to(np.float32(FLOOR_DB), x.shape)

    def run() -> np.ndarray:
        model = AttributionModel(network, SHAPE, device=device, memory=budget)
        return mean_gradients(model, x, silence, target, steps=steps) * (x - FLOOR_DB)

    return run


def captum_at_once(name: str, device: str, size: int, steps: int) -> Callable[[], np.ndarray]:
    """Prepare captum on all clips; `size` is its internal_batch_size."""
    network, x, target = inputs(name)
    method, images, targets = IntegratedGradients(network.to(device)), torch.from_numpy(x), torch.from_numpy(target)

    def run() -> np.ndarray:
        options = {"n_steps": steps, "internal_batch_size": size}
        found = method.attribute(images.to(device), FLOOR_DB, target=targets.to(device), **options)
        return np.asarray(found.detach().cpu())

    return run


def captum_clip_by_clip(name: str, device: str, _: int, steps: int) -> Callable[[], np.ndarray]:
    """Prepare captum on one clip after the other."""
    network, x, target = inputs(name)
    method, images = IntegratedGradients(network.to(device)), torch.from_numpy(x)

    def run() -> np.ndarray:
        made = [
            method.attribute(images[k : k + 1].to(device), FLOOR_DB, target=int(target[k]), n_steps=steps)
            for k in range(CLIPS)
        ]
        return np.asarray(torch.cat(made).detach().cpu())

    return run


def _alone(prepare: Callable[..., Callable[[], np.ndarray]], *arguments: Any) -> tuple[np.ndarray, float, float]:
    """Run what `prepare` returns in a new process on one thread; return its result, seconds, and peak in MB on top."""
    one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with mock.patch.dict(os.environ, one_thread), multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_watched, (prepare, *arguments))


def _watched(prepare: Callable[..., Callable[[], np.ndarray]], *arguments: Any) -> tuple[np.ndarray, float, float]:
    run = prepare(*arguments)
    cuda = arguments[1] == "cuda"
    if cuda:
        run()  # what a GPU does once: it starts, and libraries choose their kernels
        torch.cuda.reset_peak_memory_stats()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = torch.cuda.memory_allocated() if cuda else _resident()
    clock = time.perf_counter if cuda else time.process_time  # on one thread: what else runs does not count
    started = clock()
    result = run()
    seconds = clock() - started
    after = torch.cuda.max_memory_allocated() if cuda else _peak()
    return result, seconds, (after - before) / 10**6


def _resident() -> int:
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])
