import functools
import itertools

import numpy as np
import pandas as pd
import pytest

from ablations import STUDIES_FOLDER
from analysis.output.number_format import format_metric
from analysis.published.numbers import (
    average_over_grid,
    join_with_published,
    list_published,
    load_all_published,
    load_published,
)
from core.errors import UserError

COLUMNS = ["study", "item", "data", "backbone", "condition", "metric", "epoch", "value", "std", "approximate", "source"]
load = functools.partial(load_published, folder=STUDIES_FOLDER)
join = functools.partial(join_with_published, folder=STUDIES_FOLDER)


def value(study, item, **where):
    numbers = load(study, item)
    for column, content in where.items():
        numbers = numbers[numbers[column] == content]
    (number,) = numbers["value"]
    return number


def test_load_published_every_study_is_complete():
    assert list_published(STUDIES_FOLDER) == (
        "genres",
        "nsynth-transfer",
        "rethinking-cnn",
        "thirteen-classes-mobile",
        "thirteen-classes-padding",
    )
    for study in list_published(STUDIES_FOLDER):
        numbers = load(study)
        assert list(numbers.columns) == COLUMNS
        assert (numbers["study"] == study).all()
        assert numbers[["item", "data", "metric", "source"]].ne("").all(axis=None)
        assert np.isfinite(numbers["value"]).all()
        assert not numbers.duplicated(COLUMNS[:6]).any()


def test_published_numbers_equal_the_reports():
    assert value("rethinking-cnn", "Table I", data="esc50", backbone="resnet50", condition="random") == 0.674
    table = load("rethinking-cnn", "Table II")
    single = table[(table["data"] == "gtzan") & (table["backbone"] == "resnet50") & (table["condition"] == "single")]
    assert single[["value", "std"]].to_numpy().tolist() == [[0.9109, 0.0086]]
    assert value("nsynth-transfer", "Figure 5", metric="parameters") == 6_129_834
    assert value("thirteen-classes-padding", "Section 4", condition="loop", metric="f1") == 0.8288


def test_published_confusion_matrix_adds_up():
    cells = load("nsynth-transfer", "Figure 3")
    cells[["actual", "predicted"]] = cells["condition"].str.split(" as ", expand=True)
    matrix = cells.pivot(index="actual", columns="predicted", values="value")
    inner = matrix.drop(index="All", columns="All")
    assert (inner.sum(axis=1) == matrix["All"].drop("All")).all()
    assert (inner.sum(axis=0) == matrix.loc["All"].drop("All")).all()
    # The diagonal gives 80.2 %, but the table of the report has 81.4 %. Both are stored as printed.
    assert np.trace(inner) / inner.sum(axis=None) == 0.8018
    assert value("nsynth-transfer", "Table 1", backbone="resnet18", metric="accuracy") == 0.814


def test_load_published_unknown_name_suggests_the_nearest():
    with pytest.raises(UserError, match="'rethinking-cn': did you mean 'rethinking-cnn'"):
        load("rethinking-cn")
    with pytest.raises(UserError, match="'Table IV': did you mean 'Table I' or 'Table II' or 'Table III'"):
        load("rethinking-cnn", "Table IV")
    few = load("thirteen-classes-padding")["item"].unique()
    with pytest.raises(UserError, match=f"'Sektion 4': did you .* choose from {', '.join(few)}$"):
        load("thirteen-classes-padding", "Sektion 4")


def make_frame(**columns: object) -> pd.DataFrame:
    return pd.DataFrame({"data": "esc50", "backbone": "densenet201", "accuracy_std": np.nan, **columns})


def test_join_same_condition_gives_one_row():
    best = {"accuracy_best_epoch": [0.5, 0.7], "accuracy_best_epoch_std": [0.01, 0.02]}
    frame = make_frame(condition=["random", "pretrained"], accuracy=[0.4, 0.6], **best)
    rows = join(frame, "rethinking-cnn", "Table I")
    assert len(rows) == 18
    mine = rows[rows["ours"].notna()].set_index("condition")
    assert mine.loc["pretrained", ["ours", "ours_std", "published"]].tolist() == [0.7, 0.02, 0.9116]
    assert mine.loc["random", ["ours", "ours_std", "published"]].tolist() == [0.5, 0.01, 0.725]
    assert "Table I, row DenseNet" in mine.loc["random", "source"]


def test_join_unmatched_numbers_have_own_rows():
    frame = make_frame(data="instruments", condition=["pretrained"], accuracy=[0.6])
    rows = join(frame, "rethinking-cnn", "Table I")
    assert rows["published"].notna().sum() == 18
    assert rows.iloc[-1][["data", "ours"]].tolist() == ["instruments", 0.6]
    assert np.isnan(rows.iloc[-1]["published"])
    assert rows["ours"].notna().sum() == 1


def test_join_change_matches_published_bounds():
    frame = make_frame(
        condition=["none", "block2", "block3"], accuracy=[0.9, 0.88, 0.8], delta_best_epoch=[0.0, -0.02, -0.1]
    )
    rows = join(frame, "rethinking-cnn", "Figure 2c")
    by_metric = rows.set_index(["condition", "metric"])
    assert by_metric.loc[("block2", "delta_low"), "ours"] == -0.02
    assert by_metric.loc[("block2", "delta_high"), "published"] == -0.02
    assert by_metric.loc[("block3", "delta"), ["ours", "published"]].tolist() == [-0.1, -0.1]
    assert rows.loc[rows["published"].notna(), "approximate"].all()


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
def studies(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "published.csv").write_text(NUMBERS)
    return tmp_path


def test_join_matches_every_metric_at_the_same_epoch(studies):
    own = {"accuracy": 0.7, "accuracy_best_epoch": 0.75, "f1": 0.6, "parameters": 5e7, "seconds": 100.0}
    rows = join(
        make_frame(condition=["none"], **{name: [value] for name, value in own.items()}), "mine", "T", folder=studies
    )
    all_backbones = rows[rows["backbone"] == "all (1)"].iloc[0]
    assert (all_backbones["ours"], all_backbones["published"]) == (0.7, 0.95)  # without an epoch: our last
    named = rows[(rows["backbone"] == "densenet201") & (rows["condition"] == "none")].set_index("metric")
    assert named["ours"].to_dict() == {"accuracy": 0.75, "f1": 0.6, "parameters": 5e7, "seconds_low": 100.0}
    assert rows[rows["condition"] == ""]["ours"].isna().all()


def test_join_best_epoch_never_matches_our_last(studies):
    rows = join(make_frame(condition=["none"], accuracy=[0.7]), "mine", "T", folder=studies)
    best = rows[rows["epoch"] == "best"]
    assert len(best)
    assert best["ours"].isna().all()
    table = join(make_frame(condition=["ensemble"], accuracy=[0.9]), "rethinking-cnn", "Table II")
    [mine] = table[table["ours"].notna()].to_dict("records")
    assert mine["epoch"] == "last"
    assert np.isnan(mine["published"])


def test_join_all_backbones_uses_mean_change_and_best_accuracy(studies):
    frame = make_frame(
        condition=["none", "block3", "none", "block3"],
        accuracy=[0.7, 0.6, 0.8, 0.6],
        delta_best_epoch=[0.0, -0.1, 0.0, -0.2],
    ).assign(backbone=["resnet50", "resnet50", "densenet201", "densenet201"])
    rows = join(frame, "mine", "T", folder=studies)
    joined = rows[rows["backbone"] == "all (2)"].set_index("metric")["ours"]
    assert joined.to_dict() == pytest.approx({"delta": -0.15, "accuracy": 0.8})


def test_join_number_without_data_set_matches_any(studies):
    frame = pd.DataFrame({"data": "", "backbone": "densenet201", "condition": ["none"], "parameters": [5e7]})
    rows = join(average_over_grid(frame), "mine", "T", folder=studies)
    assert rows[rows["ours"].notna()][["metric", "ours"]].to_numpy().tolist() == [["parameters", 5e7]]


def test_join_best_settings_match_published_settings():
    frame = make_frame(data="gtzan", condition=["best"], accuracy=[0.9], lr=[1e-3], weight_decay=[1e-3])
    rows = join(average_over_grid(frame), "rethinking-cnn", "Section IV-A")
    settings = rows[rows["ours"].notna()].set_index("metric")[["ours", "published"]]
    assert settings.T.to_dict("list") == {"lr": [1e-3, 1e-4], "weight_decay": [1e-3, 1e-3]}


def test_format_metric_follows_the_name():
    formatted = {
        ("accuracy", 0.914): "91.4",
        ("delta_low", -0.03): "−3.0",
        ("parameters", 10_339_607): "10,339,607",
        ("clips", 10_000): "10,000",
        ("seconds_high", 2700): "45 min 00 s",
        ("prediction_ms", 0.01234): "0.012",
        ("epochs", 17): "17",
        ("input_megabytes", 0.57): "0.57",
    }
    assert {key: format_metric(key[1], key[0]) for key in formatted} == formatted


OTHER_AUTHORS = {"es-resnet", "sturm-2013", "gwardys-2014"}


@pytest.mark.parametrize(
    ("item", "reference", "condition", "numbers"),
    [
        ("Abstract", "single", "ensemble", 2),
        ("Section IV-B", "pretrained", "random", 3),
        ("Section IV-D", "single", "ensemble", 3),
    ],
)
def test_join_numbers_in_the_text_match_ours(item, reference, condition, numbers):
    """Our tables match every number of the text, except those of networks by other authors."""
    where = itertools.product(["gtzan", "esc50", "urbansound8k"], ["densenet201", "resnet50", "inception_v3"])
    rows = [
        {"data": data, "backbone": backbone, "accuracy": 0.7, "condition": name} | best
        for data, backbone in where
        for name, best in (
            (reference, {"accuracy_best_epoch": 0.75, "delta_best_epoch": 0.0}),
            (condition, {"accuracy_best_epoch": 0.8, "delta_best_epoch": 0.05}),
        )
    ]
    published = join(pd.DataFrame(rows), "rethinking-cnn", item).dropna(subset=["published"])
    assert published["ours"].notna().sum() == numbers
    assert set(published.loc[published["ours"].isna(), "condition"]) <= OTHER_AUTHORS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "mine/published.csv: add the columns item, data, metric, value"),
        ("item,data,metric,value\nT,esc50,accuracy,high\n", "mine/published.csv: "),
    ],
)
def test_load_published_damaged_file_raises_one_line(studies, text, message):
    (studies / "mine" / "published.csv").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load("mine", folder=studies)
    assert "\n" not in str(caught.value)
    assert load_all_published(studies) == {}
