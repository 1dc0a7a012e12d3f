"""Which of our numbers stand beside published ones, and what the tables say that differs."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from finished_runs import finish, plan_of

from analysis.metrics.condition_summary import summarise_conditions
from analysis.output.output_folder import OutputFolder
from analysis.published.comparison import write_published_comparison
from core.config.run import Run
from core.datasets import load_dataset
from core.plan import Plan, PlannedRun
from core.session import Session

PUBLISHED = """item,row,column,data,backbone,condition,metric,epoch,value,printed,weights,epochs,lr,freeze,differs
T,Net A,Their set,esc50,resnet18,none,accuracy,,0.9,90.00%,imagenet,70,1e-3,none,
T,Net A,Frozen,esc50,resnet18,block2,accuracy,,0.8,80%,imagenet,70,1e-3,block2,another test fold
T,Net A,F1,esc50,resnet18,none,f1,,0.9,0.9,imagenet,70,1e-3,none,
T,Net A,Parameters,esc50,resnet18,none,parameters,,9,9,,,,,
T,Net B,Their set,esc50,resnet50,none,accuracy,,0.7,70%,imagenet,70,1e-3,none,
U,Only,Accuracy,esc50,vgg16,rotate,accuracy,,0.5,50%,imagenet,8,,,
"""
DIFFERENCE = "data declared as esc50, epochs 8 instead of 70"


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    (tmp_path / "studies" / "mine").mkdir(parents=True)
    (tmp_path / "studies" / "mine" / "published.csv").write_text(PUBLISHED)
    return tmp_path / "studies"


class Comparison:
    """Writes the comparison of finished runs with an item of the study `mine`."""

    def __init__(self, session: Session, studies: Path, folder: Path) -> None:
        self.session, self.studies, self.folder = session, studies, folder

    def __call__(
        self, runs: Mapping[str, list[Run]], item: str = "T", *, published_as: str = "esc50", in_study: bool = True
    ) -> tuple[pd.DataFrame, pd.DataFrame] | None:
        """Return the table as it is shown, and its numbers; None if there is no table."""
        rng = np.random.default_rng(0)
        for part in runs.values():
            for run in part:
                targets = np.arange(30) % 3
                finish(self.session.store, run, rng.normal(size=(30, 3)) + np.eye(3)[targets], targets)
        plan = plan_of(runs)
        results = OutputFolder(plan, self.session, self.folder, published_as=published_as)
        frame = summarise_conditions(plan, self.session.store)
        write_published_comparison(results, frame, "mine", item, title="Mine", folder=self.studies, in_study=in_study)
        if not (self.folder / "published.csv").exists():
            return None
        return (
            pd.read_csv(self.folder / "published.csv", keep_default_na=False).set_index("row"),
            pd.read_csv(self.folder / "published-numbers.csv", keep_default_na=False, na_values={"ours": [""]}),
        )


@pytest.fixture
def compare(session: Session, studies: Path, tmp_path: Path) -> Comparison:
    return Comparison(session, studies, tmp_path / "results")


def make_run(**changes: object) -> Run:
    run = Run().replace(model__backbone="resnet18", data__name="folder", data__content="c0ffee")
    return run.replace(**changes)


def test_table_has_the_shape_of_the_report_and_lists_what_differs(compare: Comparison) -> None:
    table, numbers = compare({"none": [make_run()], "block2": [make_run(model__freeze="block2")]})
    ours = numbers.set_index(["backbone", "condition", "metric"])["ours"]
    assert table.columns.tolist() == ["Their set", "Frozen", "F1", "Parameters", "Differs in"]
    assert table.loc["Net A", "Their set"] == f"{100 * ours['resnet18', 'none', 'accuracy']:.2f}% / 90.00%"
    assert table.loc["Net A", "Frozen"] == f"{100 * ours['resnet18', 'block2', 'accuracy']:.0f}% / 80%"
    assert table.loc["Net A", "Parameters"] == "9 / 9"
    assert table.loc["Net B"].tolist() == ["– / 70%", "", "", "", ""]
    assert table.loc["Net A", "Differs in"] == (
        f"Their set, F1: {DIFFERENCE}; Frozen: {DIFFERENCE}, another test fold; Parameters: data declared as esc50"
    )


def test_single_command_shows_only_rows_with_a_value(compare: Comparison) -> None:
    table, numbers = compare({"none": [make_run()]}, in_study=False)
    assert table.index.tolist() == ["Net A"]
    assert table.columns.tolist() == ["Their set", "F1", "Parameters", "Differs in"]
    assert numbers["ours"].notna().all()


def test_other_data_set_of_the_same_name_is_not_compared(compare: Comparison) -> None:
    """A data set that only has the name of a published one, as part of ESC-50 or features of other recordings."""
    run = make_run(data__name="esc50")
    table, numbers = compare({"none": [run]}, published_as="")
    assert numbers["ours"].isna().all()
    assert table.loc["Net A", "Their set"] == "90.00%"  # the published number alone
    assert compare({"none": [run]}, published_as="", in_study=False) is not None  # of the study


def test_published_data_set_is_recognised_by_content(session: Session, studies: Path, tmp_path: Path, dataset) -> None:
    run = make_run(data__name="esc50", training__epochs=70)
    complete = dataclasses.replace(dataset, name="esc50", is_published_set=True)
    finish(session.store, run, np.eye(3)[[0, 1, 2]], np.arange(3))
    plan = Plan("freeze", (PlannedRun("none", run, run),), {run.data.content: complete})
    results = OutputFolder(plan, session, tmp_path / "results")
    frame = summarise_conditions(plan, session.store)
    write_published_comparison(results, frame, "mine", "T", title="Mine", folder=studies, in_study=False)
    table = pd.read_csv(tmp_path / "results" / "published.csv", keep_default_na=False)
    assert table.columns.tolist() == ["row", "Their set", "F1", "Parameters"]  # nothing differs


def test_other_weights_of_a_single_command_are_not_compared(compare: Comparison) -> None:
    runs = {"none": [make_run(model__weights="random")]}
    _, numbers = compare(runs, in_study=False)
    assert numbers["metric"].tolist() == ["parameters"]
    table, _ = compare(runs)
    assert "weights random instead of imagenet, epochs 8 instead of 70" in table.loc["Net A", "Differs in"]


def test_two_learning_rates_are_never_averaged(compare: Comparison) -> None:
    runs = [make_run(training__lr=lr) for lr in (1e-2, 1e-4)]
    for run in runs:  # each is its own reference, as at two points of a grid
        finish(compare.session.store, run, np.eye(3)[[0, 1, 2]], np.array([0, 1, 2 if run.training.lr < 1e-3 else 1]))
    plan = Plan("freeze", tuple(PlannedRun("none", run, run) for run in runs), {})
    results = OutputFolder(plan, compare.session, compare.folder, published_as="esc50")
    frame = summarise_conditions(plan, compare.session.store)
    item = {"title": "Mine", "folder": compare.studies}
    write_published_comparison(results, frame, "mine", "T", **item)
    numbers = pd.read_csv(compare.folder / "published-numbers.csv").dropna(subset="ours")
    accuracy = numbers[numbers["metric"] == "accuracy"].set_index("row")
    assert accuracy.index.tolist() == ["Net A (lr 0.01)", "Net A (lr 0.0001)"]
    assert accuracy["ours"].tolist() == pytest.approx([2 / 3, 1.0])
    assert accuracy["differs_in"].tolist() == [f"{DIFFERENCE}, lr {lr} instead of 1e-3" for lr in ("0.01", "0.0001")]
    matching = make_run(training__lr=1e-3)
    finish(compare.session.store, matching, np.eye(3)[[0, 1, 2]], np.array([1, 1, 1]))
    plan = Plan("freeze", tuple(PlannedRun("none", run, run) for run in (*runs, matching)), {})
    results = OutputFolder(plan, compare.session, compare.folder, published_as="esc50")
    write_published_comparison(results, summarise_conditions(plan, compare.session.store), "mine", "T", **item)
    numbers = pd.read_csv(compare.folder / "published-numbers.csv").dropna(subset="ours")
    [one] = numbers[numbers["metric"] == "accuracy"].to_dict("records")
    assert (one["row"], one["ours"]) == ("Net A", pytest.approx(1 / 3))  # the one with the published learning rate


def test_study_substitutes_a_network_and_says_so(compare: Comparison) -> None:
    runs = {"rotate": [make_run(model__backbone="efficientnet_lite0")]}
    table, _ = compare(runs, "U")
    assert table.loc["Only", "Differs in"] == ("data declared as esc50, backbone efficientnet_lite0 instead of vgg16")
    assert table.loc["Only", "Accuracy"].endswith("% / 50%")


def test_substitute_needs_a_condition_with_one_published_network(compare: Comparison) -> None:
    _, numbers = compare({"none": [make_run(model__backbone="efficientnet_lite0")]})
    assert numbers["ours"].isna().all()  # it could stand for two networks


@pytest.mark.parametrize("name", ["esc50", "urbansound8k"])
def test_part_of_a_published_set_is_not_the_published_set(real_data: Path, name: str) -> None:
    assert not load_dataset(name, real_data / name).is_published_set


def test_feature_table_is_recognised_by_its_numbers(real_data: Path, tmp_path: Path) -> None:
    original = real_data / "gtzan_features" / "features_30_sec.csv"
    assert load_dataset("features", original).is_published_set
    table = pd.read_csv(original)
    table["tempo"] = np.random.default_rng(0).permutation(table["tempo"])
    table.to_csv(tmp_path / "random.csv", index=False)
    assert not load_dataset("features", tmp_path / "random.csv").is_published_set
