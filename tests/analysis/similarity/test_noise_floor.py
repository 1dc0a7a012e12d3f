"""The noise floor of maps: the index of whole clips mis-paired, by an independent recipe on the permuted matrices."""

import re
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from analysis.similarity import INDICES, Moments, Similarity, compare_networks, similarity
from analysis.similarity.weight_change import BATCH_SIZE, _average_runs, _iterate_batches
from core.errors import UserError
from core.inputs.store.stored_inputs import DatasetInputs
from tests.analysis.similarity.test_similarity import DIRECT, FUNCTIONS, rotation

CLIPS, POSITIONS = 24, 10


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def maps(rng, d=(5, 8)):
    """Two sets of maps (clips, positions, channels) with some of a clip in common, and a mean map that all share."""
    latent = rng.standard_normal((CLIPS, POSITIONS, 4)) + 1.5 * rng.standard_normal((POSITIONS, 4))
    mixed = [latent @ rng.standard_normal((4, k)) + rng.standard_normal((CLIPS, POSITIONS, k)) for k in d]
    return [side * np.geomspace(1, 0.2, side.shape[2]) + rng.standard_normal(side.shape[2]) for side in mixed]


def rows(side):
    return side.reshape(-1, side.shape[2])


def streamed(x, y, index, *, size=CLIPS, seed=0):
    moments = Moments(seed=seed)
    for start in range(0, len(x), size):
        moments.add(rows(x[start : start + size]), rows(y[start : start + size]), positions=POSITIONS)
    return similarity(moments, index)


@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize("chunk", [2**18, 200])
def test_floor_is_the_index_of_whole_clips_mis_paired(rng, index, chunk, monkeypatch):
    """In batches of two clips there is one way to mis-pair."""
    monkeypatch.setattr("analysis.similarity.streaming_moments.CHUNK_SIZE", chunk)
    x, y = maps(rng)
    found = streamed(x, y, index, size=2)
    other = y.reshape(CLIPS // 2, 2, POSITIONS, -1)[:, ::-1].reshape(y.shape)
    assert found.value == pytest.approx(DIRECT[index](rows(x), rows(y)), abs=1e-8)
    assert found.noise_floor == pytest.approx(DIRECT[index](rows(x), rows(other)), abs=1e-8)
    assert found.noise_floor > 0.25  # positions one by one: 0.113, 0.175, 0.006 and 0.110


@pytest.mark.parametrize("index", INDICES)
def test_no_clip_is_paired_with_itself_and_the_seed_draws_the_pairs(rng, index):
    x, y = maps(rng)
    possible = [DIRECT[index](rows(x), rows(np.roll(y, -shift, axis=0))) for shift in range(1, CLIPS)]
    floors = [streamed(x, y, index, seed=seed).noise_floor for seed in range(12)]
    nearest = [int(np.abs(np.subtract(possible, floor)).argmin()) for floor in floors]
    assert floors == pytest.approx([possible[i] for i in nearest], abs=1e-8)
    assert len(set(nearest)) >= 6


@pytest.mark.parametrize("index", INDICES)
def test_other_batches_draw_other_pairs_of_the_same_size(rng, index):
    x, y = maps(rng)
    whole = [streamed(x, y, index, seed=seed).noise_floor for seed in range(20)]
    for size in (4, 8, 23):  # of the last, a clip is left alone
        floors = [streamed(x, y, index, size=size, seed=seed).noise_floor for seed in range(20)]
        assert np.mean(floors) == pytest.approx(np.mean(whole), abs=0.1 * np.mean(whole)), size


@pytest.mark.parametrize("index", INDICES)
def test_clips_alone_in_every_batch_have_no_floor(rng, index):
    x, y = maps(rng)
    found = streamed(x, y, index, size=1)
    assert np.isnan(found.noise_floor)
    assert found.value == pytest.approx(DIRECT[index](rows(x), rows(y)), abs=1e-8)


@pytest.mark.parametrize("index", INDICES)
def test_order_of_positions_rotation_and_shift_change_no_floor(rng, index):
    x, y = maps(rng)
    found = streamed(x, y, index, size=6)
    assert streamed(x, x, index, size=6).value == pytest.approx(1, abs=1e-10)
    order = rng.permutation(POSITIONS)
    for other in (
        streamed(x[:, order], y[:, order], index, size=6),
        streamed(x, 3 * y @ rotation(rng, y.shape[2]) + 100, index, size=6),
    ):
        assert (other.value, other.noise_floor) == pytest.approx((found.value, found.noise_floor), abs=1e-7)


@pytest.mark.parametrize("index", INDICES)
def test_maps_without_anything_in_common_have_the_floor_of_chance(rng, index):
    x, y = rng.standard_normal((2, 60, POSITIONS, 6))
    floors = [streamed(x, y, index, size=20, seed=seed).noise_floor for seed in range(20)]
    chance = [FUNCTIONS[index](rows(x), rows(y), seed=seed).noise_floor for seed in range(20)]
    error = np.sqrt(np.var(floors) + np.var(chance))
    assert np.mean(floors) == pytest.approx(np.mean(chance), abs=error)


@pytest.mark.parametrize("shape", [(33, 3, 8, 6), (33, 3, 1, 1), (33, 3)])
@pytest.mark.parametrize("index", INDICES)
def test_networks_fold_and_pool_positions_by_the_clip(index, shape):
    """What all clips share is in the floor of maps; pooled, each clip is a datapoint and it is not."""
    torch.manual_seed(0)
    inputs = torch.randn(shape, dtype=torch.float64) + 3 * torch.randn(shape[1:], dtype=torch.float64)
    network = nn.Sequential(nn.Identity())
    batches = inputs.split(11)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folded, pooled = (
            compare_networks(network, network, batches, ["0"], index=index, spatial=spatial)["0"]
            for spatial in ("flatten", "mean")
        )
    expected = Moments()
    for batch in batches:
        expected.add(*[batch.flatten(2).mean(2) if batch.ndim > 2 else batch] * 2)
    assert pooled.noise_floor == pytest.approx(similarity(expected, index).noise_floor, abs=1e-12)
    if shape[-1] > 1 and len(shape) == 4:
        assert folded.noise_floor > 0.7  # positions one by one: at most 0.034
        assert pooled.noise_floor < 0.4
    else:
        assert folded.noise_floor == pytest.approx(pooled.noise_floor, abs=1e-12)


@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize("strides", [(4, 3, 2), (2,)])
def test_some_positions_stand_for_all_in_large_batches(rng, index, strides, monkeypatch):
    x, y = (np.repeat(side, 12, axis=1) for side in maps(rng))  # 120 positions, neighbours alike
    x, y = (side + 0.5 * rng.standard_normal(side.shape) for side in (x, y))
    other = y.reshape(CLIPS // 2, 2, 120, -1)[:, ::-1].reshape(y.shape)
    monkeypatch.setattr("analysis.similarity.streaming_moments.CHUNK_SIZE", 1000)
    monkeypatch.setattr("analysis.similarity.streaming_moments.MIN_PAIRS_PER_NEURON", 4)
    monkeypatch.setattr("analysis.similarity.streaming_moments.POSITION_STRIDES", strides)
    moments = Moments()
    for start in range(0, CLIPS, 2):
        moments.add(rows(x[start : start + 2]), rows(y[start : start + 2]), positions=120)
    found = similarity(moments, index)
    expected = DIRECT[index](rows(x), rows(other))
    assert found.noise_floor == pytest.approx(expected, rel=0.1)
    assert found.noise_floor != pytest.approx(expected, abs=1e-6)  # thinned indeed


def test_part_of_a_clip_is_refused(rng):
    message = "45 datapoints are not a multiple of 10 positions per clip"
    with pytest.raises(UserError, match="^" + re.escape(message) + "$"):
        Moments().add(rng.standard_normal((45, 3)), rng.standard_normal((45, 3)), positions=10)


def test_held_out_clips_are_compared_in_random_order_and_never_alone():
    clips = 2 * BATCH_SIZE + 1
    array = np.arange(3 * clips, dtype=np.float32)[:, None]
    images = DatasetInputs(array=array, kept=np.arange(3 * clips), bad=(), key="")
    drawn = [batch[:, 0].numpy() for batch in _iterate_batches(images, np.arange(clips) + clips, torch.device("cpu"))]
    assert sorted(np.concatenate(drawn)) == list(range(clips, 2 * clips))
    assert {len(batch) for batch in drawn} == {21, 22}
    assert all(np.ptp(batch) > clips / 2 for batch in drawn)  # of every part of a table that is sorted by class
    again = [batch[:, 0].numpy() for batch in _iterate_batches(images, np.arange(clips) + clips, torch.device("cpu"))]
    assert all(np.array_equal(*pair) for pair in zip(drawn, again, strict=True))


def test_a_layers_deviation_is_over_folds_and_of_a_single_one_over_seeds():
    values = {(1, 0): 0.2, (1, 1): 0.4, (2, 0): 0.9}
    of_runs = {place: Similarity(value, (4, 6), 100, 0.1) for place, value in values.items()}
    found = _average_runs(of_runs)
    assert found["similarity"] == pytest.approx((0.3 + 0.9) / 2)
    assert found["similarity_std"] == pytest.approx(np.std([0.3, 0.9], ddof=1))
    assert (found["noise_floor"], found["directions"], found["n_datapoints"]) == (pytest.approx(0.1), "4, 6", 100)
    one = _average_runs({place: of_runs[place] for place in ((1, 0), (1, 1))})
    assert one["similarity_std"] == pytest.approx(np.std([0.2, 0.4], ddof=1))
    assert np.isnan(_average_runs({(1, 0): of_runs[1, 0]})["similarity_std"])
