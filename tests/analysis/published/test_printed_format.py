"""Our numbers in the unit and precision of a published one."""

import math

import pytest

from ablations import STUDIES_FOLDER
from analysis.published.numbers import list_published, load_published
from analysis.published.printed_format import format_ours, format_published, read_printed_format

IN_WORDS = (  # without a format
    "7/9",
    "all 9",
    "failed to classify any",
    "didn't misclassify any samples",
    "not misclassifying any samples",
    "5 minutes 39 seconds",
    "40 - 45 Minutes",
    "90 - 100 Minutes",
    "10m 52s",
    "1e - 4",
    "1e - 3",
)


def published(value: float, printed: str = "", metric: str = "accuracy", text: str = "", **more: object) -> dict:
    row = {"value": value, "std": math.nan, "printed": printed, "metric": metric, "approximate": False}
    return row | {"value_text": text or f"{value:g}"} | more


@pytest.mark.parametrize(
    ("row", "value", "std", "ours"),
    [
        (published(0.9139, "91.39±0.37%"), 0.90126, 0.00512, "90.13 ± 0.51%"),
        (published(0.54444, ".54444"), 0.6, math.nan, ".60000"),
        (published(0.723, "0.723"), 0.70049, math.nan, "0.700"),
        (published(0.9652, "96.52"), 0.5, math.nan, "50.00"),
        (published(0.98076923, "0.980:76923"), 0.5, math.nan, "0.50000000"),
        (published(61.8e6, "61.8M", "parameters"), 61_790_922, math.nan, "61.8M"),
        (published(62e6, "approximate 62 million", "parameters"), 61_790_922, math.nan, "62 million"),
        (published(11e6, "over 11 million", "parameters"), 66_954, math.nan, "0.067 million"),
        (published(61_790_922, "61,790,922", "parameters"), 4_787_082, math.nan, "4,787,082"),
        (published(0.57, "0.57", "input_megabytes"), 0.5742, math.nan, "0.57"),
        (published(8.4, "8.40", "pass_megabytes"), 8.397, math.nan, "8.40"),
        (published(2400, "40 - 45 Minutes", "seconds_low"), 1230, math.nan, "20 min 30 s"),
        (published(339, "5 minutes 39 seconds", "seconds"), 100, math.nan, "1 min 40 s"),
        (published(7 / 9, "7/9", "recall"), 0.5, math.nan, "50.0%"),
        (published(-0.1, "", "delta"), 0.0213, math.nan, "+2.1 points"),
        (published(-0.1, "drops by nearly 10%", "delta"), -0.2, math.nan, "−20%"),
        (published(0.9, "", text="0.9000"), 0.75, math.nan, "75.00%"),
    ],
)
def test_format_ours_has_unit_and_decimals_of_the_report(row: dict, value: float, std: float, ours: str) -> None:
    assert format_ours(row, value, std) == ours


def test_format_published_is_the_printed_text() -> None:
    assert format_published(published(0.9139, "91.39±0.37%", std=0.0037)) == "91.39±0.37%"
    assert format_published(published(62e6, "", "parameters", approximate=True)) == "about 62,000,000"


def test_printed_texts_of_all_studies_have_the_stored_values() -> None:
    """Only numbers in words, such as "all 9", do not have their value in the printed text."""
    for study in list_published(STUDIES_FOLDER):
        for row in load_published(study, folder=STUDIES_FOLDER).to_dict("records"):
            if row["claim"] or not row["printed"]:
                continue
            assert (read_printed_format(row) is None) == (row["printed"] in IN_WORDS), row
            if row["std"] == row["std"]:
                assert row["printed"] == format_ours(row, row["value"], row["std"]).replace(" ", "")
