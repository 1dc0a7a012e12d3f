"""Similarity from running sums against the plain NumPy recipe: the SVD of each whole matrix, then CCA.

Each side runs in a process of its own, so that its peak memory is its own: what it takes on top of its inputs (the
activations of a layer; two networks and their images). Both have all cores, and must give the same value; ours works
out the noise floor besides. A pass over a network includes the forward passes, the same on both sides; "on top of"
leaves them out on both. Linux only: the peak is read from /proc.
"""

import multiprocessing
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from analysis.similarity import compare_networks, list_weight_layers, svcca

FASTER, SMALLER = 10.0, 0.1
CLIPS, BATCH_SIZE = 128, 8
ROUNDS, ENOUGH = 3, 12.0  # a side is timed again and again until so many seconds are over


def measure() -> list[dict[str, Any]]:
    """Time both sides on a layer of 256 neurons with 100,000 datapoints, and on all layers of a DenseNet-121."""
    layer, network = "256 neurons x 100,000 datapoints", f"all 121 layers of DenseNet-121, {CLIPS} clips"
    ours, reference = _in_turn(layer_ours, layer_reference)
    rows = _rows(layer, ours, reference)
    ours, reference, bare = _in_turn(network_ours, network_reference, network_forward)
    rows += _rows(network, ours, reference)
    on_top = [side.seconds - bare.seconds for side in (ours, reference)]
    return [*rows, _faster(f"{network}, on top of the forward passes", *on_top)]


@dataclass(frozen=True)
class Side:
    """What one side found, its best time, and its peak memory on top of its inputs."""

    values: list[float]
    seconds: float
    peak_mb: float


def _rows(what: str, ours: Side, reference: Side) -> list[dict[str, Any]]:
    np.testing.assert_allclose(ours.values, reference.values, atol=1e-6)
    memory = {"what": f"{what}: peak memory", "ours_mb": ours.peak_mb, "reference_mb": reference.peak_mb}
    memory |= {"ratio": ours.peak_mb / reference.peak_mb, "target": SMALLER, "at_most": True}
    return [_faster(what, ours.seconds, reference.seconds), memory]


def _faster(what: str, ours: float, reference: float) -> dict[str, Any]:
    times = {"ours_seconds": ours, "reference_seconds": reference}
    return {"what": f"{what}: times faster", **times, "ratio": reference / ours, "target": FASTER}


def numpy_recipe(x: np.ndarray, y: np.ndarray) -> float:
    """SVCCA as one would write it down: float64, centred, SVD, 99 % of the variance, CCA by QR and SVD."""
    bases = []
    for activations in (x, y):
        centred = activations.astype(np.float64)
        centred -= centred.mean(0)
        u, s, _ = np.linalg.svd(centred, full_matrices=False)
        kept = np.searchsorted(np.cumsum(s**2), 0.99 * np.sum(s**2)) + 1
        bases.append(np.linalg.qr(u[:, :kept] * s[:kept])[0])
    return float(np.linalg.svd(bases[0].T @ bases[1], compute_uv=False).clip(0, 1).mean())


def layer_inputs() -> tuple[Tensor, Tensor]:
    """Make two layers that share 64 of their directions."""
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((100_000, 64), dtype=np.float32)
    x, y = (
        shared @ rng.standard_normal((64, 256), dtype=np.float32)
        + rng.standard_normal((100_000, 256), dtype=np.float32)
        for _ in range(2)
    )
    return torch.from_numpy(x), torch.from_numpy(y)


def layer_ours() -> Callable[[], list[float]]:
    """Prepare ours on one layer."""
    x, y = layer_inputs()
    return lambda: [svcca(x, y).value]


def layer_reference() -> Callable[[], list[float]]:
    """Prepare the recipe on one layer."""
    x, y = (activations.numpy() for activations in layer_inputs())
    return lambda: [numpy_recipe(x, y)]


def network_inputs() -> tuple[nn.Module, nn.Module, Tensor]:
    """Make a random DenseNet-121, one with its weights slightly moved, and images."""
    import torchvision

    torch.manual_seed(0)
    before, after = (torchvision.models.densenet121(weights=None).eval() for _ in range(2))
    after.load_state_dict(before.state_dict())
    with torch.no_grad():
        for parameter in after.parameters():
            parameter += 0.1 * parameter.std(correction=0) * torch.randn_like(parameter)
    return before, after, torch.randn(CLIPS, 3, 128, 128)


def network_ours() -> Callable[[], list[float]]:
    """Prepare ours on a whole network."""
    before, after, images = network_inputs()
    layers = list_weight_layers(before)
    return lambda: [s.value for s in compare_networks(before, after, images.split(BATCH_SIZE), layers).values()]


def network_reference() -> Callable[[], list[float]]:
    """Prepare the recipe on a whole network: keep every activation, then layer by layer."""
    before, after, images = network_inputs()
    layers = list_weight_layers(before)

    def run() -> list[float]:
        x, y = (_activations(network, images, layers) for network in (before, after))
        return [numpy_recipe(x.pop(layer), y.pop(layer)) for layer in layers]

    return run


def network_forward() -> Callable[[], list[float]]:
    """Prepare the forward passes alone, in the memory layout that suits them best."""
    before, after, images = network_inputs()

    @torch.inference_mode()
    def run() -> list[float]:
        for batch in images.to(memory_format=torch.channels_last).split(BATCH_SIZE):
            before(batch)
            after(batch)
        return []

    return run


@torch.inference_mode()
def _activations(network: nn.Module, images: Tensor, layers: tuple[str, ...]) -> dict[str, np.ndarray]:
    batches: dict[str, list[np.ndarray]] = {layer: [] for layer in layers}
    for layer in layers:
        network.get_submodule(layer).register_forward_hook(
            lambda module, inputs, output, layer=layer: batches[layer].append(
                np.ascontiguousarray(output.movedim(1, -1).flatten(0, -2).numpy())
            )
        )
    for batch in images.split(BATCH_SIZE):
        network(batch)
    return {layer: np.concatenate(batches.pop(layer)) for layer in layers}


def _in_turn(*sides: Callable[[], Callable[[], list[float]]]) -> list[Side]:
    """Run the sides one after the other, and again: a machine's speed drifts, and the best time of each counts."""
    rounds = [[_alone(prepare) for prepare in sides] for _ in range(ROUNDS)]
    return [min(found, key=lambda side: side.seconds) for found in zip(*rounds, strict=True)]


def _alone(prepare: Callable[[], Callable[[], list[float]]]) -> Side:
    """Run one side in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_watched, (prepare,))


def _watched(prepare: Callable[[], Callable[[], list[float]]]) -> Side:
    warnings.simplefilter("ignore")  # the classifier has more neurons than there are clips
    run = prepare()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before, seconds = _status("VmRSS"), list[float]()
    while sum(seconds) < ENOUGH:
        start = time.perf_counter()
        values = run()
        seconds.append(time.perf_counter() - start)
    return Side(values, min(seconds), _status("VmHWM") - before)


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))
