"""SVCCA from running sums against plain NumPy: the SVD of each whole matrix, then CCA.

Both sides must give the same values; ours also computes the noise floor. Each runs in a new process with all cores, so
that its peak memory can be measured. Comparing networks includes their forward passes on both sides. Linux only.
"""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from analysis.similarity import compare_networks, list_weight_layers, svcca
from tests.benchmarks.comparison import REPEATS, Function, Row, compare, measure_alone

MIN_SPEEDUP, MAX_MEMORY = 10.0, 0.1
CLIPS, BATCH_SIZE = 128, 8
SECONDS = 12.0  # of calls in each process


def measure() -> list[Row]:
    """Compare time and memory for one layer of 256 channels and for all layers of DenseNet-121."""
    layer, network = "256 channels, 100,000 datapoints", f"all 121 layers of DenseNet-121, {CLIPS} clips"
    return [*_rows(layer, layer_ours, layer_numpy), *_rows(network, network_ours, network_numpy)]


def _rows(what: str, ours: Callable[[], Function], plain: Callable[[], Function]) -> list[Row]:
    rounds = [[measure_alone(side, seconds=SECONDS) for side in (plain, ours)] for _ in range(REPEATS)]
    for reference, own in rounds:
        np.testing.assert_allclose(own.result, reference.result, atol=1e-6)
    times = ([side[k].seconds for side in rounds] for k in range(2))
    ours_mb, plain_mb = (max(side[k].peak_mb for side in rounds) for k in (1, 0))
    memory = {"what": f"SVCCA of {what}, peak memory: ours / plain NumPy", "ratio": ours_mb / plain_mb}
    memory |= {"target": MAX_MEMORY, "at_most": True, "peak_mb": ours_mb, "over_peak_mb": plain_mb}
    return [compare(f"SVCCA of {what}: plain NumPy / ours", *times, MIN_SPEEDUP), memory]


def numpy_svcca(x: np.ndarray, y: np.ndarray) -> float:
    """Return SVCCA of activations (datapoints, channels): float64, 99 % of the variance, CCA by QR and SVD."""
    bases = []
    for activations in (x, y):
        centred = activations.astype(np.float64)
        centred -= centred.mean(0)
        u, s, _ = np.linalg.svd(centred, full_matrices=False)
        rank = np.searchsorted(np.cumsum(s**2), 0.99 * np.sum(s**2)) + 1
        bases.append(np.linalg.qr(u[:, :rank] * s[:rank])[0])
    return float(np.linalg.svd(bases[0].T @ bases[1], compute_uv=False).clip(0, 1).mean())


def make_layers() -> tuple[Tensor, Tensor]:
    """Return the activations (100,000, 256) of two layers that share 64 directions."""
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((100_000, 64), dtype=np.float32)
    x, y = (
        shared @ rng.standard_normal((64, 256), dtype=np.float32)
        + rng.standard_normal((100_000, 256), dtype=np.float32)
        for _ in range(2)
    )
    return torch.from_numpy(x), torch.from_numpy(y)


def layer_ours() -> Function:
    """Return a function that computes SVCCA of one layer by this project."""
    x, y = make_layers()
    return lambda: [svcca(x, y).value]


def layer_numpy() -> Function:
    """Return the same function in plain NumPy."""
    x, y = (activations.numpy() for activations in make_layers())
    return lambda: [numpy_svcca(x, y)]


def make_networks() -> tuple[nn.Module, nn.Module, Tensor]:
    """Return a random DenseNet-121, one with slightly different weights, and images (clips, 3, 128, 128)."""
    import torchvision

    warnings.simplefilter("ignore")  # about a classifier with more channels than clips
    torch.manual_seed(0)
    before, after = (torchvision.models.densenet121(weights=None).eval() for _ in range(2))
    after.load_state_dict(before.state_dict())
    with torch.no_grad():
        for parameter in after.parameters():
            parameter += 0.1 * parameter.std(correction=0) * torch.randn_like(parameter)
    return before, after, torch.randn(CLIPS, 3, 128, 128)


def network_ours() -> Function:
    """Return a function that compares all layers of two networks by this project."""
    before, after, images = make_networks()
    layers = list_weight_layers(before)
    return lambda: [s.value for s in compare_networks(before, after, images.split(BATCH_SIZE), layers).values()]


def network_numpy() -> Function:
    """Return the same function in plain NumPy, which stores the activations of all layers first."""
    before, after, images = make_networks()
    layers = list_weight_layers(before)

    def run() -> list[float]:
        x, y = (_activations(network, images, layers) for network in (before, after))
        return [numpy_svcca(x.pop(layer), y.pop(layer)) for layer in layers]

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
