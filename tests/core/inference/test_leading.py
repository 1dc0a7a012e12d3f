"""Batch norm and ReLU in front of a convolution as one of each channel alone: the same function, where it is one."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from core.config.run import Training
from core.inference import fast_forward
from core.inference.fold_batch_norm import folds, in_place, pairs_in
from core.inference.fusing import Packed, can_fuse, concerned, fuses, fusions
from core.inference.leading import Leading, leading_in, leads
from core.inference.precision import Arithmetic
from core.inference.trace import flow
from core.models.backbone import build_backbone

EXACT, SHORT = torch.float32, torch.bfloat16
CPU = torch.device("cpu")
NETWORKS = {  # batch norms that lead to a convolution, and those that are left
    "densenet121": (61, 1),  # the last leads to the pooling
    "timm:densenet121": (61, 1),
    "resnet18": (0, 0),
}
pytestmark = pytest.mark.skipif(not can_fuse(EXACT), reason="this torch has no such operations")
short = pytest.mark.skipif(not can_fuse(SHORT), reason="this CPU has no such operations in bf16")


def rough(network: nn.Module) -> nn.Module:
    """Give batch norms numbers of their own, of either sign and none, and lay a network out as images are."""
    generator = torch.Generator().manual_seed(2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.uniform_(-0.5, 0.5, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.weight.data[::5] *= -1
            module.weight.data[3::17] = 0
    return network.eval().to(memory_format=torch.channels_last).requires_grad_(False)


def inputs(channels: int = 3) -> torch.Tensor:
    x = torch.randn(5, channels, 48, 48, generator=torch.Generator().manual_seed(1))
    return x.contiguous(memory_format=torch.channels_last)


def found_in(network: nn.Module) -> list[Leading]:
    seen = flow(network, inputs()[:2], concerned)
    return leading_in(network, pairs_in(network, seen), seen)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_say_the_same(name: str) -> None:
    network, x = rough(build_backbone(name, 5, weights="random")), inputs()
    seen = flow(network, x[:2], concerned)
    pairs = pairs_in(network, seen)
    found = leading_in(network, pairs, seen)
    fused = [*fusions(network, pairs, seen), *(each.fusion for each in found)]
    before, state = dict(network.named_modules()), {key: t.clone() for key, t in network.state_dict().items()}
    with torch.inference_mode():
        expected = network(x)
        with in_place(network, folds(network, pairs)), in_place(network, leads(network, found, EXACT)):
            scaled = network(x)
            with in_place(network, fuses(network, fused, EXACT, len(x))):
                made = network(x)
                kinds = [type(module) for module in network.modules()]
        assert torch.equal(network(x), expected)
    for one in (scaled, made):
        torch.testing.assert_close(one, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert expected.std(0).max() > 1e-3  # else any function would do
    left = sum(issubclass(kind, nn.BatchNorm2d) for kind in kinds)
    assert (len(found), left, kinds.count(Packed)) == (*NETWORKS[name], len(fused))
    assert dict(network.named_modules()) == before
    assert all(torch.equal(tensor, state[key]) for key, tensor in network.state_dict().items())


class Three(nn.Module):
    """A batch norm, a ReLU and a convolution, in whose forward pass a test puts what it likes."""

    groups, act = 1, nn.ReLU

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.relu = nn.BatchNorm2d(3), self.act()
        self.conv = nn.Conv2d(3, 3, 3, padding=1, groups=self.groups)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(self.relu(self.norm(x)))
        return y


class InGroups(Three):
    groups = 3


class Clipped(Three):
    """Of twice as much it is not twice as much."""

    act = nn.ReLU6


class NormUsed(Three):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x)
        return self.conv(self.relu(y)) + y


class ReluUsed(Three):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.norm(x))
        return self.conv(y) + y


class ChangedBetween(Three):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(self.relu(self.norm(x)) + 1)
        return y


class Twice(Three):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(super().forward(x))


class Watched(Three):
    watched = "norm"

    def __init__(self) -> None:
        super().__init__()
        self.get_submodule(self.watched).register_forward_hook(lambda module, inputs, output: 2 * output)


class ReluWatched(Watched):
    watched = "relu"


class ConvWatched(Watched):
    watched = "conv"


OTHERS = (InGroups, Clipped, NormUsed, ReluUsed, ChangedBetween, Twice, Watched, ReluWatched, ConvWatched)


@pytest.mark.parametrize("kind", OTHERS)
def test_what_does_not_lead_alone_is_left(kind: type[Three]) -> None:
    assert found_in(kind().eval()) == []


def test_what_leads_follows_the_tensors_and_rounds_no_scale() -> None:
    """In numbers of eight bits the scales are others, and the function is the same."""
    network, x = rough(Three()), inputs()
    found = found_in(network)
    assert found == [Leading("norm", "relu", "conv", (48, 48))]
    for factor in (0.7, 3.1):
        network.norm.weight.data.mul_(factor)
        expected = network(x)
        with in_place(network, leads(network, found, SHORT)):
            scale: Any = network.norm.scale
            assert torch.equal(scale.weight, scale.weight.to(SHORT).float())
            torch.testing.assert_close(network(x), expected)


@short
def test_fp32_is_as_it_was_and_nothing_changes_in_training() -> None:
    """What leads is another module in bf16 alone, and while a network is evaluated alone."""
    network, x = rough(build_backbone("densenet121", 5, weights="random")), inputs()
    modules, kinds = dict(network.named_modules()), []
    for precision in ("fp32", "bf16"):
        computing = Arithmetic(Training(precision=precision), CPU)
        with torch.inference_mode(), fast_forward.evaluating(network, computing, lambda: x[:2]):
            kinds.append(type(network.get_submodule("block2.features/transition2.norm")))
        assert dict(network.named_modules()) == modules
    assert kinds == [nn.BatchNorm2d, nn.Sequential]
    assert not any(isinstance(module, Packed) for module in network.train().modules())


@short
def test_bf16_is_as_near_to_fp32_as_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over several networks: of one alone either may be nearer, as its weights happen to round."""
    computing, errors = Arithmetic(Training(precision="bf16"), CPU), []
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(6, 3, 64, 64, generator=generator).contiguous(memory_format=torch.channels_last)
        network = computing.place(build_backbone("densenet121", 20, weights="random", seed=seed))
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # statistics are those of the batch below
                module.reset_running_stats()
                module.weight.data.uniform_(0.1, 1.5, generator=generator)
                module.bias.data.uniform_(-0.5, 0.5, generator=generator)
        made = []
        with torch.inference_mode():
            network.train()(x)
            exact = network.eval()(x)
            with computing.autocast():
                plain = network(x)
            for look in (leading_in, lambda *seen: []):
                monkeypatch.setattr(fast_forward, "leading_in", look)
                fast_forward._seen.clear()
                with fast_forward.evaluating(network, computing, lambda x=x: x[:2]):
                    made.append(network(x))
        errors.append([float((y - exact).square().mean()) for y in (*made, plain)])
    ours, without, unfolded = np.log(errors).mean(axis=0) / 2  # of deviations
    assert all(one != other for one, other, _ in errors)  # else nothing led
    assert ours <= without + np.log(1.05)
    assert ours <= unfolded
