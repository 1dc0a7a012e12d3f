"""Integrated Gradients of 64 clips at 64 steps: ours, captum on all of them at once, and captum clip by clip.

captum is called on the network as it is built, all clips at once with the best of several internal_batch_size (it takes
none below the number of clips), and one clip after the other with its defaults. Each side runs in a process of its own,
so that its peak memory is its own: what it takes on top of the network and the images. Linux only: /proc.
"""

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from captum.attr import IntegratedGradients
from torch import nn

from analysis.attribution import Explained
from analysis.attribution.integrated import mean_gradients
from core.inputs.log_mel import LogMel
from core.inputs.spectrogram import FLOOR_DB
from core.models.backbone import build
from core.models.normalise import Normalise

CLIPS, STEPS, SHAPE = 64, 64, (3, 64, 64)
SIZES = (64, 128, 256, 512)  # internal_batch_size to choose from
TUNING_STEPS = 8
BUDGET = 5 * 10**8  # bytes


def measure() -> list[dict[str, Any]]:
    """Time all three on EfficientNet-Lite0."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    trials = {size: _alone(captum_at_once, device, size, TUNING_STEPS)[1] for size in SIZES}
    best = min(trials, key=lambda size: trials[size])
    found, seconds, peak = _alone(ours, device, BUDGET, STEPS)
    rows = []
    for what, side, option, target in (
        (f"all at once, best internal_batch_size {best}", captum_at_once, best, 1.0),
        ("clip by clip", captum_clip_by_clip, 0, 2.0),
    ):
        expected, reference_seconds, reference_peak = _alone(side, device, option, STEPS)
        assert np.linalg.norm(found - expected) < 1e-2 * np.linalg.norm(expected)  # rounding decides at a kink
        rows.append(
            {
                "what": f"{CLIPS} clips x {STEPS} steps, against captum {what}, {device}",
                "ours_seconds": seconds,
                "reference_seconds": reference_seconds,
                "ratio": reference_seconds / seconds,
                "ours_peak_mb": peak,
                "budget_mb": BUDGET / 10**6,
                "reference_peak_mb": reference_peak,
                "target": target,
            }
        )
    return rows


def inputs() -> tuple[nn.Module, np.ndarray, np.ndarray]:
    """Make the network, the images in dB and the targets."""
    backbone = build("efficientnet_lite0", 10)
    network = nn.Sequential(Normalise.fixed(backbone.mean, backbone.std, LogMel.picture), backbone).eval()
    rng = np.random.default_rng(0)
    return network, rng.uniform(FLOOR_DB, 20, (CLIPS, *SHAPE)).astype(np.float32), rng.integers(0, 10, CLIPS)


def ours(device: str, budget: int, steps: int) -> Callable[[], np.ndarray]:
    """Prepare ours; `budget` in bytes."""
    network, x, target = inputs()
    silence = np.broadcast_to(np.float32(FLOOR_DB), x.shape)

    def run() -> np.ndarray:
        explained = Explained(network, SHAPE, device=device, memory=budget)
        return mean_gradients(explained, x, silence, target, steps=steps) * (x - FLOOR_DB)

    return run


def captum_at_once(device: str, size: int, steps: int) -> Callable[[], np.ndarray]:
    """Prepare captum on all clips; `size` is its internal_batch_size."""
    network, x, target = inputs()
    method, images, targets = IntegratedGradients(network.to(device)), torch.from_numpy(x), torch.from_numpy(target)

    def run() -> np.ndarray:
        options = {"n_steps": steps, "internal_batch_size": size}
        found = method.attribute(images.to(device), FLOOR_DB, target=targets.to(device), **options)
        return np.asarray(found.detach().cpu())

    return run


def captum_clip_by_clip(device: str, _: int, steps: int) -> Callable[[], np.ndarray]:
    """Prepare captum on one clip after the other."""
    network, x, target = inputs()
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
    cuda = arguments[0] == "cuda"
    if cuda:
        torch.cuda.init()
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


if __name__ == "__main__":
    for row in measure():
        print(row)  # noqa: T201
