"""Attribution maps of networks with known attributions, and properties of maps of all networks."""

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from torch import nn

from analysis import attribution
from analysis.attribution import (
    AttributionMaps,
    AttributionModel,
    IGSettings,
    baselines,
    class_profiles,
    methods,
)
from analysis.attribution.integrated_gradients import mean_gradients
from core.config.run import Frontend
from core.errors import UserError
from core.inputs.base import Axis
from core.inputs.log_mel import LogMel
from core.inputs.spectrogram import FLOOR_DB
from core.models.backbone import build_backbone
from core.models.input_transform.normalise import Normalise

SHAPE = (3, 4, 5)
SLOW_FAMILIES = ("alexnet", "densenet121", "inception_v3", "efficientnet_v2_s", "soundnet8")
FAMILIES = ["efficientnet_lite0", "resnet18", "mobilenet_v3_small"]
FAMILIES += [pytest.param(name, marks=pytest.mark.slow) for name in SLOW_FAMILIES]


class LinearNetwork(nn.Module):
    """A network with two logits, each a weighted sum of the pixels."""

    def __init__(self, weight: np.ndarray) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(weight))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("nchw,kchw->nk", x, self.weight)


class PublishedExample(nn.Module):
    """relu(relu(x1) - 1 - relu(x2)) with in-place activations (Sundararajan et al. 2017, section 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(x)
        return self.relu(x[:, 0, 0, :1] - 1 - x[:, 0, 0, 1:])


def attribute(
    *args: Any, steps: int = 64, tolerance: float = 0.05, max_steps: int = 1024, **options: Any
) -> AttributionMaps:
    return attribution.attribute(*args, ig_settings=IGSettings(steps, tolerance, max_steps), **options)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def linear(rng: np.random.Generator) -> LinearNetwork:
    return LinearNetwork(rng.standard_normal((2, *SHAPE)).astype(np.float32))


def make_images(rng: np.random.Generator, n: int = 2, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return rng.uniform(FLOOR_DB, 20, (n, *shape)).astype(np.float32)


def make_network(seed: int = 0) -> nn.Sequential:
    """Return a network with in-place activations, batch norm and dropout."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = [Normalise.fixed([0.5] * 3, [0.5] * 3, LogMel.get_decibel_range(Frontend()))]
    layers += [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6(inplace=True), nn.Dropout(0.5)]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)]
    return nn.Sequential(*layers).double()


def test_integrated_gradients_of_published_example_with_inplace_relu() -> None:
    """For x = (3, 1) and baseline 0 the attributions are (1.5, -0.5)."""
    x = np.array([[[[3.0, 1.0]]]], np.float32)
    network = PublishedExample()
    model = AttributionModel(network, (1, 1, 2))
    maps = attribute(model, x, np.zeros((1, 1, 1, 1, 2), np.float32), np.array([0]), steps=256, max_steps=256)
    np.testing.assert_allclose(maps.attributions.ravel(), [1.5, -0.5], atol=0.02)
    np.testing.assert_array_equal(x.ravel(), [3, 1])
    assert network.relu.inplace
    assert abs(maps.convergence_delta[0]) < 0.02


def test_integrated_gradients_double_steps_until_tolerance() -> None:
    """relu(x1 - 1 - x2) is 0 on the first quarter of the path, then its gradient jumps."""
    x = np.array([[[[5.0, 1.0]]], [[[5.0, 1.0]]]], np.float32)
    zero = np.zeros((2, 1, 1, 1, 2), np.float32)
    coarse = attribute(AttributionModel(PublishedExample(), (1, 1, 2)), x, zero, np.array([0, 0]), steps=3, max_steps=3)
    fine = attribute(
        AttributionModel(PublishedExample(), (1, 1, 2)), x, zero, np.array([0, 0]), steps=3, tolerance=0.01
    )
    assert (coarse.error > 0.01).all()
    assert (coarse.steps == 3).all()
    assert (fine.error <= 0.011).all()
    assert (fine.steps > 3).all()
    assert (fine.steps % 3 == 0).all()


def test_mean_gradients_do_not_depend_on_memory_budget(rng: np.random.Generator) -> None:
    x = make_images(rng, 5, (3, 16, 16)).astype(np.float64)
    target = rng.integers(0, 4, 5)
    whole = AttributionModel(make_network(), x.shape[1:])
    results = {}
    for rows in (1, 8, 512):
        model = AttributionModel(make_network(), x.shape[1:], memory=rows * whole.bytes_per_image)
        assert model.batch_size == rows
        results[rows] = mean_gradients(model, x, np.full_like(x, FLOOR_DB), target, steps=24)
    for rows, gradients in results.items():
        np.testing.assert_allclose(gradients, results[1], rtol=1e-10, atol=1e-14, err_msg=f"{rows} rows")


def test_integrated_gradients_equal_captum(rng: np.random.Generator) -> None:
    x = make_images(rng, 2, (3, 16, 16)).astype(np.float64)
    network = make_network().eval()
    maps = attribute(
        AttributionModel(network, x.shape[1:]), x, baselines.make_baseline("silence", x), np.array([1, 2]), steps=50
    )
    expected = IntegratedGradients(network).attribute(
        torch.from_numpy(x), torch.full_like(torch.from_numpy(x), FLOOR_DB), target=torch.tensor([1, 2]), n_steps=50
    )
    np.testing.assert_allclose(maps.attributions, expected.detach().numpy(), rtol=1e-4, atol=1e-9)


def test_run_within_memory_halves_batch_size() -> None:
    model = AttributionModel(make_network(), (3, 16, 16), memory=10**8)
    batch_sizes: list[int] = []

    def work(rows: int) -> int:
        batch_sizes.append(rows)
        if rows > 4:
            raise torch.OutOfMemoryError
        return rows

    assert model.run_within_memory(work) == 4
    assert batch_sizes == [model.batch_size * 2**k for k in range(len(batch_sizes) - 1, -1, -1)]

    def never(rows: int) -> int:
        raise torch.OutOfMemoryError

    with pytest.raises(UserError, match="--device cpu"):
        model.run_within_memory(never)


@pytest.mark.parametrize("method", [name for name in methods.METHOD_NAMES if name != "gradcam"])
def test_methods_of_linear_network_are_exact(linear: LinearNetwork, rng: np.random.Generator, method: str) -> None:
    x = make_images(rng)
    maps = attribute(
        AttributionModel(linear, SHAPE), x, baselines.make_baseline("silence", x), np.array([0, 1]), method=method
    )
    weight = linear.weight.detach().numpy()[[0, 1]]
    exact = weight * (x - FLOOR_DB)
    if method == "saliency":
        np.testing.assert_allclose(maps.attributions, weight, rtol=1e-5)
    elif method.startswith("occlusion"):
        axis = (1, 3) if method == "occlusion-mel" else (1, 2)
        lines = maps.attributions
        np.testing.assert_allclose(lines, np.broadcast_to(lines.mean(axis=axis, keepdims=True), x.shape), rtol=1e-4)
        bands = exact.sum(axis=axis)
        pairs = bands[:, :-1] + bands[:, 1:]  # windows of two lines with stride one
        ends = lines.mean(axis=axis)
        np.testing.assert_allclose(ends[:, [0, -1]], pairs[:, [0, -1]], rtol=1e-3)
        np.testing.assert_allclose(ends[:, 1:-1], (pairs[:, 1:] + pairs[:, :-1]) / 2, rtol=1e-3)
    else:
        np.testing.assert_allclose(maps.attributions, exact, rtol=1e-4)
        assert np.isnan(maps.convergence_delta).all() == (method == "input-x-gradient")


def test_gradient_shap_is_repeatable_and_keeps_generator_states(linear: LinearNetwork) -> None:
    x = np.ones((1, *SHAPE), np.float32)
    noise = np.random.default_rng(1).normal(size=(1, 3, *SHAPE)).astype(np.float32)
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    model = AttributionModel(linear, SHAPE)
    first = methods.run_method("gradient-shap", model, x, noise, np.array([0]), samples=16)
    again = methods.run_method("gradient-shap", model, x, noise, np.array([0]), samples=16)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(before[0], np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(before[1], torch.get_rng_state())


def test_gradcam_shows_active_channel() -> None:
    """The channel equals the input, so the map is its activation times the mean gradient."""
    conv = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.ones_(conv.weight)
    network = nn.Sequential(OrderedDict(conv=conv, relu=nn.ReLU(inplace=True), flat=nn.Flatten(), out=nn.Linear(16, 1)))
    nn.init.constant_(network.out.weight, 0.5)
    x = np.zeros((1, 1, 4, 4), np.float32)
    x[0, 0, 1, 2] = 2.0
    x[0, 0, 3, 3] = -2.0  # relu in place would hide it from a hook on the convolution
    model = AttributionModel(network, x.shape[1:])
    layer = model.network.get_submodule("conv")
    results = methods.run_method("gradcam", model, x, np.zeros((1, 1, 1, 4, 4)), np.array([0]), layer=layer)
    mean_gradient = 0.5 / 16  # the ReLU is active at one pixel of 16
    np.testing.assert_allclose(results[0, 0], x[0, 0] * mean_gradient, atol=1e-6)


def test_attributions_are_averaged_over_noise_baselines(rng: np.random.Generator) -> None:
    x = make_images(rng, 2, (3, 16, 16))
    training = baselines.TrainingStats(np.full((3, 16, 16), -30, np.float32), np.full((3, 16, 16), 8, np.float32))
    noise = baselines.make_baseline("noise", x, training)
    network = make_network().float()
    model = AttributionModel(network, x.shape[1:])
    target = np.array([0, 1])
    maps = attribute(model, x, noise, target, baseline="noise", steps=128, tolerance=1e9)
    each = [attribute(model, x, noise[:, k : k + 1], target, steps=16, max_steps=16) for k in range(8)]
    np.testing.assert_allclose(maps.attributions, np.mean([m.attributions for m in each], axis=0), atol=1e-6)
    np.testing.assert_allclose(maps.baseline_output, np.mean([m.baseline_output for m in each], axis=0), atol=1e-6)
    assert (maps.steps == 128).all()
    assert (attribute(model, x, noise, target, steps=128).error <= 0.0501).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_maps_of_network_families_are_complete(name: str) -> None:
    size = {"inception_v3": 75, "alexnet": 64}.get(name, 33)
    rng = np.random.default_rng(0)
    x = make_images(rng, 1, (3, size, size))
    backbone = build_backbone(name, 3, weights="random", seed=1, input_shape=x.shape[1:])
    normalise = Normalise.fixed(backbone.mean, backbone.std, LogMel.get_decibel_range(Frontend()))
    network = nn.Sequential(OrderedDict(normalise=normalise, backbone=backbone))
    model = AttributionModel(network, x.shape[1:])
    maps = attribute(model, x, baselines.make_baseline("silence", x), np.array([1]), steps=16)
    assert np.isfinite(maps.attributions).all()
    difference = abs(maps.output - maps.baseline_output)
    assert abs(maps.convergence_delta) <= 0.05 * difference + 1e-5 * (1 + difference), f"{maps.error} {maps.steps}"


def test_training_stats_equal_numpy(rng: np.random.Generator) -> None:
    x = make_images(rng, 130)
    rows = np.arange(0, 130, 2)
    training = baselines.TrainingStats.from_images(x, rows)
    np.testing.assert_allclose(training.mean, x[rows].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(training.std, x[rows].std(axis=0), rtol=1e-4)


def test_make_baseline_returns_documented_images(rng: np.random.Generator, tmp_path: object) -> None:
    x = make_images(rng, 3, (3, 16, 24))
    training = baselines.TrainingStats.from_images(x, np.arange(3))
    images = {name: baselines.make_baseline(name, x, training) for name in baselines.BASELINE_NAMES}
    assert {name: value.shape for name, value in images.items()} == {
        "silence": (3, 1, 3, 16, 24),
        "mean": (3, 1, 3, 16, 24),
        "blurred": (3, 1, 3, 16, 24),
        "noise": (3, baselines.NOISE_IMAGES, 3, 16, 24),
    }
    assert (images["silence"] == FLOOR_DB).all()
    np.testing.assert_array_equal(images["mean"][1, 0], training.mean)
    assert (images["blurred"].std(axis=(2, 3, 4)) < 0.2 * x.std(axis=(1, 2, 3))[:, None]).all()
    np.testing.assert_allclose(images["blurred"][:, 0].mean(axis=(2, 3)), x.mean(axis=(2, 3)), atol=4)
    assert (images["noise"] >= FLOOR_DB).all()
    np.testing.assert_array_equal(images["noise"], baselines.make_baseline("noise", x, training))
    assert not np.array_equal(images["noise"][0, 0], images["noise"][0, 1])


def test_make_baseline_with_invalid_name_or_file_raises_user_error(rng: np.random.Generator, tmp_path: object) -> None:
    x = make_images(rng)
    path = f"{tmp_path}/mine.npy"
    with pytest.raises(UserError, match=r"^unknown baseline 'silense': did you mean 'silence'\? choose from silence"):
        baselines.make_baseline("silense", x)
    with pytest.raises(UserError, match=r"mine\.npy: cannot be read as an array \(.*\)$"):
        baselines.make_baseline(path, x)
    np.save(path, np.zeros((3, 4, 4)))
    with pytest.raises(UserError, match=r"mine\.npy: .*\(3, 4, 4\).*\(3, 4, 5\)$"):
        baselines.make_baseline(path, x)
    np.save(path, np.full(SHAPE, np.nan))
    with pytest.raises(UserError, match=r"mine\.npy: .*NaN or infinite"):
        baselines.make_baseline(path, x)
    np.save(path, np.full(SHAPE, -20.0))
    assert (baselines.make_baseline(path, x) == -20).all()


def test_class_profiles_give_shares_along_both_axes() -> None:
    attributions = np.zeros((3, 1, 4, 5), np.float32)
    attributions[0, 0, 1, 2], attributions[1, 0, 3, 2] = -7.0, 1.0  # every clip has the same weight
    zero = np.zeros_like(attributions)
    maps = AttributionMaps(
        "m", "b", zero, zero[:, None], attributions, None, *(np.zeros(3, int), np.zeros((3, 2))), *[np.zeros(3)] * 4
    )
    axes = Axis.even("mel", "Hz", 4, 4), Axis.even("frame", "s", 5, 5)
    frame = class_profiles(maps, np.array([0, 0, 1]), ("cat", "dog"), axes)
    cat = frame[(frame["class"] == "cat") & (frame["axis"] == "mel")].set_index("index")["share"]
    assert cat.tolist() == [0, 0.5, 0, 0.5]
    time = frame[(frame["class"] == "cat") & (frame["axis"] == "frame")]["share"]
    assert time.tolist() == [0, 0, 1, 0, 0]
    assert frame[frame["class"] == "dog"]["share"].sum() == 0
    assert frame.groupby("class")["clips"].first().to_dict() == {"cat": 2, "dog": 1}
