"""Convolutions that are ordered beforehand and rectify as they write: the same function, and only where it is one."""

import copy

import pytest
import torch
from torch import nn

from core.inference import fusing
from core.inference.fold_batch_norm import folds, in_place, pairs_in
from core.inference.fusing import Packed, can_fuse, concerned, fuses, fusions
from core.inference.trace import flow
from core.models.backbone import build_backbone

EXACT = torch.float32
NETWORKS = {  # convolutions, and those that rectify
    "efficientnet_lite0": (49, 33),
    "resnet18": (20, 9),  # the last of each block is added to first
    "resnet50": (53, 33),
    "mobilenet_v2": (52, 35),
    "densenet121": (120, 59),  # those behind which no batch norm comes first
}
pytestmark = pytest.mark.skipif(not can_fuse(EXACT), reason="this torch has no such operations")


def fuse(network: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int, int]:
    """Return what the folded network gives out as it is and fused, and how many convolutions became what."""
    seen = flow(network, x[:2], concerned)
    pairs = pairs_in(network, seen)
    found = fusions(network, pairs, seen)
    before, state = dict(network.named_modules()), {key: t.clone() for key, t in network.state_dict().items()}
    with torch.inference_mode(), in_place(network, folds(network, pairs)):
        expected = network(x)
        with in_place(network, fuses(network, found, EXACT, len(x))):
            made = network(x)
            packed = [module for module in network.modules() if isinstance(module, Packed)]
        again = network(x)
    assert torch.equal(again, expected)
    assert dict(network.named_modules()) == before
    assert all(torch.equal(tensor, state[key]) for key, tensor in network.state_dict().items())
    return expected, made, len(packed), sum(module.attr != "none" for module in packed)


def inputs(channels: int = 3, size: int = 48) -> torch.Tensor:
    x = torch.randn(5, channels, size, size, generator=torch.Generator().manual_seed(1))
    return x.contiguous(memory_format=torch.channels_last)


def rough(network: nn.Module) -> nn.Module:
    """Give batch norms numbers of their own, and lay a network out as images are."""
    generator = torch.Generator().manual_seed(2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
    return network.eval().to(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", NETWORKS)
def test_fused_networks_say_the_same(name: str) -> None:
    expected, made, convs, rectifying = fuse(rough(build_backbone(name, 5, weights="random")), inputs())
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-4)
    assert (convs, rectifying) == NETWORKS[name]


@pytest.mark.parametrize("size", [47, 48, 49])
def test_images_of_another_size_than_the_first_are_padded_as_they_are(size: int) -> None:
    """The paddings of timm's convolutions hang on it."""
    network = rough(build_backbone("efficientnet_lite0", 5, weights="random"))
    seen = flow(network, inputs()[:2], concerned)
    pairs = pairs_in(network, seen)
    x = inputs(size=size)
    with torch.inference_mode(), in_place(network, folds(network, pairs)):
        expected = network(x)
        with in_place(network, fuses(network, fusions(network, pairs, seen), EXACT, 5)):
            torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-4)


class Two(nn.Module):
    """A convolution and an activation function, in whose forward pass a test puts what it likes."""

    inplace = True

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU6(inplace=self.inplace)
        self.other = nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.conv(x))


class GoesOn(Two):
    """What was changed in place is used twice, which says nothing of what the convolution gave out."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.act(self.conv(x))
        return self.other(y) + y


class RectifiedTwice(Two):
    """The second time after something was added, in place, to what was rectified as it was made."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.act(self.conv(x))
        y -= 1
        return self.act(y)


class SharedWithASum(Two):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.other(self.act(self.conv(x)))
        return self.act(y + x)


class UsedBefore(Two):
    inplace = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return self.act(y) + y


class ViewedBefore(Two):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        z = y[:, :1] + 1
        return self.act(y) + z


class ChangedBetween(Two):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.conv(x) * 2)


class Twice(Two):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.conv(self.act(self.conv(x))))


class Hooked(Two):
    def __init__(self) -> None:
        super().__init__()
        self.conv.register_forward_hook(lambda module, inputs, output: 2 * output)


class OtherActivation(Two):
    def __init__(self) -> None:
        super().__init__()
        self.act = nn.GELU()


@pytest.mark.parametrize(
    ("kind", "convs", "rectifying"),
    [
        (Two, 1, 1),
        (GoesOn, 2, 1),
        (RectifiedTwice, 1, 1),
        (SharedWithASum, 2, 1),
        (UsedBefore, 1, 0),
        (ViewedBefore, 1, 0),
        (ChangedBetween, 1, 0),
        (Twice, 0, 0),
        (Hooked, 0, 0),
        (OtherActivation, 1, 0),
    ],
)
def test_only_what_is_rectified_alone_is_rectified_at_once(kind: type[Two], convs: int, rectifying: int) -> None:
    torch.manual_seed(0)
    network = kind().eval().to(memory_format=torch.channels_last)
    with torch.no_grad():
        network.conv.weight.mul_(10)  # so that 6 is passed
    expected, made, *found = fuse(network, inputs())
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)
    assert found == [convs, rectifying]


def test_a_network_is_whole_again_after_an_error() -> None:
    network, x = Two().eval(), inputs()
    modules = dict(network.named_modules())
    found = fusions(network, [], flow(network, x, concerned))
    with pytest.raises(KeyError), in_place(network, fuses(network, found, EXACT, 5)):
        assert isinstance(network.conv, Packed)
        raise KeyError
    assert dict(network.named_modules()) == modules


@pytest.mark.skipif(not can_fuse(torch.bfloat16), reason="this CPU has no such operations in bf16")
def test_a_bias_is_not_rounded() -> None:
    torch.manual_seed(0)
    network, x = Two().eval().requires_grad_(False), inputs()
    network.conv.bias.add_(100)
    exact = copy.deepcopy(network).conv(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = network.conv(x)
    made = Packed(network.conv, 5, fusing.Fusion("conv", (48, 48)), None, torch.bfloat16)(x)
    assert made.dtype == rounded.dtype == torch.bfloat16
    errors = [float((y.float() - exact).abs().mean()) for y in (made, rounded)]
    assert errors[0] < 0.9 * errors[1]


def test_trying_draws_no_random_numbers() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    assert can_fuse.__wrapped__(EXACT)
    assert torch.equal(torch.rand(3), expected)


def test_networks_stay_as_they_are_without_the_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: object, **kwargs: object) -> None:
        raise AttributeError

    monkeypatch.setattr(Packed, "forward", missing)
    assert not can_fuse.__wrapped__(EXACT)
