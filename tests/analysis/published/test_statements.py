"""Statements in words, examined with our rows."""

import math

import pandas as pd
import pytest

from analysis.published.matching import OwnRow
from analysis.published.numbers import load_published
from analysis.published.statements import examine_statements

COLUMNS = "item,data,backbone,condition,metric,value,printed,claim,compared-with,epoch\n"


@pytest.fixture
def examine(tmp_path):
    """Return a function that examines one statement; it returns our values and the finding of each row."""

    def run(statement: str, rows: list[OwnRow], **options: bool) -> list[tuple[str, str]]:
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / "published.csv").write_text(COLUMNS + statement + "\n")
        statements: pd.DataFrame = load_published("mine", folder=tmp_path)
        found = examine_statements(statements, rows, {}, **{"in_study": True, **options})
        return [(row["ours"], row["finding"]) for row in found]

    return run


def row(condition: str, value: float, width: float = math.nan, *, backbone: str = "net", **more: object) -> OwnRow:
    values = {"accuracy": value, "accuracy_low": value - width, "accuracy_high": value + width} | more
    return OwnRow(values, "esc50", backbone, condition, is_published_set=True)


BATCH = "T,esc50,net,64,accuracy,,batches of 64 are best,highest,,"


def test_highest_holds_if_the_intervals_do_not_overlap(examine) -> None:
    rows = [row("32", 0.5, 0.01), row("64", 0.6, 0.01), row("128", 0.55, 0.01)]
    assert examine(BATCH, rows) == [("accuracy: 64: 60.0%; 32: 50.0%; 128: 55.0%", "holds")]


def test_highest_does_not_hold_if_one_is_clearly_higher(examine) -> None:
    [(_, finding)] = examine(BATCH, [row("32", 0.7, 0.01), row("64", 0.6, 0.01), row("128", 0.599, 0.01)])
    assert finding == "does not hold"


@pytest.mark.parametrize("width", [0.2, math.nan])
def test_overlapping_intervals_and_single_runs_are_not_clear(examine, width: float) -> None:
    [(_, finding)] = examine(BATCH, [row("32", 0.5, width), row("64", 0.6, width)])
    assert finding == "not clear"


def test_statement_without_our_rows_is_not_measured(examine) -> None:
    assert examine(BATCH, []) == [("", "not measured")]
    assert examine(BATCH, [row("64", 0.6, 0.01)]) == [("", "not measured")]  # nothing to compare with
    stated = "T,esc50,net,64,accuracy,,it looks good,stated,,"
    assert examine(stated, [row("64", 0.6, 0.01), row("32", 0.5, 0.01)]) == [("", "not measured")]


def test_below_compares_with_all_that_it_names(examine) -> None:
    statement = "T,esc50,net,base,accuracy,,the net is the worst,below,other / base; third / base,"
    rows = [row("base", 0.5, 0.01), row("base", 0.6, 0.01, backbone="other"), row("base", 0.7, 0.01, backbone="third")]
    assert examine(statement, rows) == [("accuracy: net, base: 50.0%; other, base: 60.0%; third, base: 70.0%", "holds")]
    assert examine(statement, [*rows[:2], row("base", 0.4, 0.01, backbone="third")])[0][1] == "does not hold"
    assert examine(statement, rows[:2]) == [("", "not measured")]  # the third network is missing


def test_above_another_metric_of_the_same_row(examine) -> None:
    statement = "T,esc50,net,base,training_accuracy,,the net over-fits,above,accuracy,"
    own = row("base", 0.5, 0.01, training_accuracy=0.9, training_accuracy_low=0.88, training_accuracy_high=0.92)
    assert examine(statement, [own]) == [("training accuracy: base: 90.0%; accuracy: 50.0%", "holds")]


def test_numbers_of_parameters_are_exact(examine) -> None:
    statement = "T,esc50,net,base,parameters,,fewer parameters,below,other / base,"
    rows = [row("base", 0.5, parameters=6), row("base", 0.5, backbone="other", parameters=60)]
    assert examine(statement, rows)[0][1] == "holds"


def test_other_data_is_named_in_a_study_and_not_used_by_a_single_command(tmp_path, examine) -> None:
    rows = [OwnRow({"accuracy": value}, "instruments", "net", name) for name, value in (("64", 0.6), ("32", 0.5))]
    assert examine(BATCH, rows)[0][1] == "not clear"
    statements = load_published("mine", folder=tmp_path)
    [found] = examine_statements(statements, rows, {}, in_study=True)
    assert found["differs_in"] == "data instruments instead of esc50"
    assert examine(BATCH, rows, in_study=False) == [("", "not measured")]
