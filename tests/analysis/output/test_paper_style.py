"""Names, order and panels of a style, and descriptions of tables and figures as JSON."""

import json
import math

import pandas as pd
import pytest

from analysis.metrics.registry import ACCURACY_COLUMN
from analysis.output.number_format import format_points
from analysis.output.paper_style import FigureStyle, PaperStyle, TableStyle, active_style, select_panels, use_style
from analysis.output.rendering import FigureItem, TableItem, frame_from_json, frame_to_json, item_from_json
from analysis.output.style import DEFAULT_SIZE, pick_colour, rc_params
from analysis.output.tables import Column, FullTable
from analysis.plots.by_condition import draw_accuracy_by_condition
from core.errors import UserError

NAN = math.nan
STYLE = PaperStyle(
    names={"none": "Nothing", "resnet18": "ResNet-18"},
    order=("gtzan", "esc50", "block3", "none"),
    colours=("#111111", "#222222"),
    font_size=12,
    width_cm=7.0,
    footnotes=False,
    tables={"table": TableStyle(columns=("Condition", "p"), footnotes=True)},
)
FRAME = pd.DataFrame(
    {
        "data": ["esc50"] * 3 + ["gtzan"] * 3,
        "condition": ["none", "stem", "block3"] * 2,
        "accuracy": [0.1, 0.2, NAN, 0.4, 0.5, 0.6],
        "accuracy_std": [0.01] * 6,
        "p": [NAN, 0.2, 0.3] * 2,
        "runs": [1, 2, 3] * 2,
    }
)


def test_sort_rows_orders_data_sets_first_and_leaves_other_names_behind() -> None:
    rows = STYLE.sort_rows(FRAME)
    assert list(zip(rows["data"], rows["condition"], strict=True)) == [
        (data, condition) for data in ("gtzan", "esc50") for condition in ("block3", "none", "stem")
    ]
    assert PaperStyle().sort_rows(FRAME) is FRAME


def test_rename_renames_whole_names_and_parts_between_commas() -> None:
    assert STYLE.rename("none") == "Nothing"
    assert STYLE.rename("resnet18, none") == "ResNet-18, Nothing"
    assert STYLE.rename("nonentity") == "nonentity"


def test_style_applies_inside_its_block_only() -> None:
    default = pick_colour(0), rc_params()["font.size"]
    with use_style(STYLE):
        assert [pick_colour(k) for k in range(3)] == ["#111111", "#222222", "#111111"]
        assert (rc_params()["font.size"], rc_params()["xtick.labelsize"]) == (12, 10.5)
    assert (pick_colour(0), rc_params()["font.size"]) == default
    assert active_style() == PaperStyle()


def test_select_panels_keeps_the_given_order() -> None:
    chosen = select_panels(FRAME, "condition", ["block3", "none"], "confusion")
    assert chosen["condition"].tolist() == ["block3", "block3", "none", "none"]
    with pytest.raises(
        UserError, match="unknown panel of the figure confusion in --style: 'nine': did you mean 'none'"
    ):
        select_panels(FRAME, "condition", ["nine"], "confusion")


def test_table_in_style_has_its_columns_names_and_footnotes() -> None:
    columns = [Column("data", "Data"), Column("condition", "Condition"), ACCURACY_COLUMN]
    full = FullTable([*columns, Column("p", "p", format_points)], ["all"])
    item = TableItem("table", FRAME, columns, "caption", "tab:x", ["note"], ["data"], full)
    shown = item.in_style(STYLE)
    assert [column.name for column in shown.columns] == ["condition", "p"]
    assert shown.frame["condition"].tolist() == ["block3", "Nothing", "stem"] * 2
    assert "runs" not in shown.frame
    assert (list(shown.footnotes), shown.full and list(shown.full.footnotes)) == (["note"], ["all"])
    other = TableItem("other", FRAME, columns, "caption", "tab:x", ["note"], ["data"], full).in_style(STYLE)
    assert (list(other.columns), list(other.footnotes)) == (columns, [])


def test_items_are_the_same_after_json() -> None:
    columns = [Column("condition", "Condition"), ACCURACY_COLUMN, Column("p", "p", format_points, bounds=("p", "runs"))]
    table = TableItem("table", FRAME, columns, "caption", "tab:x", ["note"], ["data"], FullTable(columns, []))
    figure = FigureItem(
        "figure", FRAME, draw_accuracy_by_condition, {"xlabel": "x"}, "caption", "fig:x", "", dict(DEFAULT_SIZE)
    )
    for item in (table, figure):
        stored = json.loads(json.dumps(item.to_json()))
        again = item_from_json(stored)
        assert again.to_json() == item.to_json()
        assert again.frame.to_numpy().tolist()[1:2] == item.frame.to_numpy().tolist()[1:2]
    mixed = pd.DataFrame(
        {"text": ["none", "1", None], "number": [1, 2, 3], "part": [0.1 + 0.2, NAN, 1.0], "flag": [True] * 3}
    )
    pd.testing.assert_frame_equal(frame_from_json(json.loads(json.dumps(frame_to_json(mixed)))), mixed)


def test_functions_inside_functions_have_no_description() -> None:
    item = TableItem("x", FRAME, [Column("p", "p", lambda value: str(value))], "caption", "tab:x")
    with pytest.raises(ValueError, match="functions of a module"):
        item.to_json()


def test_figure_in_style_keeps_its_proportions_unless_it_has_a_height() -> None:
    size = {"width": 3.5, "height": 2.5}
    item = FigureItem("figure", FRAME, draw_accuracy_by_condition, {}, "caption", "fig:x", "", size)
    assert item.in_style(STYLE).size == pytest.approx({"width": 7 / 2.54, "height": 5 / 2.54})
    own = PaperStyle(figures={"figure": FigureStyle(height_cm=4.0)})
    assert item.in_style(own).size == pytest.approx({"width": 3.5, "height": 4 / 2.54})
    wide = FigureItem("wide", FRAME, draw_accuracy_by_condition, {}, "caption", "fig:x", "", {"width": 7, "height": 2})
    assert wide.in_style(STYLE).size == pytest.approx({"width": 7, "height": 2})
