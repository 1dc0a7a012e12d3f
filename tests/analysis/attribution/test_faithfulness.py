"""The tests of maps, on maps whose truth is known."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from analysis.attribution import AttributionMaps, AttributionModel, attribute, baselines, faithfulness
from core.inputs.spectrogram import FLOOR_DB
from core.models.backbone import build_backbone

SHAPE = (3, 10, 20)


class Watches(nn.Module):
    """Answers by the mean of one region of the image, in units of 10 dB above silence."""

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
    """Two clips that are loud in two corners, of a network that watches the quieter of them."""
    x = np.full((2, *SHAPE), FLOOR_DB, np.float32)
    x[:, :, :4, :5] = -10.0
    x[:, :, 6:, 15:] = 30.0
    x[1] -= 1.0
    x = np.maximum(x, FLOOR_DB)
    return attribute(model(), x, baselines.make_baseline("silence", x), np.array([0, 0]))


def model() -> AttributionModel:
    return AttributionModel(Watches(slice(0, 4), slice(0, 5)), SHAPE)


def test_curves_of_a_true_map_beat_both_controls(maps: AttributionMaps) -> None:
    curves = faithfulness.deletion_insertion_curves(model(), maps)
    assert list(curves.columns) == ["clip", "curve", "order", "fraction", "probability"]
    assert len(curves) == 2 * 2 * 3 * len(faithfulness.FRACTIONS)
    ends = curves[curves["clip"] == 0].set_index(["curve", "order", "fraction"])["probability"]
    whole = 1 / (1 + np.exp(-5))  # 50 dB above silence
    for order in ("attribution", "energy", "random"):
        assert ends["deletion", order, 0.0] == pytest.approx(whole, abs=1e-5)
        assert ends["deletion", order, 1.0] == pytest.approx(0.5, abs=1e-5)
        assert ends["insertion", order, 0.0] == pytest.approx(0.5, abs=1e-5)
        assert ends["insertion", order, 1.0] == pytest.approx(whole, abs=1e-5)
    assert ends["deletion", "attribution", 0.1] == pytest.approx(0.5, abs=1e-5), "a tenth of the pixels is all of it"
    assert ends["deletion", "energy", 0.1] == pytest.approx(whole, abs=1e-5), "the loudest tenth is not watched"
    area = faithfulness.curve_auc(curves).set_index(["clip", "curve", "order"])["area"]
    for clip in (0, 1):
        assert area[clip, "deletion", "attribution"] < area[clip, "deletion", "energy"]
        assert area[clip, "deletion", "attribution"] < area[clip, "deletion", "random"]
        assert area[clip, "insertion", "attribution"] > area[clip, "insertion", "random"]


def test_patches_are_replaced_whole_in_the_order_of_their_means() -> None:
    score = np.random.default_rng(0).normal(size=(32, 64))
    start, end = np.zeros((1, 32, 64)), np.ones((1, 32, 64))
    seen = [image[0, 0] for image in faithfulness._replace_patches(start, end, score)]
    assert [image.mean() for image in seen] == pytest.approx(faithfulness.FRACTIONS, abs=1e-3)
    patches = (
        seen[faithfulness.FRACTIONS.index(0.5)].reshape(16, 2, 16, 4).transpose(0, 2, 1, 3).reshape(256, 8)
    )  # half of the image
    assert (np.ptp(patches, axis=1) == 0).all()
    means = score.reshape(16, 2, 16, 4).mean(axis=(1, 3)).ravel()
    assert means[patches[:, 0] == 1].min() > means[patches[:, 0] == 0].max()


def test_area_is_the_trapezoids() -> None:
    frame = pd.DataFrame({"fraction": [0.0, 0.5, 1.0], "probability": [1.0, 0.5, 0.0]})
    area = faithfulness.curve_auc(frame.assign(clip=0, curve="deletion", order="random"))
    assert area.to_dict("records") == [{"clip": 0, "curve": "deletion", "order": "random", "area": 0.5}]


def test_shares_say_that_the_map_is_on_half_of_what_is_loud(maps: AttributionMaps) -> None:
    frame = faithfulness.loud_region_share(maps).set_index(["clip", "map", "region"])
    assert frame.loc[(0, "attribution", "loud"), "share"] == pytest.approx(1.0)
    assert frame.loc[(0, "attribution", "loud"), "area"] == pytest.approx(40 / 200)
    assert frame.loc[(0, "gradient", "loud"), "share"] == pytest.approx(1.0)
    rim = 6 + 1  # pixels of the watched corner that touch what is quiet: its two inner sides
    assert frame.loc[(0, "attribution", "boundary"), "share"] == pytest.approx((rim + 1) / 20)


def test_share_of_an_even_map_is_the_area() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(FLOOR_DB, 0, (1, *SHAPE)).astype(np.float32)
    even = np.ones_like(x)
    maps = AttributionMaps("m", "b", x, x[:, None], even, None, *[np.zeros((1, 2))] * 2, *[np.zeros(1)] * 4)
    frame = faithfulness.loud_region_share(maps)
    np.testing.assert_allclose(frame["share"], frame["area"])
    assert frame["map"].unique().tolist() == ["attribution"], "a map without gradients has no row of them"


def test_regions_of_a_square() -> None:
    image = np.full((3, 20, 20), FLOOR_DB)
    image[:, 5:13, 5:13] = 0.0
    found = faithfulness.loud_regions(image)
    assert found["loud"].sum() == 64
    assert found["boundary"].sum() == 10 * 10 - 6 * 6
    silent = faithfulness.loud_regions(np.full((3, 20, 20), FLOOR_DB))
    assert not silent["loud"].any()
    assert not silent["boundary"].any()


def test_ssim_is_one_for_the_same_and_falls_with_noise() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(30, 40))
    assert faithfulness.ssim(x, x) == pytest.approx(1.0)
    values = [faithfulness.ssim(x, x + amount * rng.normal(size=x.shape)) for amount in (0.01, 0.1, 1.0)]
    assert 1 > values[0] > values[1] > values[2] > -1
    assert faithfulness.ssim(x, np.flip(x)) == pytest.approx(faithfulness.ssim(np.flip(x), x))
    flat = faithfulness.ssim(np.full((9, 9), 0.2), np.full((9, 9), 0.8))
    assert flat == pytest.approx((2 * 0.2 * 0.8 + 1e-4) / (0.2**2 + 0.8**2 + 1e-4)), "only the means differ"


def test_likeness() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 30))
    assert faithfulness.map_similarity(x, x**3)[0] == pytest.approx(1.0), "only the order counts"
    assert faithfulness.map_similarity(x, -x) == (pytest.approx(-1.0), pytest.approx(1.0)), (
        "SSIM is of the absolute values"
    )
    assert abs(faithfulness.map_similarity(x, rng.normal(size=x.shape))[0]) < 0.15
    assert faithfulness.map_similarity(x, np.zeros_like(x))[0] == 0


def test_cascade_makes_stage_after_stage_random() -> None:
    backbone = build_backbone("resnet18", 3, weights="random", seed=0)
    random = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter += 1.0
    network = nn.Sequential()
    network.add_module("backbone", backbone)
    trained = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    seen = []
    for stage, made in faithfulness.cascading_randomisation(network, random):
        seen.append(stage)
        for key, tensor in made.get_submodule("backbone").state_dict().items():
            expected = random if key.split(".")[0] in seen else trained
            assert torch.equal(tensor, expected[key]), (stage, key)
    assert seen == ["head", "block4", "block3", "block2", "block1", "stem"]
    assert all(torch.equal(trained[key], tensor) for key, tensor in backbone.state_dict().items())


def _frames(deletion: float, spread: float = 0.01, clips: int = 8) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(0)
    rows = []
    for clip in range(clips):
        for curve, mine in (("deletion", deletion), ("insertion", 0.6)):
            for order, value in (("attribution", mine), ("random", 0.5), ("energy", 0.5)):
                rows.append((clip, curve, order, value + spread * rng.normal()))
    areas = pd.DataFrame(rows, columns=["clip", "curve", "order", "area"])
    shares = pd.DataFrame({"clip": range(clips), "map": "attribution", "region": "loud", "share": 0.5, "area": 0.2})
    alike = pd.DataFrame({"clip": range(clips), "map": "attribution", "rank_correlation": 0.1, "ssim": 0.2})
    return areas, shares, alike.assign(stage="head")


def test_table_says_what_speaks_for_the_map_and_what_against() -> None:
    frame = faithfulness.make_faithfulness_table(*_frames(0.3)).set_index(["test", "control"])
    row = frame.loc[("deletion", "random order")]
    assert row["verdict"] == "for", "less is left after deletion"
    assert row["difference"] == pytest.approx(-0.2, abs=0.02)
    assert row["difference_low"] <= row["difference"] <= row["difference_high"]
    assert row["low"] <= row["value"] <= row["high"]
    assert row["clips"] == 8
    assert frame.loc[("insertion", "energy order"), "verdict"] == "for"
    assert frame.loc[("loud", "share of the image"), "difference"] == pytest.approx(0.3)
    assert frame.loc[("rank_correlation head", ""), "value"] == pytest.approx(0.1)
    assert np.isnan(frame.loc[("ssim head", ""), "p"])
    assert faithfulness.make_faithfulness_table(*_frames(0.7)).loc[0, "verdict"] == "against"
    assert faithfulness.make_faithfulness_table(*_frames(0.5, spread=0.1)).loc[0, "verdict"] == "unclear"


def test_table_corrects_for_the_number_of_comparisons() -> None:
    frame = faithfulness.make_faithfulness_table(*_frames(0.3))
    tested = frame[frame["p"].notna()]
    assert len(tested) == 5
    assert tested["p"].min() == pytest.approx(5 * 2 / 2**8), "the smallest of 8 pairs, times 5 comparisons"


def test_table_of_one_clip_claims_nothing() -> None:
    frame = faithfulness.make_faithfulness_table(*_frames(0.3, clips=1))
    assert frame["low"].isna().all()
    assert set(frame["verdict"]) == {"unclear", ""}


def test_mean_curves_average_over_clips(maps: AttributionMaps) -> None:
    curves = faithfulness.deletion_insertion_curves(model(), maps)
    frame = faithfulness.average_curves(curves)
    assert len(frame) == len(curves) / 2
    first = curves[(curves["curve"] == "deletion") & (curves["order"] == "energy") & (curves["fraction"] == 0.3)]
    mean = frame[(frame["curve"] == "deletion") & (frame["order"] == "energy") & (frame["fraction"] == 0.3)]
    assert mean["probability"].item() == pytest.approx(first["probability"].mean())


def test_compare_maps_of_itself_is_one(maps: AttributionMaps) -> None:
    frame = faithfulness.compare_maps(maps, maps)
    assert frame["map"].tolist() == ["attribution"] * 2 + ["gradient"] * 2
    np.testing.assert_allclose(frame[["rank_correlation", "ssim"]], 1.0)


def test_rows_whose_interval_and_p_disagree_are_named() -> None:
    """Five clips can never reach p = 0.05 by sign flips, however clear their interval."""
    shares = pd.DataFrame(
        [
            {"clip": clip, "map": "attribution", "region": region, "share": share + 0.001 * clip, "area": 0.2}
            for clip in range(5)
            for region, share in (("loud", 0.8), ("boundary", 0.198))
        ]
    )
    areas = pd.DataFrame(
        [
            {"clip": clip, "curve": curve, "order": order, "area": 0.1 * ((clip * k) % 3)}
            for clip in range(5)
            for curve in ("deletion", "insertion")
            for k, order in enumerate(("attribution", "random", "energy"))
        ]
    )
    randomised = pd.DataFrame(columns=["clip", "map", "rank_correlation", "ssim", "stage"])
    frame = faithfulness.make_faithfulness_table(areas, shares, randomised)
    assert frame.loc[frame["contradicts"], "test"].tolist() == ["loud"]
    (note,) = faithfulness.contradiction_notes(frame)
    assert "loud against the share of the image" in note
    assert faithfulness.contradiction_notes(frame[~frame["contradicts"]]) == []
