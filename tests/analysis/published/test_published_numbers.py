import itertools

import numpy as np
import pandas as pd
import pytest

from analysis.output.number_format import format_metric, metric_title
from analysis.published.numbers import (
    average_over_grid,
    join_with_published,
    list_published,
    load_all_published,
    load_published,
)
from core.errors import UserError

COLUMNS = [
    "study",
    "item",
    "data",
    "backbone",
    "condition",
    "metric",
    "epoch",
    "value",
    "std",
    "approximate",
    "source",
]


def value(study, item, **where):
    numbers = load_published(study, item)
    for column, wanted in where.items():
        numbers = numbers[numbers[column] == wanted]
    (found,) = numbers["value"]
    return found


def test_every_report_is_there_and_names_its_sources():
    assert list_published() == (
        "genres",
        "nsynth-transfer",
        "rethinking-cnn",
        "thirteen-classes-mobile",
        "thirteen-classes-padding",
    )
    for study in list_published():
        numbers = load_published(study)
        assert list(numbers.columns) == COLUMNS
        assert (numbers["study"] == study).all()
        assert numbers[["item", "data", "metric", "source"]].ne("").all(axis=None)
        assert np.isfinite(numbers["value"]).all()
        assert not numbers.duplicated(COLUMNS[:6]).any()


@pytest.mark.parametrize("study", list_published())
def test_fractions_are_fractions(study):
    numbers = load_published(study)
    fractions = numbers[numbers["metric"].str.fullmatch(r".*(accuracy|precision|recall|f1|score)")]
    assert len(fractions)
    assert fractions["value"].between(0, 1).all()


def test_spot_numbers_of_the_tables():
    assert value("rethinking-cnn", "Table I", data="esc50", backbone="resnet50", condition="random") == 0.674
    table = load_published("rethinking-cnn", "Table II")
    single = table[(table["data"] == "gtzan") & (table["backbone"] == "resnet50") & (table["condition"] == "single")]
    assert single[["value", "std"]].to_numpy().tolist() == [[0.9109, 0.0086]]
    assert value("nsynth-transfer", "Figure 5", metric="parameters") == 6_129_834
    assert value("thirteen-classes-padding", "Section 4", condition="loop", metric="f1") == 0.8288


def test_the_tables_of_one_report_agree_with_each_other():
    one, two = load_published("rethinking-cnn", "Table I"), load_published("rethinking-cnn", "Table II")
    keys = ["data", "backbone"]
    both = one[one["condition"] == "pretrained"].merge(two[two["condition"] == "single"], on=keys, validate="1:1")
    assert len(both) == 9
    assert (both["value_x"] == both["value_y"]).all()


def test_the_confusion_matrix_adds_up():
    cells = load_published("nsynth-transfer", "Figure 3")
    cells[["actual", "predicted"]] = cells["condition"].str.split(" as ", expand=True)
    matrix = cells.pivot(index="actual", columns="predicted", values="value")
    inner = matrix.drop(index="All", columns="All")
    assert (inner.sum(axis=1) == matrix["All"].drop("All")).all()
    assert (inner.sum(axis=0) == matrix.loc["All"].drop("All")).all()
    # Its diagonal gives 80.2 %, not the 81.4 % of the report's table: both are kept as printed.
    assert np.trace(inner) / inner.sum(axis=None) == 0.8018
    assert value("nsynth-transfer", "Table 1", backbone="resnet18", metric="accuracy") == 0.814


def test_numbers_given_in_words_are_marked():
    for item in ("Figure 2b", "Figure 2c", "Model Cutoff"):
        assert load_published("rethinking-cnn", item)["approximate"].all()
    for item in ("Table I", "Table II", "Table III"):
        assert not load_published("rethinking-cnn", item)["approximate"].any()


def test_unknown_study_and_item_name_the_choices():
    with pytest.raises(UserError, match="unknown study 'rethinking-cn': did you mean 'rethinking-cnn'"):
        load_published("rethinking-cn")
    many = "unknown item of rethinking-cnn 'Table IV': did you mean 'Table I' or 'Table II' or 'Table III'"
    with pytest.raises(UserError, match=many):
        load_published("rethinking-cnn", "Table IV")
    few = load_published("thirteen-classes-padding")["item"].unique()
    with pytest.raises(UserError, match=f"unknown item of .* 'Sektion 4': did you .* choose from {', '.join(few)}$"):
        load_published("thirteen-classes-padding", "Sektion 4")


def ours(**columns: object) -> pd.DataFrame:
    return pd.DataFrame({"data": "esc50", "backbone": "densenet201", "accuracy_std": np.nan, **columns})


def test_beside_sets_both_numbers_of_a_condition_in_one_row():
    best = {"accuracy_best_epoch": [0.5, 0.7], "accuracy_best_epoch_std": [0.01, 0.02]}
    frame = ours(condition=["random", "pretrained"], accuracy=[0.4, 0.6], **best)
    rows = join_with_published(frame, "rethinking-cnn", "Table I")
    assert len(rows) == 18
    mine = rows[rows["ours"].notna()].set_index("condition")
    assert mine.loc["pretrained", ["ours", "ours_std", "published"]].tolist() == [0.7, 0.02, 0.9116]
    assert mine.loc["random", ["ours", "ours_std", "published"]].tolist() == [0.5, 0.01, 0.725]
    assert "Table I, row DenseNet" in mine.loc["random", "source"]


def test_beside_keeps_what_only_one_side_has():
    frame = ours(data="instruments", condition=["pretrained"], accuracy=[0.6])
    rows = join_with_published(frame, "rethinking-cnn", "Table I")
    assert rows["published"].notna().sum() == 18
    assert rows.iloc[-1][["data", "ours"]].tolist() == ["instruments", 0.6]
    assert np.isnan(rows.iloc[-1]["published"])
    assert rows["ours"].notna().sum() == 1


def test_beside_sets_a_change_beside_its_published_bounds():
    frame = ours(condition=["none", "block2", "block3"], accuracy=[0.9, 0.88, 0.8], delta_best_epoch=[0.0, -0.02, -0.1])
    rows = join_with_published(frame, "rethinking-cnn", "Figure 2c")
    by_metric = rows.set_index(["condition", "metric"])
    assert by_metric.loc[("block2", "delta_low"), "ours"] == -0.02
    assert by_metric.loc[("block2", "delta_high"), "published"] == -0.02
    assert by_metric.loc[("block3", "delta"), ["ours", "published"]].tolist() == [-0.1, -0.1]
    assert rows.loc[rows["published"].notna(), "approximate"].all()


def test_beside_refuses_two_rows_of_one_condition():
    frame = ours(condition=["random", "random"], accuracy=[0.5, 0.7])
    with pytest.raises(ValueError, match="more than one row for esc50, densenet201, random"):
        join_with_published(frame, "rethinking-cnn", "Table I")


NUMBERS = """item,data,backbone,condition,metric,epoch,value,std,approximate
T,esc50,densenet201,none,accuracy,best,0.9,,False
T,esc50,densenet201,none,f1,,0.8,,False
T,esc50,densenet201,none,parameters,,62000000,,True
T,esc50,densenet201,none,seconds_low,,2400,,True
T,esc50,,block3,delta,best,-0.1,,True
T,esc50,,none,accuracy,,0.95,,True
T,esc50,densenet201,,accuracy,,0.5,,False
"""


@pytest.fixture
def report(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "published.csv").write_text(NUMBERS)
    return tmp_path


def test_any_metric_is_matched_and_only_of_the_same_epoch(report):
    own = {"accuracy": 0.7, "accuracy_best_epoch": 0.75, "f1": 0.6, "parameters": 5e7, "seconds": 100.0}
    rows = join_with_published(
        ours(condition=["none"], **{name: [value] for name, value in own.items()}), "mine", "T", folder=report
    )
    of_all = rows[rows["backbone"] == "all (1)"].iloc[0]
    assert (of_all["ours"], of_all["published"]) == (0.7, 0.95)  # a report that names no epoch: our last
    named = rows[(rows["backbone"] == "densenet201") & (rows["condition"] == "none")].set_index("metric")
    assert named["ours"].to_dict() == {"accuracy": 0.75, "f1": 0.6, "parameters": 5e7, "seconds_low": 100.0}
    assert rows[rows["condition"] == ""]["ours"].isna().all()  # no condition of ours is without a name


def test_a_best_epoch_is_never_beside_our_last(report):
    rows = join_with_published(ours(condition=["none"], accuracy=[0.7]), "mine", "T", folder=report)
    best = rows[rows["epoch"] == "best"]
    assert len(best)
    assert best["ours"].isna().all()
    table = join_with_published(ours(condition=["ensemble"], accuracy=[0.9]), "rethinking-cnn", "Table II")
    [mine] = table[table["ours"].notna()].to_dict("records")
    assert mine["epoch"] == "last"
    assert np.isnan(mine["published"])


def test_a_statement_about_all_has_the_mean_change_and_the_best_of_the_rest(report):
    frame = ours(
        condition=["none", "block3", "none", "block3"],
        accuracy=[0.7, 0.6, 0.8, 0.6],
        delta_best_epoch=[0.0, -0.1, 0.0, -0.2],
    ).assign(backbone=["resnet50", "resnet50", "densenet201", "densenet201"])
    rows = join_with_published(frame, "mine", "T", folder=report)
    every = rows[rows["backbone"] == "all (2)"].set_index("metric")["ours"]
    assert every.to_dict() == pytest.approx({"delta": -0.15, "accuracy": 0.8})


def test_what_hangs_on_no_data_set_stands_beside_any(report):
    frame = pd.DataFrame({"data": "", "backbone": "densenet201", "condition": ["none"], "parameters": [5e7]})
    rows = join_with_published(average_over_grid(frame), "mine", "T", folder=report)
    assert rows[rows["ours"].notna()][["metric", "ours"]].to_numpy().tolist() == [["parameters", 5e7]]


@pytest.mark.parametrize("data", ["gtzan", "esc50", "urbansound8k"])
def test_settings_that_were_found_stand_beside_the_reports(data):
    frame = ours(data=data, condition=["best"], accuracy=[0.9], lr=[1e-3], weight_decay=[1e-3])
    rows = join_with_published(average_over_grid(frame), "rethinking-cnn", "Section IV-A")
    found = rows[rows["ours"].notna()].set_index("metric")[["ours", "published"]]
    assert found.T.to_dict("list") == {"lr": [1e-3, 1e-4], "weight_decay": [1e-3, 1e-3]}


@pytest.mark.parametrize(
    ("metric", "value", "shown"),
    [
        ("accuracy", 0.914, "91.4"),
        ("weighted_f1", 0.5, "50.0"),
        ("delta_low", -0.03, "−3.0"),
        ("parameters", 10_339_607, "10,339,607"),
        ("parameters_with_statistics", 2_185_101, "2,185,101"),
        ("clips", 85, "85"),
        ("clips", 10_000, "10,000"),
        ("seconds_high", 2700, "45 min 00 s"),
        ("time_to_converge", 75, "1 min 15 s"),
        ("prediction_ms", 0.01234, "0.012"),
        ("prediction_ms", 1234.5, "1234"),
        ("parameters_with_statistics", 2_185_101, "2,185,101"),
        ("epochs", 17, "17"),
        ("best_epoch", 12.5, "12.5"),
        ("input_megabytes", 0.57, "0.57"),
        ("map", 0.25, "0.25"),
    ],
)
def test_a_metric_is_written_as_its_name_says(metric, value, shown):
    assert format_metric(value, metric) == shown


OF_OTHERS = {"es-resnet", "sturm-2013", "gwardys-2014"}


@pytest.mark.parametrize(
    ("item", "reference", "condition", "numbers"),
    [
        ("Abstract", "single", "ensemble", 2),
        ("Section I", "pretrained", "random", 1),
        ("Section IV-B", "pretrained", "random", 3),
        ("Section IV-C", "single", "ensemble", 2),
        ("Section IV-D", "single", "ensemble", 3),
    ],
)
def test_what_the_text_says_stands_beside_ours(item, reference, condition, numbers):
    """Every number of the text but those of other people's networks, where our tables are as the report's."""
    where = itertools.product(["gtzan", "esc50", "urbansound8k"], ["densenet201", "resnet50", "inception_v3"])
    rows = [
        {"data": data, "backbone": backbone, "accuracy": 0.7, "condition": name} | best
        for data, backbone in where
        for name, best in (
            (reference, {"accuracy_best_epoch": 0.75, "delta_best_epoch": 0.0}),
            (condition, {"accuracy_best_epoch": 0.8, "delta_best_epoch": 0.05}),
        )
    ]
    stated = join_with_published(pd.DataFrame(rows), "rethinking-cnn", item).dropna(subset=["published"])
    assert stated["ours"].notna().sum() == numbers
    assert set(stated.loc[stated["ours"].isna(), "condition"]) <= OF_OTHERS


def test_a_bound_of_a_change_is_named_in_words():
    metrics = ("delta_high", "seconds_low", "lr", "weighted_f1", "delta")
    assert [metric_title(name) for name in metrics] == [
        "change, at most", "seconds, at least", "learning rate", "weighted f1", "change"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "mine/published.csv lacks the columns item, data, metric, value"),
        ("item,data,metric,value\nT,esc50,accuracy,high\n", "mine/published.csv: "),
        ("", "mine/published.csv: "),
    ],
)
def test_a_file_that_is_wrong_is_one_line_and_stops_no_one_else(report, text, message):
    (report / "mine" / "published.csv").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_published("mine", folder=report)
    assert "\n" not in str(caught.value)
    assert load_all_published(report) == {}
