"""Figures by condition: drawn values, labels, and files."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from analysis.output import style
from analysis.plots import by_condition
from analysis.plots.axis_limits import limit_count_axis

NAN = float("nan")


@pytest.fixture
def ax():
    return style.new_figure()[1]


def lines(ax):
    """Return the data lines by label; for error bars the label is that of the container."""
    named = {c.get_label(): c.lines[0] for c in ax.containers if hasattr(c, "lines")}
    return named | {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def ticks(ax):
    return [label.get_text() for label in ax.get_xticklabels()]


FREEZE = pd.DataFrame(
    {
        "condition": ["block10", "none", "block2", "stem"],
        "accuracy": [0.4, 0.7, NAN, 0.6],
        "accuracy_std": [0.01, 0.02, NAN, NAN],
    }
)


def test_accuracy_by_condition_is_in_depth_order_and_percent(ax):
    assert by_condition.draw_accuracy_by_condition(FREEZE, ax, xlabel="Frozen through", reference="none") is ax
    assert ticks(ax) == ["none", "stem", "2", "10"]
    (errors,) = ax.containers
    np.testing.assert_allclose(errors.lines[0].get_ydata(), [70, 60, NAN, 40])
    assert lines(ax)["no result"].get_xdata().tolist() == [2]
    assert any(np.allclose(line.get_ydata(), 70) and line.get_linestyle() == "--" for line in ax.lines)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Frozen through", "Accuracy (%), ± std")
    assert legend(ax) == ["reference (none)", "no result"]


def test_accuracy_by_condition_with_series_has_one_line_each(ax):
    frame = pd.concat([FREEZE.assign(backbone="a"), FREEZE.assign(backbone="b", accuracy=0.5)])
    by_condition.draw_accuracy_by_condition(frame, ax, xlabel="", series="backbone")
    assert legend(ax) == ["a", "b", "no result"]
    np.testing.assert_allclose(lines(ax)["b"].get_ydata(), 50)


SINGLE = pd.DataFrame(
    {
        "condition": ["none", "stem", "block1"],
        "accuracy": [0.57, 0.71, 0.6],
        "compared": 1,
        "chance": 0.1,
        "n_classes": 10,
    }
)


def line_styles(ax):
    """Return the line styles of the points with error bars."""
    return [container.lines[0].get_linestyle() for container in ax.containers]


def test_accuracy_of_single_runs_is_hollow_and_not_connected(ax):
    by_condition.draw_accuracy_by_condition(SINGLE, ax, xlabel="", reference="none")
    (points,) = ax.containers
    assert line_styles(ax) == ["None"]
    assert points.lines[0].get_markerfacecolor() == "white"
    assert ax.get_ylim() == (0, 100)
    assert not any(line.get_clip_on() for line in points.lines[:1])  # a marker at 100 % is drawn whole
    assert len(points.lines[2]) == 0  # no error bar, not even in the legend
    assert legend(ax) == ["reference (none)", "1 run per condition", "chance 10.0 % (1 / 10)"]
    assert lines(ax)["reference (none)"].get_color() == points.lines[0].get_color()
    assert lines(ax)["chance 10.0 % (1 / 10)"].get_ydata() == [10, 10]


def test_accuracy_of_several_runs_is_connected_along_depth_only(ax):
    several = SINGLE.assign(compared=5, accuracy_std=0.01)
    by_condition.draw_accuracy_by_condition(several, ax, xlabel="")
    assert line_styles(ax) == ["-"]
    for frame in (several.iloc[:2], several.assign(condition=["a", "b", "c"])):
        other = style.new_figure()[1]
        by_condition.draw_accuracy_by_condition(frame, other, xlabel="")
        assert line_styles(other) == ["None"]


@pytest.mark.parametrize("accuracy", [0.001, 0.5, 0.999])
def test_accuracy_axis_spans_at_least_twenty_points(ax, accuracy):
    frame = SINGLE.assign(compared=5, accuracy=[accuracy, accuracy, min(1, accuracy + 0.01)])
    by_condition.draw_accuracy_by_condition(frame, ax, xlabel="")
    low, high = ax.get_ylim()
    assert high - low >= 20
    assert low >= 0
    assert high <= 102
    assert low < 100 * accuracy < high


def test_bars_of_single_runs_are_hollow_and_named(ax):
    frame = pd.DataFrame(
        {"condition": ["a", "b"], "accuracy": [0.5, 0.4], "compared": [1, 5], "over": ["1 run", "folds"]}
    )
    frame = frame.assign(accuracy_low=[NAN, 0.3], accuracy_high=[NAN, 0.5], chance=0.125, n_classes=10)
    by_condition.draw_grouped_bars(frame, ax, x="condition")
    assert [bar.get_facecolor() == (1, 1, 1, 1) for bar in ax.patches] == [True, False]
    assert legend(ax) == ["1 run", "chance 12.5 % (largest class)"]
    text = by_condition.describe_error_bars(frame, "accuracy")
    assert text == "error bars: 95 % interval over folds (b); no spread, 1 run (a)"


@pytest.mark.parametrize("last", [1, 2, 7, 65, 500])
def test_count_axis_has_ticks_from_one(ax, last):
    limit_count_axis(ax, last)
    assert ax.get_xticks()[0] == 1
    assert ax.get_xticks()[-1] <= last
    assert all(float(tick).is_integer() for tick in ax.get_xticks())
    assert 0 < ax.get_xlim()[0] < 1 or last > 50


def similarity(layers):
    return pd.DataFrame(
        [
            {"layer": layer, "weights": weights, "similarity": top - 0.001 * i, "noise_floor": 0.1}
            for weights, top in (("pretrained", 0.9), ("random", 0.4))
            for i, layer in enumerate(layers)
        ]
    )


def test_similarity_by_layer_has_lines_and_noise_floor(ax):
    assert by_condition.draw_similarity_by_layer(similarity(["stem", "block1", "head"]), ax) is ax
    np.testing.assert_allclose(lines(ax)["random"].get_ydata(), [0.4, 0.399, 0.398])
    assert legend(ax) == ["pretrained", "random", "noise floor"]
    assert ticks(ax) == ["stem", "1", "head"]
    assert ax.get_ylim()[0] == 0


def test_similarity_by_layer_has_hollow_markers_of_layers_with_few_datapoints(ax):
    frame = similarity(["stem", "block1", "head"])
    by_condition.draw_similarity_by_layer(frame.assign(few_datapoints=frame["layer"] == "head"), ax)
    assert legend(ax) == ["pretrained", "random", "noise floor", "few datapoints"]
    hollow = [line for line in ax.lines if line.get_markerfacecolor() == "white" and len(line.get_ydata())]
    np.testing.assert_allclose([line.get_ydata() for line in hollow], [[NAN, NAN, 0.898], [NAN, NAN, 0.398]])


def test_grouped_bars_have_heights(ax):
    frame = pd.DataFrame(
        {
            "data": ["gtzan", "gtzan", "esc50", "esc50"],
            "weights": ["pretrained", "random"] * 2,
            "accuracy": [0.9, 0.8, 0.7, NAN],
            "accuracy_std": 0.01,
        }
    )
    assert by_condition.draw_grouped_bars(frame, ax, x="data", series="weights", xlabel="Data set") is ax
    heights = [bar.get_height() for container in ax.containers if hasattr(container, "patches") for bar in container]
    np.testing.assert_allclose(heights, [90, 70, 80, NAN])
    assert [text.get_text() for text in ax.texts] == ["no result"]
    assert ticks(ax) == ["gtzan", "esc50"]
    assert legend(ax) == ["pretrained", "random"]


@pytest.mark.parametrize(("runs", "colour"), [(1, "white"), (3, style.COLOURS[0])])
def test_learning_curve_of_one_epoch_and_run_is_a_hollow_marker(ax, runs, colour):
    frame = pd.DataFrame({"condition": ["none"], "epoch": [1], "mean": [0.6], "runs": [runs]})
    by_condition.draw_learning_curves(frame, ax, ylabel="Test accuracy (%)", series="condition")
    assert lines(ax)["none"].get_marker() == "o"
    assert lines(ax)["none"].get_markerfacecolor() == colour


def test_learning_curves_have_band_and_are_dotted_after_runs_ended(ax):
    frame = pd.DataFrame({"epoch": [1, 2, 3], "mean": [3.0, 2.0, 1.0], "std": [0.5, 0.5, NAN], "ended": [0, 0, 1]})
    by_condition.draw_learning_curves(frame.assign(condition="none"), ax, ylabel="Training loss", series="condition")
    solid, dotted = ax.lines
    assert (solid.get_xdata().tolist(), solid.get_ydata().tolist()) == ([1, 2], [3.0, 2.0])
    assert (dotted.get_xdata().tolist(), dotted.get_linestyle()) == ([2, 3], ":")
    extents = ax.collections[0].get_paths()[0].get_extents()
    assert (extents.y0, extents.y1) == (1.5, 3.5)


def test_save_figure_writes_png_pdf_svg_and_csv(tmp_path):
    figure, ax = style.new_figure()
    by_condition.draw_accuracy_by_condition(FREEZE, ax, xlabel="Frozen through")
    png, pdf, svg, csv = style.save_figure(figure, tmp_path / "new" / "accuracy.v1", FREEZE)
    assert [file.name for file in (png, pdf, svg, csv)] == [
        f"accuracy.v1.{kind}" for kind in ("png", "pdf", "svg", "csv")
    ]
    with Image.open(png) as image:
        assert image.size == (1050, 750)  # 3.5 by 2.5 inches at 300 dpi
    vector = svg.read_text()
    assert vector.startswith("<svg ")
    assert 'width="252pt" height="180pt"' in vector  # 3.5 by 2.5 inches
    assert "prefers-color-scheme: dark" in vector
    assert 'fill: #ffffff"' not in vector  # no white ground
    content = pdf.read_bytes()
    assert content.startswith(b"%PDF")
    assert b"/FontFile2" in content or b"/Type42" in content or b"/CIDFontType2" in content  # TrueType, embedded
    assert b"/Type3" not in content
    pd.testing.assert_frame_equal(pd.read_csv(csv), FREEZE)
    again = style.save_figure(figure, tmp_path / "again", FREEZE)
    assert [file.read_bytes() for file in again] == [file.read_bytes() for file in (png, pdf, svg, csv)]


def test_save_figure_stacks_panels_for_narrow_screens(tmp_path):
    figure, ax = style.new_figure(width=style.PAGE_WIDTH)
    (panels,) = style.split_into_panels(ax, 1, 2)
    for panel in panels:
        panel.plot([0, 1], [0, 1])
    files = style.save_figure(figure, tmp_path / "two")
    assert [file.name for file in files] == ["two.png", "two.pdf", "two.svg", "two-narrow.svg"]
    assert 'width="252pt" height="360pt"' in files[-1].read_text()  # two panels of 2.5 inches
    assert 'width="515.52pt" height="180pt"' in files[-2].read_text()


@pytest.mark.parametrize(("size", "suffixes"), [(8, [".png", ".pdf", ".svg"]), (64, [".png", ".pdf"])])
def test_save_figure_heat_map_keeps_its_white_ground(tmp_path, size, suffixes):
    figure, ax = style.new_figure()
    ax.imshow(np.eye(size))
    files = style.save_figure(figure, tmp_path / "map")
    assert [file.suffix for file in files] == suffixes
    if ".svg" in suffixes:
        assert "prefers-color-scheme" not in files[-1].read_text()
        assert "fill: #ffffff" in files[-1].read_text()
