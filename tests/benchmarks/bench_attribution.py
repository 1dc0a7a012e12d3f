"""Integrated Gradients of 32 clips with 64 steps: ours against captum, for all clips at once and clip by clip.

captum gets the network as it is built. For all clips at once it uses the fastest of several values of
internal_batch_size (at least the number of clips); clip by clip it uses its defaults. Every call runs in a new process
on one thread of a CPU, so that its peak memory can be measured. Linux only.
"""

import os
from collections.abc import Iterator
from unittest import mock

import numpy as np
import torch
from captum.attr import IntegratedGradients
from torch import nn

from analysis.attribution.attribution_model import AttributionModel
from analysis.attribution.integrated_gradients import mean_gradients
from core.config.run import Frontend
from core.inputs.log_mel import LogMel
from core.inputs.spectrogram import FLOOR_DB
from core.models.backbone import build_backbone
from core.models.input_transform.normalise import Normalise
from tests.benchmarks.comparison import REPEATS, Function, Measurement, Row, compare, measure_alone

CLIPS, STEPS, SHAPE = 32, 64, (3, 64, 64)
NETWORKS = ("efficientnet_lite0", "resnet18")
BATCH_SIZES = (32, 64, 128, 256)  # values of internal_batch_size
TUNING_STEPS = 8
MEMORY = 5 * 10**8  # bytes, for ours
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def measure() -> Iterator[Row]:
    """Yield two rows per network: captum for all clips at once and clip by clip, against ours."""
    with mock.patch.dict(os.environ, ONE_THREAD):
        for name in NETWORKS:
            tuning = {size: measure_alone(captum_at_once, name, TUNING_STEPS, size).seconds for size in BATCH_SIZES}
            size = min(tuning, key=lambda size: tuning[size])
            ours, at_once, single = [], [], []
            for _ in range(REPEATS):
                ours.append(measure_alone(prepare_ours, name, STEPS))
                at_once.append(measure_alone(captum_at_once, name, STEPS, size))
                single.append(measure_alone(captum_clip_by_clip, name, STEPS))
            what = f"Integrated Gradients of {name}, {CLIPS} clips x {STEPS} steps: captum"
            yield _row(f"{what} at once, internal_batch_size {size} / ours", at_once, ours, target=1.0)
            yield _row(f"{what} clip by clip / ours", single, ours, target=2.0)


def _row(what: str, captum: list[Measurement], ours: list[Measurement], *, target: float) -> Row:
    for one, other in zip(captum, ours, strict=True):
        difference = np.linalg.norm(other.result - one.result)
        assert difference < 1e-2 * np.linalg.norm(one.result)  # not closer: rounding decides on which side of a ReLU
    row = compare(what, [each.seconds for each in captum], [each.seconds for each in ours], target)
    peaks = {name: max(each.peak_mb for each in side) for name, side in (("peak_mb", ours), ("over_peak_mb", captum))}
    return row | peaks | {"budget_mb": MEMORY / 10**6}


def make_inputs(name: str) -> tuple[nn.Module, np.ndarray, np.ndarray]:
    """Return a network, images in dB (clips, 3, 64, 64) and target classes (clips,)."""
    torch.manual_seed(0)
    backbone = build_backbone(name, 10, weights="imagenet" if name == "efficientnet_lite0" else "random")
    normalise = Normalise.fixed(backbone.mean, backbone.std, LogMel.get_decibel_range(Frontend()))
    rng = np.random.default_rng(0)
    images = rng.uniform(FLOOR_DB, 20, (CLIPS, *SHAPE)).astype(np.float32)
    return nn.Sequential(normalise, backbone).eval(), images, rng.integers(0, 10, CLIPS)


def prepare_ours(name: str, steps: int) -> Function:
    """Return a function that computes attributions (clips, 3, 64, 64) by this project."""
    network, images, target = make_inputs(name)
    silence = np.broadcast_to(np.float32(FLOOR_DB), images.shape)

    def run() -> np.ndarray:
        model = AttributionModel(network, SHAPE, device="cpu", memory=MEMORY)
        return mean_gradients(model, images, silence, target, steps=steps) * (images - FLOOR_DB)

    return run


def captum_at_once(name: str, steps: int, size: int) -> Function:
    """Return the same function with captum on all clips; `size` is its internal_batch_size."""
    network, images, target = make_inputs(name)
    method, x, y = IntegratedGradients(network), torch.from_numpy(images), torch.from_numpy(target)
    return lambda: method.attribute(x, FLOOR_DB, target=y, n_steps=steps, internal_batch_size=size).detach().numpy()


def captum_clip_by_clip(name: str, steps: int) -> Function:
    """Return the same function with captum on one clip after the other."""
    network, images, target = make_inputs(name)
    method, clips = IntegratedGradients(network), torch.from_numpy(images).split(1)

    def run() -> np.ndarray:
        parts = [
            method.attribute(x, FLOOR_DB, target=int(y), n_steps=steps) for x, y in zip(clips, target, strict=True)
        ]
        return torch.cat(parts).detach().numpy()

    return run
