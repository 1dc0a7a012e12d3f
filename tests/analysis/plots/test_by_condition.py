import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from analysis.output import style
from analysis.plots import by_condition
from analysis.plots import by_condition as figures
from core.errors import UserError

NAN = float("nan")


@pytest.fixture
def ax():
    return style.new_figure()[1]


def lines(ax):
    """Return the lines that show data, by label; error bars name their container."""
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
        "published": [NAN, 0.9, NAN, NAN],
    }
)


def test_accuracy_is_drawn_in_depth_order_in_percent(ax):
    assert by_condition.draw_accuracy_by_condition(FREEZE, ax, xlabel="Frozen through", reference="none") is ax
    assert ticks(ax) == ["none", "stem", "2", "10"]
    (errors,) = ax.containers
    np.testing.assert_allclose(errors.lines[0].get_ydata(), [70, 60, NAN, 40])
    np.testing.assert_allclose(lines(ax)["published"].get_ydata(), [90, NAN, NAN, NAN])
    assert lines(ax)["no result"].get_xdata().tolist() == [2]
    assert any(np.allclose(line.get_ydata(), 70) and line.get_linestyle() == "--" for line in ax.lines)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Frozen through", "Accuracy (%), ± std")
    assert legend(ax) == ["published", "no result", "reference (none)"]


def test_error_bars_are_the_interval_where_there_is_one(ax):
    frame = FREEZE.assign(accuracy_low=FREEZE["accuracy"] - 0.01, accuracy_high=FREEZE["accuracy"] + 0.03)
    by_condition.draw_accuracy_by_condition(frame, ax, xlabel="")
    (bars,) = ax.containers[0].lines[2]
    np.testing.assert_allclose(bars.get_segments()[0][:, 1], [69, 73])
    assert ax.get_ylabel() == "Accuracy (%), 95 % interval"


def test_one_line_for_each_series(ax):
    frame = pd.concat([FREEZE.assign(backbone="a"), FREEZE.assign(backbone="b", accuracy=0.5, published=NAN)])
    by_condition.draw_accuracy_by_condition(frame, ax, xlabel="", series="backbone")
    assert legend(ax) == ["a", "b", "a published", "no result"]
    np.testing.assert_allclose(lines(ax)["b"].get_ydata(), 50)


def test_names_that_are_no_depths_keep_their_order(ax):
    frame = pd.DataFrame({"condition": ["pad", "loop", "none"], "accuracy": [0.1, 0.2, 0.3]})
    by_condition.draw_accuracy_by_condition(frame, ax, xlabel="Fit")
    assert ticks(ax) == ["pad", "loop", "none"]
    assert ax.get_ylabel() == "Accuracy (%)"
    assert ax.get_legend() is None


def similarity(layers):
    return pd.DataFrame(
        [
            {"layer": layer, "weights": weights, "similarity": top - 0.001 * i, "noise_floor": 0.1}
            for weights, top in (("pretrained", 0.9), ("random", 0.4))
            for i, layer in enumerate(layers)
        ]
    )


def test_similarity_has_a_line_for_each_start_and_the_noise_floor(ax):
    assert by_condition.draw_similarity_by_layer(similarity(["stem", "block1", "head"]), ax) is ax
    np.testing.assert_allclose(lines(ax)["random"].get_ydata(), [0.4, 0.399, 0.398])
    assert legend(ax) == ["pretrained", "random", "noise floor"]
    assert ticks(ax) == ["stem", "1", "head"]
    assert ax.get_ylim()[0] == 0


def test_many_layers_are_named_by_stage(ax):
    layers = ["stem.conv", *(f"block{block}.conv{i}" for block in (1, 2) for i in range(20))]
    by_condition.draw_similarity_by_layer(similarity(layers), ax, index="CKA")
    assert dict(zip(ticks(ax), ax.get_xticks().tolist(), strict=True)) == {"stem": 0, "1": 10.5, "2": 30.5}
    assert ax.get_ylabel() == "CKA similarity"


def test_a_stage_too_short_for_its_name_has_none(ax):
    layers = ["block1.conv0", "block1.conv1", *(f"block2.conv{i}" for i in range(60)), "block3.conv", "head.fc"]
    by_condition.draw_similarity_by_layer(similarity(layers), ax)
    assert sorted(ticks(ax)) == ["1", "2", "3"]


def test_grouped_bars_have_the_heights_given(ax):
    frame = pd.DataFrame(
        {
            "data": ["gtzan", "gtzan", "esc50", "esc50"],
            "weights": ["pretrained", "random"] * 2,
            "accuracy": [0.9, 0.8, 0.7, NAN],
            "accuracy_std": 0.01,
            "published": [0.91, 0.88, 0.91, 0.72],
        }
    )
    assert by_condition.draw_grouped_bars(frame, ax, x="data", series="weights", xlabel="Data set") is ax
    heights = [bar.get_height() for container in ax.containers if hasattr(container, "patches") for bar in container]
    np.testing.assert_allclose(heights, [90, 70, 80, NAN])
    assert [text.get_text() for text in ax.texts] == ["no result"]
    assert ticks(ax) == ["gtzan", "esc50"]
    assert legend(ax) == ["pretrained", "random", "published"]


def test_ensemble_curve_has_mean_and_band(ax):
    frame = pd.DataFrame(
        {"members": [2, 1], "accuracy": [0.7, 0.6], "accuracy_min": [0.7, 0.5], "accuracy_max": [0.7, 0.65]}
    )
    assert by_condition.draw_ensemble_curve(frame, ax) is ax
    np.testing.assert_allclose(lines(ax)["mean of subsets"].get_ydata(), [60, 70])
    (band,) = ax.collections
    assert band.get_paths()[0].get_extents().y0 == pytest.approx(50)


def test_learning_curves_have_a_line_for_each_part(ax):
    history = pd.DataFrame({"epoch": [1, 2], "train_accuracy": [0.5, 1.0], "test_accuracy": [0.4, 0.6], "lr": 0.1})
    frame = history.melt("epoch", ["train_accuracy", "test_accuracy"], var_name="part", value_name="mean")
    frame["part"] = frame["part"].str.removesuffix("_accuracy")
    assert by_condition.draw_learning_curves(frame, ax, ylabel="Accuracy (%)", series="part") is ax
    np.testing.assert_allclose(lines(ax)["train"].get_ydata(), [50, 100])
    assert list(lines(ax)) == ["train", "test"]


def test_a_learning_curve_has_its_band_and_is_dotted_where_runs_have_ended(ax):
    frame = pd.DataFrame({"epoch": [1, 2, 3], "mean": [3.0, 2.0, 1.0], "std": [0.5, 0.5, NAN], "ended": [0, 0, 1]})
    by_condition.draw_learning_curves(frame.assign(condition="none"), ax, ylabel="Training loss", series="condition")
    solid, dotted = ax.lines
    assert (solid.get_xdata().tolist(), solid.get_ydata().tolist()) == ([1, 2], [3.0, 2.0])
    assert (dotted.get_xdata().tolist(), dotted.get_linestyle()) == ([2, 3], ":")
    extents = ax.collections[0].get_paths()[0].get_extents()
    assert (extents.y0, extents.y1) == (1.5, 3.5)


def test_save_writes_picture_vectors_and_data(tmp_path):
    figure, ax = style.new_figure()
    figures.draw_accuracy_by_condition(FREEZE, ax, xlabel="Frozen through")
    png, pdf, csv = style.save_figure(figure, tmp_path / "new" / "accuracy.v1", FREEZE)
    assert [file.name for file in (png, pdf, csv)] == ["accuracy.v1.png", "accuracy.v1.pdf", "accuracy.v1.csv"]
    with Image.open(png) as image:
        assert image.size == (1050, 750)  # 3.5 by 2.5 inches at 300 dpi
    content = pdf.read_bytes()
    assert content.startswith(b"%PDF")
    assert b"/FontFile2" in content or b"/Type42" in content or b"/CIDFontType2" in content  # TrueType, embedded
    assert b"/Type3" not in content
    pd.testing.assert_frame_equal(pd.read_csv(csv), FREEZE)
    again = style.save_figure(figure, tmp_path / "again", FREEZE)
    assert [file.read_bytes() for file in again] == [file.read_bytes() for file in (png, pdf, csv)]


def test_save_to_an_unwritable_folder_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        style.save_figure(style.new_figure()[0], tmp_path / "file" / "x", FREEZE)


def test_nothing_leaks_into_matplotlib(tmp_path):
    before = dict(mpl.rcParams)
    figure, ax = style.new_figure()
    figures.draw_accuracy_by_condition(FREEZE, ax, xlabel="")
    style.save_figure(figure, tmp_path / "x", FREEZE)
    assert dict(mpl.rcParams) == before
    assert not ax.spines["top"].get_visible()  # yet the style was at work


def test_the_name_of_an_axis_stays_in_the_figure(tmp_path):
    figure, ax = style.new_figure()
    ax.set_ylabel("A quantity whose name is far too long, and still longer with its 95 % interval behind it")
    style.save_figure(figure, tmp_path / "long", None)
    assert ax.get_ylabel().splitlines() == [
        "A quantity whose name is far too long,",
        "and still longer with its 95 % interval behind it",
    ]
    ax.set_ylabel("Accuracy (%), 95 % interval")
    style.save_figure(figure, tmp_path / "short", None)
    assert ax.get_ylabel() == "Accuracy (%), 95 % interval"
