"""Faithfulness tests on maps of networks with known attributions."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from statsmodels.stats.multitest import multipletests
from torch import nn

from analysis.attribution import AttributionMaps, AttributionModel, attribute, baselines, faithfulness
from core.inputs.spectrogram import FLOOR_DB
from core.models.backbone import build_backbone

SHAPE = (3, 10, 20)


class RegionMean(nn.Module):
    """A network whose logit is the mean of one region of the image, in units of 10 dB above silence."""

    def __init__(self, rows: slice, columns: slice) -> None:
        super().__init__()
        weight = torch.zeros(SHAPE)
        weight[:, rows, columns] = 1.0
        self.register_buffer("weight", weight / weight.sum() / 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logit = ((x - FLOOR_DB) * self.get_buffer("weight")).sum(dim=(1, 2, 3))
        return torch.stack([logit, torch.zeros_like(logit)], dim=1)


@pytest.fixture
def maps() -> AttributionMaps:
    """Return maps of two clips that are loud in two corners; the network uses the quieter corner."""
    x = np.full((2, *SHAPE), FLOOR_DB, np.float32)
    x[:, :, :4, :5] = -10.0
    x[:, :, 6:, 15:] = 30.0
    x[1] -= 1.0
    x = np.maximum(x, FLOOR_DB)
    return attribute(make_model(), x, baselines.make_baseline("silence", x), np.array([0, 0]))


def make_model() -> AttributionModel:
    return AttributionModel(RegionMean(slice(0, 4), slice(0, 5)), SHAPE)


def test_curves_of_faithful_map_are_better_than_controls(maps: AttributionMaps) -> None:
    curves = faithfulness.deletion_insertion_curves(make_model(), maps)
    assert list(curves.columns) == ["clip", "curve", "order", "fraction", "softmax"]
    assert len(curves) == 2 * 2 * 3 * len(faithfulness.FRACTIONS)
    ends = curves[curves["clip"] == 0].set_index(["curve", "order", "fraction"])["softmax"]
    whole = 1 / (1 + np.exp(-5))  # 50 dB above silence
    for order in ("attribution", "energy", "random"):
        assert ends["deletion", order, 0.0] == pytest.approx(whole, abs=1e-5)
        assert ends["deletion", order, 1.0] == pytest.approx(0.5, abs=1e-5)
        assert ends["insertion", order, 0.0] == pytest.approx(0.5, abs=1e-5)
        assert ends["insertion", order, 1.0] == pytest.approx(whole, abs=1e-5)
    assert ends["deletion", "attribution", 0.1] == pytest.approx(0.5, abs=1e-5)
    assert ends["deletion", "energy", 0.1] == pytest.approx(whole, abs=1e-5)
    area = faithfulness.curve_auc(curves).set_index(["clip", "curve", "order"])["area"]
    for clip in (0, 1):
        assert area[clip, "deletion", "attribution"] < area[clip, "deletion", "energy"]
        assert area[clip, "deletion", "attribution"] < area[clip, "deletion", "random"]
        assert area[clip, "insertion", "attribution"] > area[clip, "insertion", "random"]


def test_loud_region_share_of_map_on_loud_corner(maps: AttributionMaps) -> None:
    frame = faithfulness.loud_region_share(maps).set_index(["clip", "map", "region"])
    assert frame.loc[(0, "attribution", "loud"), "share"] == pytest.approx(1.0)
    assert frame.loc[(0, "attribution", "loud"), "area"] == pytest.approx(40 / 200)
    assert frame.loc[(0, "gradient", "loud"), "share"] == pytest.approx(1.0)
    rim = 6 + 1  # pixels at the two inner sides of the corner
    assert frame.loc[(0, "attribution", "boundary"), "share"] == pytest.approx((rim + 1) / 20)


def test_loud_region_share_of_uniform_map_is_the_area() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(FLOOR_DB, 0, (1, *SHAPE)).astype(np.float32)
    even = np.ones_like(x)
    maps = AttributionMaps("m", "b", x, x[:, None], even, None, *[np.zeros((1, 2))] * 2, *[np.zeros(1)] * 4)
    frame = faithfulness.loud_region_share(maps)
    np.testing.assert_allclose(frame["share"], frame["area"])
    assert frame["map"].unique().tolist() == ["attribution"]


def test_loud_regions_of_square() -> None:
    image = np.full((3, 20, 20), FLOOR_DB)
    image[:, 5:13, 5:13] = 0.0
    regions = faithfulness.loud_regions(image)
    assert regions["loud"].sum() == 64
    assert regions["boundary"].sum() == 10 * 10 - 6 * 6
    silent = faithfulness.loud_regions(np.full((3, 20, 20), FLOOR_DB))
    assert not silent["loud"].any()
    assert not silent["boundary"].any()


def test_ssim_is_1_for_equal_images_and_decreases_with_noise() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(30, 40))
    assert faithfulness.ssim(x, x) == pytest.approx(1.0)
    values = [faithfulness.ssim(x, x + amount * rng.normal(size=x.shape)) for amount in (0.01, 0.1, 1.0)]
    assert 1 > values[0] > values[1] > values[2] > -1
    assert faithfulness.ssim(x, np.flip(x)) == pytest.approx(faithfulness.ssim(np.flip(x), x))
    flat = faithfulness.ssim(np.full((9, 9), 0.2), np.full((9, 9), 0.8))
    assert flat == pytest.approx((2 * 0.2 * 0.8 + 1e-4) / (0.2**2 + 0.8**2 + 1e-4))


def test_map_similarity_of_transformed_maps() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 30))
    assert faithfulness.map_similarity(x, x**3)[0] == pytest.approx(1.0)
    assert faithfulness.map_similarity(x, -x) == (pytest.approx(-1.0), pytest.approx(1.0))
    assert abs(faithfulness.map_similarity(x, rng.normal(size=x.shape))[0]) < 0.15
    assert faithfulness.map_similarity(x, np.zeros_like(x))[0] == 0


def test_cascading_randomisation_replaces_stages_from_the_head() -> None:
    backbone = build_backbone("resnet18", 3, weights="random", seed=0)
    random = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter += 1.0
    network = nn.Sequential()
    network.add_module("backbone", backbone)
    trained = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    stages = []
    for stage, randomised in faithfulness.cascading_randomisation(network, random):
        stages.append(stage)
        for key, tensor in randomised.get_submodule("backbone").state_dict().items():
            expected = random if key.split(".")[0] in stages else trained
            assert torch.equal(tensor, expected[key]), (stage, key)
    assert stages == ["head", "block4", "block3", "block2", "block1", "stem"]
    assert all(torch.equal(trained[key], tensor) for key, tensor in backbone.state_dict().items())


def make_frames(
    deletion: float, spread: float = 0.01, clips: int = 8
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, list[str]]:
    rng = np.random.default_rng(0)
    rows = []
    for clip in range(clips):
        for curve, mine in (("deletion", deletion), ("insertion", 0.6)):
            for order, value in (("attribution", mine), ("random", 0.5), ("energy", 0.5)):
                rows.append((clip, curve, order, value + spread * rng.normal()))
    areas = pd.DataFrame(rows, columns=["clip", "curve", "order", "area"])
    shares = pd.DataFrame({"clip": range(clips), "map": "attribution", "region": "loud", "share": 0.5, "area": 0.2})
    shares["share"] += 0.001 * (-1.0) ** shares["clip"]
    similarity = pd.DataFrame({"clip": range(clips), "map": "attribution", "rank_correlation": 0.1, "ssim": 0.2})
    return areas, shares, similarity.assign(stage="head"), [f"recording {clip}" for clip in range(clips)]


def test_faithfulness_table_has_verdicts() -> None:
    frame = faithfulness.make_faithfulness_table(*make_frames(0.3)).set_index(["test", "control"])
    row = frame.loc[("deletion", "random order")]
    assert row["verdict"] == "for"
    assert row["difference"] == pytest.approx(-0.2, abs=0.02)
    assert row["difference_low"] <= row["difference"] <= row["difference_high"]
    assert row["low"] <= row["value"] <= row["high"]
    assert row["clips"] == 8
    assert frame.loc[("insertion", "energy order"), "verdict"] == "for"
    assert frame.loc[("loud", "share of the image"), "difference"] == pytest.approx(0.3)
    assert frame.loc[("rank_correlation head", ""), "value"] == pytest.approx(0.1)
    assert np.isnan(frame.loc[("ssim head", ""), "p"])
    assert faithfulness.make_faithfulness_table(*make_frames(0.7)).loc[0, "verdict"] == "against"
    assert faithfulness.make_faithfulness_table(*make_frames(0.5, spread=0.1)).loc[0, "verdict"] == "unclear"


def test_faithfulness_table_corrects_p_by_holm() -> None:
    frame = faithfulness.make_faithfulness_table(*make_frames(0.3))
    tested = frame[frame["p"].notna()]
    assert len(tested) == 5
    areas, shares, *_ = make_frames(0.3)
    raw = [stats.ttest_1samp(shares["share"], 0.2).pvalue]
    for _, part in areas.groupby("curve"):
        by_order = part.pivot(index="clip", columns="order", values="area")
        raw += [stats.ttest_rel(by_order["attribution"], by_order[name]).pvalue for name in ("random", "energy")]
    assert sorted(tested["p"]) == pytest.approx(sorted(multipletests(raw, method="holm")[1]))


def test_faithfulness_table_of_one_clip_is_unclear() -> None:
    frame = faithfulness.make_faithfulness_table(*make_frames(0.3, clips=1))
    assert frame["low"].isna().all()
    assert set(frame["verdict"]) == {"unclear", ""}


def test_faithfulness_table_of_repeated_clips_is_that_of_their_recordings() -> None:
    """Three equal clips of each recording add no evidence: over clips, p would be smaller."""
    *frames, recordings = make_frames(0.3)
    repeated = [
        pd.concat([frame.assign(clip=3 * frame["clip"] + k) for k in range(3)], ignore_index=True) for frame in frames
    ]
    expected = faithfulness.make_faithfulness_table(*frames, recordings)
    result = faithfulness.make_faithfulness_table(*repeated, [name for name in recordings for _ in range(3)])
    assert (result["clips"] == 24).all()
    assert (result["recordings"] == 8).all()
    pd.testing.assert_frame_equal(result.drop(columns="clips"), expected.drop(columns="clips"))
    ungrouped = faithfulness.make_faithfulness_table(*repeated, list(map(str, range(24))))
    assert ungrouped["p"].min() < result["p"].min() / 1000


def test_average_curves_has_intervals_over_recordings() -> None:
    curves = pd.DataFrame({"clip": range(4), "curve": "deletion", "order": "random", "fraction": 0.5})
    curves["softmax"] = [0.3, 0.4, 0.36, 0.38]
    (row,) = faithfulness.average_curves(curves, ["a", "a", "b", "b"]).to_dict("records")
    half = stats.t.ppf(0.975, 1) * stats.sem([0.35, 0.37])
    assert (row["softmax"], row["low"], row["high"]) == pytest.approx((0.36, 0.36 - half, 0.36 + half))


def test_intervals_of_areas_shares_and_correlations_end_at_their_limits() -> None:
    areas, shares, similarity, _ = make_frames(0.3, spread=0.4, clips=4)
    similarity["rank_correlation"] = [-0.9, 0.9, -0.9, 0.9]
    frame = faithfulness.make_faithfulness_table(areas, shares, similarity, list("aabb")).set_index("test")
    assert (frame.loc[["deletion", "insertion"], ["low", "high"]] == [0, 1]).all(axis=None)
    separate = faithfulness.make_faithfulness_table(areas, shares, similarity, list("abcd")).set_index("test")
    assert separate.loc["rank_correlation head", ["low", "high"]].tolist() == [-1, 1]
    curves = pd.DataFrame({"clip": range(2), "curve": "deletion", "order": "random", "fraction": 0.5})
    (row,) = faithfulness.average_curves(curves.assign(softmax=[0.1, 0.9]), ["a", "b"]).to_dict("records")
    assert (row["low"], row["high"]) == (0, 1)
