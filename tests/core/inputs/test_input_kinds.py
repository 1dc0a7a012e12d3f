"""Contract of all kinds of input: shape, axes, silence, and independence of the batch."""

import numpy as np
import pytest
import torch

from core.config.run import Clip, Frontend
from core.inputs import INPUT_KINDS
from core.inputs.base import InputKind
from core.inputs.input_kind import build_input_kind
from core.models.input_transform.normalise import Normalise

SR = 8000
CLIP = Clip(sr=SR, duration=0.5)


@pytest.fixture(params=INPUT_KINDS)
def kind(request: pytest.FixtureRequest) -> InputKind:
    return build_input_kind(CLIP, Frontend(kind=request.param, n_mels=24, n_frames=20))


def noise(clips: int) -> torch.Tensor:
    return 0.1 * torch.randn(clips, SR // 2, generator=torch.Generator().manual_seed(0))


def test_input_kind_output_has_announced_shape(kind: InputKind) -> None:
    x = kind(noise(3))
    assert tuple(x.shape) == (3, *kind.shape)
    assert x.dtype == torch.float32
    assert x.isfinite().all()
    assert x.std() > 0


def test_input_kind_axes_match_its_shape(kind: InputKind) -> None:
    channels = (len(kind.channels),) if kind.channels else ()
    assert (*channels, *(len(axis.values) for axis in kind.axes)) == kind.shape
    assert len({axis.name for axis in kind.axes}) == len(kind.axes)
    for axis in kind.axes:
        assert axis.label
        assert (np.diff(axis.values) > 0).all()
        first, last = axis.edges
        assert first < last
        if axis.ticks:
            assert all(axis.values[0] <= tick <= axis.values[-1] for tick in axis.ticks)
        else:
            assert np.ptp(np.diff(axis.values)) < 1e-6 * (last - first)


def test_input_kind_of_silence_is_constant(kind: InputKind) -> None:
    assert (kind(torch.zeros(2, SR // 2)) == kind.silence).all()
    if kind.value_range:  # silence is black for a pretrained network
        black, white = kind.value_range
        assert black == kind.silence < white


def test_input_kind_of_batch_equals_single_clips(kind: InputKind) -> None:
    y = noise(4)
    assert torch.equal(kind(y), torch.cat([kind(clip[None]) for clip in y]))


def test_normalise_fitted_has_mean_0_and_std_1(kind: InputKind) -> None:
    x = kind(noise(16)).numpy()
    found = Normalise.of(x, np.arange(12))(torch.from_numpy(x[:12])).numpy()
    rest = (0, *range(2, x.ndim))
    np.testing.assert_allclose(found.mean(axis=rest), 0, atol=1e-4)
    np.testing.assert_allclose(found.std(axis=rest), 1, rtol=1e-4)
