"""Batch norm as part of the convolution before it: the same function, only where it is one, and for a while."""

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
    replace_modules,
    temporary_modules,
)
from core.inference.trace import trace_network
from core.models import find_family, list_backbones
from core.models.backbone import build_backbone
from core.models.family import DEFAULT_SHAPE, VECTOR

SAMPLE = ("efficientnet_lite0", "resnet18", "densenet121", "mobilenet_v2", "timm:regnety_002", "soundnet8_1d")
SHAPES = {"soundnet8_1d": (1, 22_050)}


def foldable(network: nn.Module, x: torch.Tensor) -> list[Pair]:
    return find_foldable_pairs(network, trace_network(network, x, is_traceable))


def norms(network: nn.Module) -> int:
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d)
    return sum(isinstance(module, kinds) for module in network.modules())


def trained(name: str) -> tuple[nn.Module, torch.Tensor]:
    """Return a network whose batch norms are no identity, in evaluation mode, and three inputs."""
    network = build_backbone(name, 5, weights="random", input_shape=SHAPES.get(name, DEFAULT_SHAPE))
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(3, *SHAPES.get(name, DEFAULT_SHAPE), generator=generator)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = None  # the statistics of one batch are those of the inputs below
            for tensor, low, high in ((module.weight, 0.5, 1.5), (module.bias, -0.5, 0.5)):
                tensor.data.uniform_(low, high, generator=generator)
    with torch.no_grad():
        network.train()(x)
    return network.eval(), x


def check_logits(name: str) -> None:
    network, x = trained(name)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    modules = dict(network.named_modules())
    pairs = foldable(network, x[:2])
    with torch.inference_mode():
        expected = network(x)
        with temporary_modules(network, fold_batch_norms(network, pairs)):
            assert norms(network) == norms(nn.ModuleList(modules.values())) - len(pairs)
            found = network(x)
        again = network(x)
    with torch.inference_mode():
        exact = copy.deepcopy(network).double()(x.double())
    error, own = (float((y - exact).abs().max()) for y in (found, expected))
    assert error <= max(1e-4, 3 * own)  # a hundred layers that were never trained amplify any rounding, plain or folded
    assert torch.equal(again, expected)
    assert dict(network.named_modules()) == modules
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    assert expected.std(0).max() > 100 * error  # else any function would do


@pytest.mark.parametrize("name", SAMPLE)
def test_folded_networks_say_the_same(name: str) -> None:
    check_logits(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [n for n in list_backbones() if n not in SAMPLE and find_family(n).input_kind(n) != VECTOR]
)
def test_folded_networks_of_every_name_say_the_same(name: str) -> None:
    check_logits(name)


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("efficientnet_lite0", 0),
        ("resnet18", 0),
        ("resnet50", 0),
        ("mobilenet_v2", 0),
        ("densenet121", 62),  # 58 follow a 1x1 convolution and one the stem's, of 121
        ("soundnet8_1d", 0),
    ],
)
def test_so_many_norms_are_left(name: str, left: int) -> None:
    network, x = trained(name)
    with temporary_modules(network, fold_batch_norms(network, foldable(network, x[:2]))):
        assert norms(network) == left


class Two(nn.Module):
    """A convolution and a batch norm, in whose forward pass a test puts what it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))


class UsedElsewhere(Two):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return self.norm(y) + y  # the norm is an identity yet: only the use shows it


class UsedAsView(Two):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return torch.cat([self.norm(y), y[:, :1]], 1)


class Twice(Two):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(self.norm(self.conv(x))))


class ChangedBetween(Two):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x).relu_())


class OfTheBatch(Two):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3, track_running_stats=False)


class Standardised(Two):
    def __init__(self) -> None:
        super().__init__()
        self.conv = timm.layers.StdConv2d(3, 3, 1)


class WeightNormalised(Two):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.utils.parametrizations.weight_norm(self.conv)


class Hooked(Two):
    def __init__(self) -> None:
        super().__init__()
        self.conv.register_forward_hook(lambda module, inputs, output: 2 * output)


OTHERS = (UsedElsewhere, UsedAsView, Twice, ChangedBetween, OfTheBatch, Standardised, WeightNormalised, Hooked)


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_plain_pair_is_left(kind: type[Two]) -> None:
    assert foldable(kind().eval(), torch.rand(2, 3, 4, 4)) == []


def test_a_plain_pair_is_found_and_follows_the_tensors() -> None:
    network, x = Two().eval(), torch.rand(2, 3, 4, 4)
    pairs = foldable(network, x)
    assert pairs == [("conv", "norm")]
    for factor in (2.0, 3.0):
        nn.init.constant_(network.norm.weight, factor)
        network.norm.running_var.fill_(factor)
        expected = network(x)
        with temporary_modules(network, fold_batch_norms(network, pairs)):
            torch.testing.assert_close(network(x), expected)


def test_a_network_is_whole_again_after_an_error() -> None:
    network, x = Two().eval(), torch.rand(2, 3, 4, 4)
    norm = network.norm
    with pytest.raises(KeyError), temporary_modules(network, fold_batch_norms(network, foldable(network, x))):
        assert network.norm is not norm
        raise KeyError
    assert network.norm is norm


def test_what_is_put_for_good_no_longer_follows_the_tensors() -> None:
    network, x = Two().eval(), torch.rand(2, 3, 4, 4)
    expected, norm = network(x), network.norm
    kept = replace_modules(network, fold_batch_norms(network, foldable(network, x)))
    norm.weight.data.fill_(3.0)
    torch.testing.assert_close(network(x), expected)
    assert kept["norm"] is norm
    assert norms(network) == 0


def test_finding_pairs_draws_no_random_numbers() -> None:
    network = nn.Sequential(Two(), nn.Dropout(0.5)).train()
    network[0].eval()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    foldable(network, torch.rand(2, 3, 4, 4, generator=torch.Generator()))
    assert torch.equal(torch.rand(3), expected)


def test_gpus_that_the_network_is_not_on_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch warns of more than one whose random numbers it would keep, and there may be runs of others on them."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: pytest.fail("looked at a GPU"))
    assert foldable(Two().eval(), torch.rand(2, 3, 4, 4)) == [("conv", "norm")]
