import functools
from pathlib import Path

import numpy as np
import pytest

from ablations import STUDIES_FOLDER
from analysis.output.number_format import format_metric
from analysis.published.numbers import (
    OTHER_COLUMNS,
    TEXT_COLUMNS,
    list_published,
    load_all_published,
    load_published,
    setting_columns,
)
from analysis.published.settings import parse_setting
from core.errors import UserError

load = functools.partial(load_published, folder=STUDIES_FOLDER)


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
        assert {"study", *TEXT_COLUMNS, *OTHER_COLUMNS} < set(numbers.columns)
        assert (numbers["study"] == study).all()
        assert numbers[["item", "data", "metric", "source"]].ne("").all(axis=None)
        assert (np.isfinite(numbers["value"]) == (numbers["claim"] == "")).all()
        for column in setting_columns(numbers):  # a setting that is never stated needs no column
            stated = set(numbers[column]) - {""}
            assert stated
            assert [parse_setting(column, text) for text in stated]


def test_published_numbers_equal_the_reports():
    assert value("rethinking-cnn", "Table I", data="esc50", backbone="resnet50", condition="random") == 0.674
    table = load("rethinking-cnn", "Table II")
    single = table[(table["data"] == "gtzan") & (table["backbone"] == "resnet50") & (table["condition"] == "single")]
    assert single[["value", "std"]].to_numpy().tolist() == [[0.9109, 0.0086]]
    assert value("nsynth-transfer", "Figure 5", metric="parameters") == 6_129_834
    assert value("thirteen-classes-padding", "Section 4", condition="loop", metric="f1") == 0.8288


def test_contradictions_of_the_reports_are_named():
    named = {
        (study, row["item"], row["backbone"], row["condition"])
        for study in list_published(STUDIES_FOLDER)
        for row in load(study).to_dict("records")
        if row["contradiction"]
    }
    assert {
        ("nsynth-transfer", "Table 1", "resnet18", "base"),  # 81.4 against 80.18 %
        ("nsynth-transfer", "Figure 4", "alexnet", "base"),  # frozen layers against no non-trainable parameters
        ("genres", "Section II-E", "vgg16", "none"),  # better without augmentation,
        ("genres", "Section III-A", "vgg16", "rotate"),  # against best with it
        ("genres", "Section II-D", "convolneunet", "base"),  # 0.4600 against 0.5223
        ("thirteen-classes-mobile", "Observations", "resnet18_dense", "base"),  # 88.5 against not above 88 %
        ("rethinking-cnn", "Section IV-D", "densenet201", "ensemble"),  # 92.8 against 92.89 %
        ("rethinking-cnn", "Section IV-C", "resnet50", "ensemble"),  # a drop against an improvement
    } <= named


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


NUMBERS = """item,data,backbone,condition,metric,epoch,value,std,approximate
T,esc50,densenet201,none,accuracy,best,0.9,0.01,false
T,esc50,densenet201,none,parameters,,62000000,,true
"""


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "published.csv").write_text(NUMBERS)
    return tmp_path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("item,", "itm,", "mine/published.csv: add the column item"),
        ("std,", "sdt,", "unknown column of mine/published.csv 'sdt': did you mean 'std'"),
        ("best,0.9,", "best,57,", "row 1, column value: 57: accuracy is a fraction from 0 to 1; write a percentage p"),
        ("best,0.9,", "best,57%,", "row 1, column value: '57%' is not a finite number; give .* 0.57 for 57%"),
        ("best,0.9,", "best,-inf,", "row 1, column value: '-inf' is not a finite number"),
        ("best,0.9,", "best,nan,", "row 1, column value: 'nan' is not a finite number"),
        ("best,0.9,", "best,,", "row 1, column value: '' is not a finite number"),
        ("0.01,false", "-1,false", "row 1, column std: -1: a standard deviation cannot be negative"),
        ("0.01,false", "1.2,false", "row 1, column std: 1.2: accuracy is a fraction"),
        (",62000000,", ",-62,", "row 2, column value: -62: parameters cannot be negative"),
        (",true", ",maybe", "row 2, column approximate: 'maybe': give true or false"),
        ("none,accuracy", "none,acuracy", "row 1, column metric: unknown metric 'acuracy': did you mean 'accuracy'"),
        ("best,0.9", "bst,0.9", "row 1, column epoch: 'bst': give best"),
        ("none,parameters,,62000000,,true", "none,accuracy,best,0.8,,false", "row 2: repeats row 1"),
        ("T,esc50,densenet201,none,parameters,,62000000,,true", "U,esc50,densenet201,none,accuracy,best,0.8,,false",
         "row 2, column value: 0.8 contradicts 0.9 in row 1; correct one of them, or name the contradiction"),
    ],
)  # fmt: skip
def test_load_published_impossible_value_names_row_and_column(studies: Path, old: str, new: str, message: str) -> None:
    assert NUMBERS.count(old) == 1
    (studies / "mine" / "published.csv").write_text(NUMBERS.replace(old, new))
    with pytest.raises(UserError, match=message) as caught:
        load("mine", folder=studies)
    assert "\n" not in str(caught.value)
    assert load_all_published(studies) == {}


def test_load_published_wrong_setting_names_row_and_column(studies: Path) -> None:
    rows = [line + cell for line, cell in zip(NUMBERS.splitlines(), (",epochs", ",70", ",seventy"), strict=True)]
    (studies / "mine" / "published.csv").write_text("\n".join(rows))
    with pytest.raises(UserError, match="row 2, column epochs: 'seventy' is not a value of this setting"):
        load("mine", folder=studies)


def test_load_published_declared_contradiction_is_read(studies: Path) -> None:
    text = (
        NUMBERS.replace("approximate", "approximate,contradiction").replace("false", "false,").replace("true", "true,")
    )
    other = "U,esc50,densenet201,none,accuracy,best,0.8,,false,T has 90%\n"
    (studies / "mine" / "published.csv").write_text(text + other)
    assert load("mine", "U", folder=studies)["contradiction"].tolist() == ["T has 90%"]


def test_load_published_pipe_ends_at_once(studies: Path) -> None:
    import os

    (studies / "mine" / "published.csv").unlink()
    os.mkfifo(studies / "mine" / "published.csv")
    with pytest.raises(UserError, match="mine/published.csv: is not a file"):
        load("mine", folder=studies)


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
