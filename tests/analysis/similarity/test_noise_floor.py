"""Noise floor of clips with several positions, compared with an independent computation on permuted matrices."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from analysis.similarity import INDICES, Moments, Similarity, compare_networks, pwcca, similarity, svcca
from analysis.similarity.weight_change import _average_runs
from tests.analysis.similarity.test_similarity import DIRECT, make_rotation

CLIPS, POSITIONS = 24, 10


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def make_clips(rng, d=(5, 8)):
    """Return two sets (clips, positions, channels) with a common part per clip and a mean that all clips share."""
    latent = rng.standard_normal((CLIPS, POSITIONS, 4)) + 1.5 * rng.standard_normal((POSITIONS, 4))
    mixed = [latent @ rng.standard_normal((4, k)) + rng.standard_normal((CLIPS, POSITIONS, k)) for k in d]
    return [side * np.geomspace(1, 0.2, side.shape[2]) + rng.standard_normal(side.shape[2]) for side in mixed]


def as_rows(side):
    return side.reshape(-1, side.shape[2])


def similarity_of_stream(x, y, index, *, size=CLIPS, seed=0):
    moments = Moments(seed=seed)
    for start in range(0, len(x), size):
        moments.add(as_rows(x[start : start + size]), as_rows(y[start : start + size]), positions=POSITIONS)
    return similarity(moments, index)


@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize("chunk", [2**18, 200])
def test_noise_floor_equals_index_of_mis_paired_clips(rng, index, chunk, monkeypatch):
    """Batches of two clips have a single mis-pairing."""
    monkeypatch.setattr("analysis.similarity.streaming_moments.CHUNK_SIZE", chunk)
    x, y = make_clips(rng)
    result = similarity_of_stream(x, y, index, size=2)
    other = y.reshape(CLIPS // 2, 2, POSITIONS, -1)[:, ::-1].reshape(y.shape)
    assert result.value == pytest.approx(DIRECT[index](as_rows(x), as_rows(y)), abs=1e-8)
    assert result.noise_floor == pytest.approx(DIRECT[index](as_rows(x), as_rows(other)), abs=1e-8)
    assert result.noise_floor > 0.25  # with permuted positions: 0.113, 0.175, 0.006 and 0.110


@pytest.mark.parametrize("index", INDICES)
def test_noise_floor_pairs_by_seed_and_no_clip_with_itself(rng, index):
    x, y = make_clips(rng)
    possible = [DIRECT[index](as_rows(x), as_rows(np.roll(y, -shift, axis=0))) for shift in range(1, CLIPS)]
    floors = [similarity_of_stream(x, y, index, seed=seed).noise_floor for seed in range(12)]
    nearest = [int(np.abs(np.subtract(possible, floor)).argmin()) for floor in floors]
    assert floors == pytest.approx([possible[i] for i in nearest], abs=1e-8)
    assert len(set(nearest)) >= 6


@pytest.mark.parametrize("index", INDICES)
def test_noise_floor_of_batches_of_one_clip_is_nan(rng, index):
    x, y = make_clips(rng)
    result = similarity_of_stream(x, y, index, size=1)
    assert np.isnan(result.noise_floor)
    assert result.value == pytest.approx(DIRECT[index](as_rows(x), as_rows(y)), abs=1e-8)


@pytest.mark.parametrize("index", INDICES)
def test_noise_floor_is_invariant_to_position_order_rotation_and_shift(rng, index):
    x, y = make_clips(rng)
    result = similarity_of_stream(x, y, index, size=6)
    assert similarity_of_stream(x, x, index, size=6).value == pytest.approx(1, abs=1e-10)
    order = rng.permutation(POSITIONS)
    for other in (
        similarity_of_stream(x[:, order], y[:, order], index, size=6),
        similarity_of_stream(x, 3 * y @ make_rotation(rng, y.shape[2]) + 100, index, size=6),
    ):
        assert (other.value, other.noise_floor) == pytest.approx((result.value, result.noise_floor), abs=1e-7)


@pytest.mark.parametrize("shape", [(33, 3, 8, 6), (33, 3)])
@pytest.mark.parametrize("index", INDICES)
def test_compare_networks_with_spatial_modes_has_their_noise_floors(index, shape):
    """The common part of all clips is in the floor with flatten, but not with mean."""
    torch.manual_seed(0)
    inputs = torch.randn(shape, dtype=torch.float64) + 3 * torch.randn(shape[1:], dtype=torch.float64)
    network = nn.Sequential(nn.Identity())
    batches = inputs.split(11)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flattened, averaged = (
            compare_networks(network, network, batches, ["0"], index=index, spatial=spatial)["0"]
            for spatial in ("flatten", "mean")
        )
    expected = Moments()
    for batch in batches:
        expected.add(*[batch.flatten(2).mean(2) if batch.ndim > 2 else batch] * 2)
    assert averaged.noise_floor == pytest.approx(similarity(expected, index).noise_floor, abs=1e-12)
    if shape[-1] > 1 and len(shape) == 4:
        assert flattened.noise_floor > 0.7  # with permuted positions: at most 0.034
        assert averaged.noise_floor < 0.4
    else:
        assert flattened.noise_floor == pytest.approx(averaged.noise_floor, abs=1e-12)


def test_average_runs_has_deviation_over_folds_or_seeds():
    values = {(1, 0): 0.2, (1, 1): 0.4, (2, 0): 0.9}
    by_run = {place: Similarity(value, (4, 6), (10, 12), 100, 0.1) for place, value in values.items()}
    result = _average_runs(by_run)
    assert result["similarity"] == pytest.approx((0.3 + 0.9) / 2)
    assert result["similarity_std"] == pytest.approx(np.std([0.3, 0.9], ddof=1))
    assert (result["noise_floor"], result["directions"], result["n_datapoints"]) == (pytest.approx(0.1), "4, 6", 100)
    assert result["above_floor"] == pytest.approx(np.mean([(0.3 - 0.1) / 0.9, (0.9 - 0.1) / 0.9]))
    assert (result["n_neurons"], result["few_datapoints"]) == (12, False)
    one = _average_runs({place: by_run[place] for place in ((1, 0), (1, 1))})
    assert one["similarity_std"] == pytest.approx(np.std([0.2, 0.4], ddof=1))
    assert np.isnan(_average_runs({(1, 0): by_run[1, 0]})["similarity_std"])


def test_average_runs_marks_layer_if_one_run_has_few_datapoints():
    runs = {(fold, 0): Similarity(0.9, (9, 9), (20, 20), clips, 0.88) for fold, clips in ((1, 100), (2, 99))}
    assert _average_runs(runs)["few_datapoints"]
    assert not _average_runs({(1, 0): runs[1, 0]})["few_datapoints"]


@pytest.mark.filterwarnings("ignore:.*datapoints per neuron")
def test_similarity_above_floor_of_thin_layer_is_comparable(rng):
    """Of unrelated layers, SVCCA is .62 with 2 datapoints per neuron and .11 with 50; above the floor both are 0."""
    thin, wide = (svcca(*rng.standard_normal((2, 40 * factor, 40))) for factor in (2, 50))
    assert (thin.value, wide.value) == pytest.approx((0.62, 0.11), abs=0.03)
    assert (thin.has_few_datapoints, wide.has_few_datapoints) == (True, False)
    assert (thin.above_floor, wide.above_floor) == pytest.approx((0, 0), abs=0.08)
    same = rng.standard_normal((80, 40))
    assert svcca(same, same).above_floor == pytest.approx(1)
    assert np.isnan(pwcca(*rng.standard_normal((2, 30, 40))).above_floor)
