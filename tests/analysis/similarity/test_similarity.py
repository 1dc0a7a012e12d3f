import re

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from analysis.similarity import (
    INDICES,
    Moments,
    cka,
    compare_networks,
    list_weight_layers,
    procrustes,
    pwcca,
    similarity,
    svcca,
)
from core.errors import UserError

FUNCTIONS = {"svcca": svcca, "pwcca": pwcca, "cka": cka, "procrustes": procrustes}
SYMMETRIC = ["svcca", "cka", "procrustes"]


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def make_related(rng, n=600, d=(12, 20), shared=6, noise=0.5):
    """Return two sets of activations with common directions and decaying spectra."""
    latent = rng.standard_normal((n, shared))
    return tuple(
        (latent @ rng.standard_normal((shared, k)) + noise * rng.standard_normal((n, k))) * np.geomspace(1, 0.05, k)
        for k in d
    )


def make_rotation(rng, d):
    return np.linalg.qr(rng.standard_normal((d, d)))[0]


# ---- independent references: float64, whole matrices, QR and SVD ----------------------------------------------------


def orthonormal_basis(x, share=1.0):
    u, s, vt = np.linalg.svd(x - x.mean(0), full_matrices=False)
    rank = int((s > 1e-5 * s[0]).sum())
    n_kept = min(int(np.searchsorted(np.cumsum(s**2) / np.sum(s**2), share)) + 1, rank)
    return np.linalg.qr(u[:, :n_kept] * s[:n_kept])[0]


def direct_svcca(x, y, share=0.99):
    return (
        np.linalg.svd(orthonormal_basis(x, share).T @ orthonormal_basis(y, share), compute_uv=False).clip(0, 1).mean()
    )


def direct_pwcca(x, y):
    qx, qy = orthonormal_basis(x), orthonormal_basis(y)
    a, rho, _ = np.linalg.svd(qx.T @ qy, full_matrices=False)
    weights = np.abs((qx @ a).T @ (x - x.mean(0))).sum(1)
    return (weights * rho).sum() / weights.sum()


def direct_hsic(k, m):
    """Equation 5 of Song et al., with the n x n kernels."""
    n = len(k)
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    terms = np.trace(k @ m) + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * k.sum(0) @ m.sum(0)
    return terms / (n * (n - 3))


def direct_cka(x, y):
    k, m = x @ x.T, y @ y.T
    return direct_hsic(k, m) / np.sqrt(direct_hsic(k, k) * direct_hsic(m, m))


def direct_procrustes(x, y):
    x, y = x - x.mean(0), y - y.mean(0)
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    return np.linalg.svd(x.T @ y, compute_uv=False).sum()


DIRECT = {"svcca": direct_svcca, "pwcca": direct_pwcca, "cka": direct_cka, "procrustes": direct_procrustes}


def similarity_of_stream(x, y, sizes, index):
    moments = Moments()
    start = 0
    for size in sizes:
        moments.add(x[start : start + size], y[start : start + size])
        start += size
    assert start == len(x)
    return similarity(moments, index)


@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize("mean", [0, 500])
def test_index_of_arrays_and_streams_equals_direct_computation(rng, index, mean):
    x, y = make_related(rng)
    expected = DIRECT[index](x, y)
    x, y = x + mean * x.std(0), y - mean * y.std(0)
    assert FUNCTIONS[index](x, y).value == pytest.approx(expected, abs=1e-8)
    assert similarity_of_stream(x, y, [100, 1, 299, 200], index).value == pytest.approx(expected, abs=1e-8)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("index", INDICES)
def test_index_on_gpu_equals_cpu(rng, index):
    x, y = (torch.tensor(side) for side in make_related(rng))
    on_gpu = FUNCTIONS[index](x.cuda(), y.cuda())
    assert on_gpu.value == pytest.approx(FUNCTIONS[index](x, y).value, abs=1e-8)
    assert on_gpu.n_directions == FUNCTIONS[index](x, y).n_directions


# ---- identities ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", INDICES)
def test_index_of_equal_representations_is_1(rng, index):
    for x in (make_related(rng)[1], rng.standard_normal((300, 40)).astype(np.float32) + 50):
        assert FUNCTIONS[index](x, x).value == pytest.approx(1, abs=1e-10)
        assert FUNCTIONS[index](x, 3 * x @ make_rotation(rng, x.shape[1]) - 7).value == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("index", INDICES)
def test_index_is_invariant_to_rotation_shift_and_scale_of_y(rng, index):
    x, y = make_related(rng)
    turned = 1e-6 * (y @ make_rotation(rng, y.shape[1])) + 2e-6
    assert FUNCTIONS[index](x, turned).value == pytest.approx(FUNCTIONS[index](x, y).value, abs=1e-9)


@pytest.mark.parametrize("index", SYMMETRIC)
def test_index_is_symmetric_and_invariant_to_rotation_of_x(rng, index):
    x, y = make_related(rng)
    value = FUNCTIONS[index](x, y).value
    assert FUNCTIONS[index](100 * x @ make_rotation(rng, x.shape[1]), y).value == pytest.approx(value, abs=1e-9)
    assert FUNCTIONS[index](y, x).value == pytest.approx(value, abs=1e-12)


def test_cca_is_invariant_to_invertible_maps(rng):
    x, y = make_related(rng)
    mapped = y @ rng.standard_normal((20, 20))
    for compare in (pwcca, lambda a, b: svcca(a, b, explained_variance=1.0)):
        assert compare(x, mapped).value == pytest.approx(compare(x, y).value, abs=1e-8)
    both = svcca(x @ rng.standard_normal((12, 12)), mapped, explained_variance=1.0)
    assert both.value == pytest.approx(svcca(x, y, explained_variance=1.0).value, abs=1e-8)
    assert abs(cka(x, mapped).value - cka(x, y).value) > 1e-3


def test_pwcca_is_weighted_by_x(rng):
    x = rng.standard_normal((1000, 2)) * [10, 1]
    y = np.stack([x[:, 0], rng.standard_normal(1000)], axis=1)
    assert pwcca(x, y).value > 0.85  # y contains the large direction of x
    assert pwcca(y * [1e-2, 1], x).value < 0.3  # x does not contain the large direction of y
    assert pwcca(5 * x, y).value == pytest.approx(pwcca(x, y).value, abs=1e-12)


# ---- the noise floor -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "floor"), [(110, 0.93), (500, 0.39), (5000, 0.12)])
@pytest.mark.filterwarnings("ignore:svcca of")
def test_svcca_of_independent_gaussians_equals_published_floor(rng, n, floor):
    x, y = rng.standard_normal((2, n, 100))
    result = svcca(x, y, explained_variance=1.0)
    assert result.value == pytest.approx(floor, abs=0.01)
    assert result.noise_floor == pytest.approx(floor, abs=0.01)
    related_floor = svcca(x, x + 0.1 * y, explained_variance=1.0)
    assert related_floor.value > 0.98
    assert related_floor.noise_floor == pytest.approx(floor, abs=0.01)


@pytest.mark.filterwarnings("ignore:cka of")
def test_cka_of_independent_gaussians_is_0(rng):
    x, y = rng.standard_normal((2, 400, 512))
    result = cka(x, y)
    assert result.value == pytest.approx(0, abs=0.01)
    assert result.noise_floor == pytest.approx(0, abs=0.01)


def test_noise_floor_equals_index_of_permuted_datapoints(rng):
    x, y = make_related(rng)
    for index, function in FUNCTIONS.items():
        permuted = [function(x, y[rng.permutation(len(y))]).value for _ in range(20)]
        floors = [function(x, y, seed=seed).noise_floor for seed in range(20)]
        error = np.sqrt(np.var(permuted) + np.var(floors)) / np.sqrt(20)
        assert abs(np.mean(floors) - np.mean(permuted)) < 4 * error, index
    assert svcca(x, y, seed=3) == svcca(x, y, seed=3)


# ---- awkward inputs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", INDICES)
def test_index_of_rank_deficient_inputs_equals_direct_computation(rng, index):
    x, y = make_related(rng)
    doubled = np.hstack([x, x, x[:, :3] @ rng.standard_normal((3, 5)), np.zeros((600, 2))])
    result = FUNCTIONS[index](doubled, y)
    assert result.value == pytest.approx(DIRECT[index](doubled, y), abs=1e-6)
    if index != "svcca":
        assert result.n_directions == (12, 20)
    in_float32 = FUNCTIONS[index](doubled.astype(np.float32), doubled.astype(np.float32))
    assert in_float32.value == pytest.approx(1, abs=1e-10)
    assert in_float32.n_directions[0] <= 12


@pytest.mark.parametrize("index", INDICES)
def test_index_of_constant_input_is_0(rng, index):
    x = np.full((200, 5), 0.1)
    y = rng.standard_normal((200, 4))
    for a, b, n_directions in ((x, y, (0, 4)), (y, x, (4, 0)), (x, x, (0, 0))):
        result = FUNCTIONS[index](a, b)
        assert (result.value, result.noise_floor, result.n_directions) == (0.0, 0.0, n_directions)
    assert similarity_of_stream(x, y, [60, 140], index).value == 0.0


@pytest.mark.parametrize("index", INDICES)
def test_index_of_more_neurons_than_datapoints_equals_direct_computation(rng, index):
    x, y = rng.standard_normal((30, 50)), rng.standard_normal((30, 80))
    with pytest.warns(UserWarning, match="datapoints per neuron"):
        result = FUNCTIONS[index](x, y)
    assert result.value == pytest.approx(DIRECT[index](x, y), abs=1e-8)
    if index == "pwcca":  # always 1, and so is the floor
        assert result.n_directions == (29, 29)
        assert (result.value, result.noise_floor) == pytest.approx((1, 1), abs=1e-8)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros(9), np.zeros((9, 2)), "x has the shape (9,): similarity needs (datapoints, neurons)"),
        (np.zeros((9, 2)), np.zeros((8, 2)), "x has 9 datapoints and y 8; "),
        (np.zeros((1, 2)), np.zeros((1, 2)), "similarity needs at least 2 datapoints, got 1"),
        (np.zeros((9, 2)), np.full((9, 3), np.nan), "y has NaN or infinite activations in 3 of its 3 neurons"),
        (np.full((9, 2), "a"), np.zeros((9, 2)), "x holds values of type <U1: similarity needs real numbers"),
    ],
)
def test_index_of_invalid_input_raises_user_error(x, y, message):
    with pytest.raises(UserError, match="^" + re.escape(message)):
        svcca(x, y)


def test_invalid_options_raise_user_error(rng):
    x, y = make_related(rng)
    for share in (0, -1, 1.01, float("nan")):
        with pytest.raises(UserError, match=f"^explained_variance is {share:g}: must be above 0"):
            svcca(x, y, explained_variance=share)
    with pytest.raises(UserError, match="^cka needs at least 4 datapoints, got 3$"):
        cka(x[:3], y[:3])
    with pytest.raises(UserError, match="^unknown similarity index 'cca': did you mean 'svcca'"):
        similarity(Moments(), "cca")


def test_pwcca_weights_belong_to_x_on_both_sides(rng):  # anatome issue 30
    for sizes in ((10, 10), (30, 8), (8, 30)):
        x, y = make_related(rng, d=sizes, shared=3)
        assert pwcca(x, y).value == pytest.approx(direct_pwcca(x, y), abs=1e-8)


class ConvNet(nn.Module):
    """A convolution, an in-place ReLU and a permutation of channels."""

    def __init__(self, order=None, stride=1, width=6):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, width, 3, padding=1, stride=stride)
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.pick = nn.Identity()
        self.unused = nn.Linear(2, 2)
        self.order = torch.arange(width) if order is None else torch.as_tensor(order)

    def forward(self, x):
        return self.pick(self.relu(self.norm(self.conv(x)))[:, self.order])


@pytest.fixture
def clips():
    return list(torch.randn(20, 3, 9, 5, generator=torch.Generator().manual_seed(1)).split(8))


@pytest.mark.parametrize("spatial", ["flatten", "mean"])
@pytest.mark.parametrize("index", INDICES)
@pytest.mark.filterwarnings("ignore:.*datapoints per neuron")
def test_compare_networks_with_permuted_channels_is_1(
    clips, index, spatial
):  # anatome: CKA 0.783 for permuted channels
    before, after = ConvNet(), ConvNet(order=[3, 1, 5, 0, 2, 4])
    result = compare_networks(before, after, clips, ["pick"], index=index, spatial=spatial)["pick"]
    assert result.value == pytest.approx(1, abs=1e-10)
    assert result.n_datapoints == (20 * 9 * 5 if spatial == "flatten" else 20)
    assert max(result.n_directions) <= 6


def test_compare_networks_reads_outputs_before_in_place_layers(clips):
    before, after = ConvNet(), ConvNet()
    with torch.no_grad():
        after.conv.weight += 0.1 * torch.randn_like(after.conv.weight)
        before.eval(), after.eval()
        sides = [
            torch.cat([net.norm(net.conv(batch)) for batch in clips]).movedim(1, -1).flatten(0, -2)
            for net in (before, after)
        ]
    assert min(side.min() for side in sides) < -0.5  # before the ReLU
    for index in INDICES:
        result = compare_networks(before, after, clips, ["norm"], index=index)["norm"]
        assert result.value == pytest.approx(DIRECT[index](*(s.double().numpy() for s in sides)), abs=1e-6)


# ---- networks --------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*datapoints per neuron")
def test_compare_networks_averages_outputs_of_different_sizes(clips):
    before, after = ConvNet(), ConvNet(stride=2, width=4)
    with pytest.raises(
        UserError, match=re.escape("layer 'conv' has 9x5 and 5x3 positions in the two networks; use spatial='mean'")
    ):
        compare_networks(before, after, clips, ["conv"])
    result = compare_networks(before, after, clips, ["conv"], spatial="mean", index="cka")["conv"]
    with torch.no_grad():
        x, y = (torch.cat([net.conv(batch).mean((2, 3)) for batch in clips]) for net in (before, after))
    assert result.value == pytest.approx(cka(x, y).value, abs=1e-6)


def test_compare_networks_warns_once_of_few_datapoints(clips):
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(42, 8))
    with pytest.warns(UserWarning, match=r"^2 of 3 layers have fewer than 5 .* \(1: 20 for 42\)") as caught:
        compare_networks(network, network, clips, ["0", "1", "2"], spatial="mean")
    assert len(caught) == 1
    assert caught[0].filename == __file__


class InvalidLayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU()
        self.split = nn.Identity()
        self.sum = nn.Flatten(0)

    def forward(self, x):
        self.split((x, x))
        return self.sum(self.relu(self.relu(x)))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("relu", "layer 'relu' runs more than once per batch; choose a layer that runs once"),
        ("split", "layer 'split' returns tuple: similarity needs (clips, channels, ...)"),
        ("spilt", "the network InvalidLayers has no layer 'spilt': did you mean 'split'?"),
    ],
)
def test_compare_networks_with_invalid_layer_names_it(clips, layer, message):
    with pytest.raises(UserError, match="^" + re.escape(message) + "$"):
        compare_networks(InvalidLayers(), InvalidLayers(), clips, [layer])


def test_compare_networks_with_invalid_arguments_raises_user_error(clips):
    network = ConvNet()
    with pytest.raises(UserError, match="^unknown spatial mode 'flat': did you mean 'flatten'"):
        compare_networks(network, network, clips, ["conv"], spatial="flat")
    with pytest.raises(UserError, match="does not run"):
        compare_networks(network, network, clips, ["conv", "unused"])
    with pytest.raises(UserError, match="^layer 'conv': similarity needs at least 2 datapoints, got 0$"):
        compare_networks(network, network, [], ["conv"])
    with pytest.raises(UserError, match="^layer 'conv': x has NaN or infinite activations in 6 of its 6 neurons$"):
        compare_networks(network, network, [clips[0] * float("nan")], ["conv"])


def test_list_weight_layers_returns_convolutions_and_linear_layers():
    assert list_weight_layers(ConvNet()) == ("conv", "unused")
    assert len(list_weight_layers(torchvision.models.densenet121(weights=None))) == 121
