"""Colour maps: the colours of matplotlib, with gradients."""

import matplotlib
import numpy as np
import pytest
import torch

from analysis.attribution.pipeline import AttributionPipeline, AttributionRequest
from core.config.options import list_problems
from core.config.run import Run
from core.datasets.dataset import Dataset
from core.inputs.input_kind import get_input_shape
from core.models.input_transform.colour import ColourMap, ScaleToUnit
from core.session import Session
from core.training.prepare import prepare
from core.training.trainer import train

MAPS = ("viridis", "magma", "jet")


@pytest.mark.parametrize("name", MAPS)
def test_colour_map_equals_matplotlib(name: str) -> None:
    points = np.arange(256) / 255
    found = ColourMap(name)(torch.tensor(points, dtype=torch.float32).view(1, 1, 1, -1))[0, :, 0].T.numpy()
    np.testing.assert_allclose(found, matplotlib.colormaps[name](np.arange(256))[:, :3], atol=1e-5)
    inside = np.random.default_rng(0).uniform(size=1000)
    found = ColourMap(name)(torch.tensor(inside, dtype=torch.float32).view(1, 1, 1, -1))[0, :, 0].T.numpy()
    np.testing.assert_allclose(found, matplotlib.colormaps[name](inside)[:, :3], atol=0.04)  # it has 256 colours


@pytest.mark.parametrize("name", MAPS)
def test_colour_map_gradients_equal_numerical_ones(name: str) -> None:
    x = (torch.rand(1, 1, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.9).requires_grad_()
    assert torch.autograd.gradcheck(ColourMap(name).double(), (x,), eps=1e-7)


def test_scale_to_unit_uses_range_of_each_image() -> None:
    x = 40 * torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)) - 50
    found = ScaleToUnit()(x)
    assert found.amin(dim=(1, 2, 3)).tolist() == [0, 0, 0]
    assert found.amax(dim=(1, 2, 3)).tolist() == [1, 1, 1]
    torch.testing.assert_close(ScaleToUnit()(x + 7), found)
    assert (ScaleToUnit()(torch.full((1, 1, 4, 4), -60.0)) == 0).all()  # silence has no range


def coloured(run: Run, **changes: object) -> Run:
    options: dict[str, object] = {"frontend__colour": "viridis", "frontend__channels": "replicate"}
    return run.replace(**options | changes)


@pytest.mark.parametrize("levels", ["fixed", "image"])
def test_network_with_colour_map_trains_on_one_channel_and_is_attributed(
    levels: str, run: Run, dataset: Dataset, session: Session
) -> None:
    one = coloured(run, frontend__levels=levels)
    assert get_input_shape(one) == (3, 32, 32)
    prepared = prepare(one, dataset, session)
    assert prepared.source.arrays[0].shape == (30, 1, 32, 32)
    train(one, dataset, session, label="run")
    made = AttributionPipeline({"run": one}, dataset, session, AttributionRequest(n_clips=4))
    assert made.inputs.shape == (4, 1, 32, 32)
    for each in made.attribute_all():
        # Of logits; scaling each image by its own range brings silence near to sound.
        assert np.abs(each.maps.convergence_delta).max() < 0.02
        assert levels == "image" or (each.maps.error <= 0.05).all()
        assert np.abs(each.maps.attributions).max() > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"frontend__colour": "viridis"},
            "--colour viridis needs a single spectrogram: add --channels replicate or --n-fft",
        ),
        (
            {"frontend__levels": "image", "frontend__normalise": "train"},
            "--value-range image does not apply with --normalise train; leave one out",
        ),
        ({"frontend__kind": "mfcc", "frontend__n_mels": 8}, "--n-mfcc 20: must be at most --n-mels 8"),
    ],
)
def test_incompatible_colour_options_are_a_problem(changes: dict[str, object], message: str) -> None:
    assert list_problems(Run().replace(**changes)) == [message]
