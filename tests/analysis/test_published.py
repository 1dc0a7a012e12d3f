import numpy as np
import pandas as pd
import pytest

from analysis.published import beside, published, studies
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
    numbers = published(study, item)
    for column, wanted in where.items():
        numbers = numbers[numbers[column] == wanted]
    (found,) = numbers["value"]
    return found


def test_every_report_is_there_and_names_its_sources():
    assert studies() == (
        "genres",
        "nsynth-transfer",
        "rethinking-cnn",
        "thirteen-classes-mobile",
        "thirteen-classes-padding",
    )
    for study in studies():
        numbers = published(study)
        assert list(numbers.columns) == COLUMNS
        assert (numbers["study"] == study).all()
        assert numbers[["item", "data", "metric", "source"]].ne("").all(axis=None)
        assert np.isfinite(numbers["value"]).all()
        assert not numbers.duplicated(COLUMNS[:6]).any()


@pytest.mark.parametrize("study", studies())
def test_fractions_are_fractions(study):
    numbers = published(study)
    fractions = numbers[numbers["metric"].str.fullmatch(r".*(accuracy|precision|recall|f1|score)")]
    assert len(fractions)
    assert fractions["value"].between(0, 1).all()


def test_spot_numbers_of_the_tables():
    assert value("rethinking-cnn", "Table I", data="esc50", backbone="resnet50", condition="random") == 0.674
    table = published("rethinking-cnn", "Table II")
    single = table[(table["data"] == "gtzan") & (table["backbone"] == "resnet50") & (table["condition"] == "single")]
    assert single[["value", "std"]].to_numpy().tolist() == [[0.9109, 0.0086]]
    assert value("nsynth-transfer", "Figure 5", metric="parameters") == 6_129_834
    assert value("thirteen-classes-padding", "Section 4", condition="loop", metric="f1") == 0.8288


def test_the_tables_of_one_report_agree_with_each_other():
    one, two = published("rethinking-cnn", "Table I"), published("rethinking-cnn", "Table II")
    keys = ["data", "backbone"]
    both = one[one["condition"] == "pretrained"].merge(two[two["condition"] == "single"], on=keys, validate="1:1")
    assert len(both) == 9
    assert (both["value_x"] == both["value_y"]).all()


def test_the_confusion_matrix_adds_up():
    cells = published("nsynth-transfer", "Figure 3")
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
        assert published("rethinking-cnn", item)["approximate"].all()
    for item in ("Table I", "Table II", "Table III"):
        assert not published("rethinking-cnn", item)["approximate"].any()


def test_unknown_study_and_item_name_the_choices():
    with pytest.raises(UserError, match="unknown study 'rethinking-cn': did you mean 'rethinking-cnn'"):
        published("rethinking-cn")
    with pytest.raises(UserError, match="unknown item of rethinking-cnn 'Table IV': .*choose from Table I, Table II"):
        published("rethinking-cnn", "Table IV")


def ours(**columns: object) -> pd.DataFrame:
    return pd.DataFrame({"data": "esc50", "backbone": "densenet201", "accuracy_std": np.nan, **columns})


def test_beside_sets_both_numbers_of_a_condition_in_one_row():
    best = {"accuracy_best_epoch": [0.5, 0.7], "accuracy_best_epoch_std": [0.01, 0.02]}
    frame = ours(condition=["random", "pretrained"], accuracy=[0.4, 0.6], **best)
    rows = beside(frame, "rethinking-cnn", "Table I")
    assert len(rows) == 18
    mine = rows[rows["ours"].notna()].set_index("condition")
    assert mine.loc["pretrained", ["ours", "ours_std", "published"]].tolist() == [0.7, 0.02, 0.9116]
    assert mine.loc["random", ["ours", "ours_std", "published"]].tolist() == [0.5, 0.01, 0.725]
    assert "Table I, row DenseNet" in mine.loc["random", "source"]


def test_beside_keeps_what_only_one_side_has():
    frame = ours(data="instruments", condition=["pretrained"], accuracy=[0.6])
    rows = beside(frame, "rethinking-cnn", "Table I")
    assert rows["published"].notna().sum() == 18
    assert rows.iloc[-1][["data", "ours"]].tolist() == ["instruments", 0.6]
    assert np.isnan(rows.iloc[-1]["published"])
    assert rows["ours"].notna().sum() == 1


def test_beside_sets_a_change_beside_its_published_bounds():
    frame = ours(condition=["none", "block2", "block3"], accuracy=[0.9, 0.88, 0.8], delta_best_epoch=[0.0, -0.02, -0.1])
    rows = beside(frame, "rethinking-cnn", "Figure 2c")
    by_metric = rows.set_index(["condition", "metric"])
    assert by_metric.loc[("block2", "delta_low"), "ours"] == -0.02
    assert by_metric.loc[("block2", "delta_high"), "published"] == -0.02
    assert by_metric.loc[("block3", "delta"), ["ours", "published"]].tolist() == [-0.1, -0.1]
    assert rows.loc[rows["published"].notna(), "approximate"].all()


def test_beside_refuses_two_rows_of_one_condition():
    frame = ours(condition=["random", "random"], accuracy=[0.5, 0.7])
    with pytest.raises(ValueError, match="more than one row for esc50, densenet201, random"):
        beside(frame, "rethinking-cnn", "Table I")
