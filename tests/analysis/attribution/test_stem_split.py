"""The first convolution apart, where it is affine and all that sees the image; maps are captum's either way."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from torch import nn

from analysis.attribution.attribution_model import Explained
from analysis.attribution.integrated_gradients import mean_gradients
from core.config.run import Frontend
from core.inputs.log_mel import LogMel
from core.inputs.spectrogram import FLOOR_DB
from core.models.input_transform.normalise import Normalise

SHAPE = (3, 12, 12)


class Other(nn.Module):
    """A network that does with the image what a function of it and of two convolutions says."""

    def __init__(self, how: Callable[[nn.Module, nn.Module, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.how = how
        self.head = nn.Sequential(nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.how(self.first, self.second, x / 10))
        return logits


APART: dict[str, nn.Module] = {
    "plain": Other(lambda first, second, x: first(x)),
    "one after the other": Other(lambda first, second, x: second(first(x).relu())),
    "turned first": Other(lambda first, second, x: first(1 - x.flip(-1))),
    "normalised": nn.Sequential(
        Normalise.fixed([0.5] * 3, [0.5] * 3, LogMel.decibel_range(Frontend())), Other(lambda f, s, x: f(x))
    ),
}
WHOLE: dict[str, nn.Module] = {
    "clamped far out": Other(lambda first, second, x: first(x.clamp(-100, 100))),
    "coloured": Other(lambda first, second, x: first(x.sin())),
    "levels of its own": Other(lambda first, second, x: first(x - x.amax((-1, -2), keepdim=True))),
    "also passed by": Other(lambda first, second, x: first(x) + x),
    "two side by side": Other(lambda first, second, x: first(x) + second(x)),
    "the same twice": Other(lambda first, second, x: first(first(x).relu())),
    "no convolution": nn.Sequential(nn.Flatten(), nn.Tanh(), nn.Linear(432, 4)),
}


@pytest.mark.parametrize("name", [*APART, *WHOLE])
def test_maps_are_captums_whatever_comes_first(name: str) -> None:
    torch.manual_seed(0)
    network = {**APART, **WHOLE}[name].double().eval()
    explained = Explained(network, SHAPE)
    assert (explained.entry.name is None) == (name in WHOLE)
    x = np.random.default_rng(0).uniform(FLOOR_DB, 20, (3, *SHAPE))
    start, target = np.full_like(x, FLOOR_DB), np.array([0, 3, 1])
    found = mean_gradients(explained, x, start, target, steps=20)
    captum = IntegratedGradients(network, multiply_by_inputs=False)
    given = (torch.from_numpy(each) for each in (x, start))
    expected = captum.attribute(*given, target=torch.from_numpy(target), n_steps=20)
    np.testing.assert_allclose(found, expected.detach(), rtol=1e-6, atol=1e-9)  # captum's weights are of float32


def test_the_first_convolution_runs_at_the_ends_alone() -> None:
    explained = Explained(APART["plain"].float(), SHAPE)
    ran: list[int] = []
    assert explained.entry.name is not None
    explained.network.get_submodule(explained.entry.name).register_forward_hook(lambda _, x, y: ran.append(len(y)))
    x = np.random.default_rng(0).uniform(FLOOR_DB, 20, (2, *SHAPE)).astype(np.float32)
    mean_gradients(explained, x, np.full_like(x, FLOOR_DB), np.array([0, 1]), steps=32)
    assert ran == [2, 2]


@pytest.mark.parametrize("fails", [False, True])
def test_the_network_is_whole_afterwards(fails: bool) -> None:
    explained = Explained(APART["plain"].float(), SHAPE)
    before = dict(explained.network.named_modules())
    images = torch.zeros(2, *SHAPE)
    features = explained.entry.through(images)
    if fails:
        with pytest.raises(RuntimeError):
            explained.entry.behind(features[..., :0])
    else:
        torch.testing.assert_close(explained.entry.behind(features), explained(images))
    assert dict(explained.network.named_modules()) == before
