"""The sentence about a comparison says what its test shows, and no more."""

import math
from typing import Any

import pandas as pd
import pytest

from analysis.statistics.sentences import (
    describe_comparisons,
    describe_ensembles,
    describe_maps,
    describe_similarities,
)

NAN = math.nan
ROW = {
    **{"condition": "block3", "difference": 0.042, "low": -0.058, "high": 0.142, "pairs": 5, "folds": 5},
    **{"over": "folds", "p_holm": 0.38, "equal_within": 0.118, "mcnemar_p_holm": 0.2},
}
START = "Freezing through block3 changes accuracy by +4.2 points"
INTERVAL = "95 % interval −5.8 to +14.2"


def describe(margin: float | None = None, **changes: Any) -> str:
    comparisons = pd.DataFrame([{**ROW, **changes}])
    (sentence,) = describe_comparisons(
        comparisons, subject="Freezing through {condition}", reference="none", margin=margin
    )
    return sentence


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({}, f" ({INTERVAL}, 5 folds, p = 0.380): no effect shown; differences above 11.8 points are ruled out."),
        ({"equal_within": NAN}, f" ({INTERVAL}, 5 folds, p = 0.380): no effect shown."),
        ({"p_holm": 0.049}, f" ({INTERVAL}, 5 folds, p = 0.049): an increase."),
        ({"p_holm": 0.0001}, f" ({INTERVAL}, 5 folds, p < .001): an increase."),
        ({"p_holm": NAN, "equal_within": NAN}, f" ({INTERVAL}, 5 folds, no test): no effect shown."),
        (
            {"over": "seeds", "folds": 1, "pairs": 3, "p_holm": NAN},
            f" ({INTERVAL}, 3 seeds of one fold): no conclusion about other clips, because only the seed varies.",
        ),
        (
            {"pairs": 1, "folds": 1, "over": "seeds", "p_holm": NAN},
            " in one pair of runs: no difference between these two networks shown (McNemar's test, p = 0.200); "
            "more folds or seeds are needed for the effect itself.",
        ),
        (
            {"pairs": 1, "folds": 1, "over": "seeds", "p_holm": NAN, "mcnemar_p_holm": 0.01},
            " in one pair of runs: these two networks differ (McNemar's test, p = 0.010); more folds or seeds are "
            "needed for the effect itself.",
        ),
        ({"pairs": 1, "mcnemar_p_holm": NAN}, " in one pair of runs: there is no test of the difference."),
    ],
)
def test_sentence_follows_from_the_test(changes: dict[str, Any], end: str) -> None:
    assert describe(**changes) == START + end


def test_decrease_equivalence_and_missing_results() -> None:
    assert describe(difference=-0.08, p_holm=0.01).endswith("p = 0.010): a decrease.")
    assert describe(margin=0.05, equivalence_p_holm=0.01).endswith("p = 0.380): equivalent within 5 points.")
    assert "equivalent" not in describe(margin=0.05, equivalence_p_holm=0.2)
    assert describe(difference=NAN).startswith("Freezing through block3: no result")


def test_options_and_reference_are_named() -> None:
    comparisons = pd.DataFrame([{**ROW, "lr": 0.001, "length_mode": "pad", "condition": "random"}])
    (sentence,) = describe_comparisons(
        comparisons,
        subject="Training from {condition} instead of {reference} weights",
        reference="pretrained",
        grid=["lr", "length_mode"],
    )
    assert sentence.startswith(
        "Training from random instead of pretrained weights (lr 0.001, length mode pad) changes accuracy by +4.2 points"
    )
    assert "corrected" not in sentence
    several = describe_comparisons(pd.DataFrame([ROW, ROW]), subject="{condition}", reference="none")
    assert ["corrected p = 0.380" in sentence for sentence in several] == [True, True]


def test_ensemble_is_compared_with_its_mean_member() -> None:
    single = {"condition": "single", "members": 1}
    ensemble = {
        **{"condition": "ensemble", "members": 5, "delta": 0.021, "low": 0.004, "high": 0.038, "folds": 5},
        **{"p_holm": 0.02, "lr": 0.001},
    }

    def describe_one(grid: tuple[str, ...] = (), **changes: Any) -> str:
        (sentence,) = describe_ensembles(pd.DataFrame([single, {**ensemble, **changes}]), grid=grid)
        return sentence

    start = "The ensemble of 5 networks changes accuracy by +2.1 points against the mean of its members"
    assert describe_one() == f"{start} (95 % interval +0.4 to +3.8, 5 folds, p = 0.020): an increase."
    assert describe_one(low=-0.01, p_holm=0.2).endswith("p = 0.200): no effect shown.")
    assert (
        describe_one(low=NAN, high=NAN, p_holm=NAN) == f"{start} in one fold: there is no test; more folds are needed."
    )
    assert "no result" in describe_one(delta=NAN)
    assert "of 5 networks (lr 0.001) changes" in describe_one(("lr",))


def test_similarity_of_each_stage_is_named_with_its_noise_floor() -> None:
    layers = [("stem", 0.95, 0.5, 0.9, True), ("block1", 0.7, 0.4, 0.5, False), ("block1.conv", 0.6, 0.5, 0.2, False)]
    names = ["layer", "similarity", "noise_floor", "above_floor", "few_datapoints"]
    rows = [{"weights": "pretrained", **dict(zip(names, layer, strict=True))} for layer in layers]
    empty = {"weights": "random", "layer": None, "similarity": NAN}
    assert describe_similarities(pd.DataFrame([*rows, empty]), index="SVCCA") == [
        "Training from pretrained weights: SVCCA before and after training (noise floor) stem 0.95 (0.50), block1 0.70 "
        "(0.40); block1 changes most relative to its floor; too few datapoints: stem.",
        "Training from random weights: no result, because no run has finished.",
    ]


def test_maps_are_described_with_their_error_and_their_tests() -> None:
    row = {"method": "integrated-gradients", "baseline": "silence", "clips": 3}
    maps = pd.DataFrame(
        [
            {**row, "condition": "base", "error": 0.012, "rank_correlation": 1.0},
            {**row, "condition": "random", "error": NAN, "rank_correlation": 0.25},
        ]
    )
    tests = pd.DataFrame([{**row, "verdict": verdict} for verdict in ("for", "unclear", "unclear", "")])
    assert describe_maps(maps, tests) == [
        "Maps of base by integrated-gradients against silence (3 clips): mean completeness error 1.2 %; tests of "
        "faithfulness: 1 for, 2 unclear.",
        "Maps of random by integrated-gradients against silence (3 clips): rank correlation 0.250 with the first maps.",
    ]
    assert describe_maps(maps.head(1), None) == [
        "Maps of base by integrated-gradients against silence (3 clips): mean completeness error 1.2 %."
    ]
