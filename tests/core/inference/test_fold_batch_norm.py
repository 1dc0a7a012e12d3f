"""Batch norm folding: outputs agree with the plain network, and only safe pairs are folded."""

import copy

import pytest
import timm
import torch
from torch import nn

from core.inference.fold_batch_norm import (
    Pair,
    find_foldable_pairs,
    fold_batch_norms,
    is_traceable,
    temporary_modules,
)
from core.inference.trace import trace_network
from core.models import find_family, list_backbones
from core.models.backbone import build_backbone
from core.models.family import DEFAULT_SHAPE, VECTOR

N_LEFT = {  # number of batch norms that cannot be folded
    "efficientnet_lite0": 0,
    "resnet18": 0,
    "mobilenet_v2": 0,
    "densenet121": 62,
    "timm:regnety_002": 0,
    "soundnet8_1d": 0,
}
SHAPES = {"soundnet8_1d": (1, 22_050)}


def find_pairs(network: nn.Module, x: torch.Tensor) -> list[Pair]:
    return find_foldable_pairs(network, trace_network(network, x, is_traceable))


def count_norms(network: nn.Module) -> int:
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d)
    return sum(isinstance(module, kinds) for module in network.modules())


def build_network(name: str) -> tuple[nn.Module, torch.Tensor]:
    """Return a network in evaluation mode whose batch norms have random weights and statistics, and three inputs."""
    network = build_backbone(name, 5, weights="random", input_shape=SHAPES.get(name, DEFAULT_SHAPE))
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(3, *SHAPES.get(name, DEFAULT_SHAPE), generator=generator)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = None  # use the statistics of the one batch below
            for tensor, low, high in ((module.weight, 0.5, 1.5), (module.bias, -0.5, 0.5)):
                tensor.data.uniform_(low, high, generator=generator)
    with torch.no_grad():
        network.train()(x)
    return network.eval(), x


def check_folding(name: str, n_left: int | None = None) -> None:
    """Check that a folded network gives the plain outputs and is restored; `n_left` batch norms are not folded."""
    network, x = build_network(name)
    tensors = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    modules = dict(network.named_modules())
    pairs = find_pairs(network, x[:2])
    with torch.inference_mode():
        plain = network(x)
        with temporary_modules(network, fold_batch_norms(network, pairs)):
            assert count_norms(network) == count_norms(nn.ModuleList(modules.values())) - len(pairs)
            assert n_left is None or count_norms(network) == n_left
            folded = network(x)
        assert torch.equal(network(x), plain)
        exact = copy.deepcopy(network).double()(x.double())
    folded_error, plain_error = (float((y - exact).abs().max()) for y in (folded, plain))
    assert folded_error <= max(1e-4, 3 * plain_error)  # a hundred untrained layers amplify any rounding
    assert dict(network.named_modules()) == modules
    assert all(torch.equal(tensor, tensors[key]) for key, tensor in network.state_dict().items())
    assert plain.std(0).max() > 100 * folded_error  # outputs differ between inputs


@pytest.mark.parametrize(("name", "n_left"), N_LEFT.items())
def test_folded_network_gives_plain_outputs(name: str, n_left: int) -> None:
    check_folding(name, n_left)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [n for n in list_backbones() if n not in N_LEFT and find_family(n).input_kind(n) != VECTOR]
)
def test_folded_network_of_every_name_gives_plain_outputs(name: str) -> None:
    check_folding(name)


class ConvNorm(nn.Module):
    """A convolution and a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))


class OutputUsedTwice(ConvNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return self.norm(y) + y


class OutputUsedAsView(ConvNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return torch.cat([self.norm(y), y[:, :1]], 1)


class CalledTwice(ConvNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(self.norm(self.conv(x))))


class ChangedInPlace(ConvNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x).relu_())


class BatchStatistics(ConvNorm):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3, track_running_stats=False)


class StandardisedWeights(ConvNorm):
    def __init__(self) -> None:
        super().__init__()
        self.conv = timm.layers.StdConv2d(3, 3, 1)


class NormalisedWeights(ConvNorm):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.utils.parametrizations.weight_norm(self.conv)


class Hooked(ConvNorm):
    def __init__(self) -> None:
        super().__init__()
        self.conv.register_forward_hook(lambda module, inputs, output: 2 * output)


UNSAFE = (
    OutputUsedTwice,
    OutputUsedAsView,
    CalledTwice,
    ChangedInPlace,
    BatchStatistics,
    StandardisedWeights,
    NormalisedWeights,
    Hooked,
)


@pytest.mark.parametrize("kind", UNSAFE)
def test_unsafe_pair_is_not_foldable(kind: type[ConvNorm]) -> None:
    assert find_pairs(kind().eval(), torch.rand(2, 3, 4, 4)) == []


def test_folded_pair_uses_the_current_tensors() -> None:
    network, x = ConvNorm().eval(), torch.rand(2, 3, 4, 4)
    pairs = find_pairs(network, x)
    assert pairs == [("conv", "norm")]
    for factor in (2.0, 3.0):
        nn.init.constant_(network.norm.weight, factor)
        network.norm.running_var.fill_(factor)
        expected = network(x)
        with temporary_modules(network, fold_batch_norms(network, pairs)):
            torch.testing.assert_close(network(x), expected)
