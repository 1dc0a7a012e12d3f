"""Numbers of classes and of cells of confusion matrices, checked against scikit-learn."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from finished_runs import finish, plan_of
from sklearn.metrics import confusion_matrix, precision_score, recall_score

from analysis.metrics.condition_summary import summarise_conditions
from analysis.output.output_folder import OutputFolder
from analysis.published.class_level import class_level_rows
from analysis.published.comparison import write_published_comparison
from analysis.published.numbers import load_published
from core.config.run import Run
from core.plan import Plan
from core.session import Session
from core.store.run_store import Store

NUMBERS = """item,data,backbone,condition,metric,epoch,value
T,instruments,efficientnet_lite0,class class 2,recall,,0.5
T,instruments,efficientnet_lite0,"stem, class class 0",f1,,0.5
T,instruments,efficientnet_lite0,class 1 as class 2,clips,,3
T,instruments,efficientnet_lite0,"class 0 as class 1",clips,,3
T,instruments,efficientnet_lite0,"All as class 1",clips,,9
T,instruments,efficientnet_lite0,"stem, All as All",clips,,30
T,instruments,efficientnet_lite0,entry 1,precision,,0.1
T,instruments,efficientnet_lite0,entry 2,precision,,0.2
T,instruments,efficientnet_lite0,entry 3,precision,,0.3
T,instruments,efficientnet_lite0,entry 1,recall,,0.1
T,instruments,efficientnet_lite0,entry 2,recall,,0.2
T,instruments,other,class class 2,recall,,0.5
"""


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    (tmp_path / "studies" / "mine").mkdir(parents=True)
    (tmp_path / "studies" / "mine" / "published.csv").write_text(NUMBERS)
    return tmp_path / "studies"


@pytest.fixture
def results(session: Session, tmp_path: Path) -> OutputFolder:
    """Return results of two conditions and two folds, the first of them with two seeds."""
    base = [Run(seed=seed).replace(data__fold=fold) for fold, seed in ((1, 0), (1, 1), (2, 0))]
    frozen = [run.replace(model__freeze="stem") for run in base]
    rng = np.random.default_rng(0)
    for run in [*base, *frozen]:
        targets = np.arange(30) % 3
        finish(session.store, run, rng.normal(size=(30, 3)) + np.eye(3)[targets], targets)
    return OutputFolder(plan_of({"none": base, "stem": frozen}), session, tmp_path / "freeze")


def load_predictions(plan: Plan, store: Store, condition: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return targets and predictions of the runs of a condition: two of the first fold, one of the second."""
    runs = [one.run for one in plan.planned if one.condition == condition]
    return [(targets, logits.argmax(axis=1)) for _, targets, logits in map(store.predictions, runs)]


def over_folds(values: list[float]) -> float:
    """Average the two seeds of the first fold, then the folds."""
    return float(np.mean([np.mean(values[:2]), values[2]]))


def test_class_level_rows_equal_scikit_learn(results: OutputFolder, studies: Path) -> None:
    plan, store = results.plan, results.session.store
    rows = class_level_rows(plan, store, load_published("mine", "T", folder=studies))
    by_condition = {row["condition"]: row for row in rows}
    none, stem = load_predictions(plan, store, "none"), load_predictions(plan, store, "stem")
    recalls = [recall_score(targets, predicted, average=None)[2] for targets, predicted in none]
    assert by_condition["class class 2"]["recall"] == pytest.approx(over_folds(recalls))
    assert "stem, class class 0" in by_condition
    matrices = [confusion_matrix(targets, predicted) for targets, predicted in none]
    summed = np.mean(matrices[:2], axis=0) + matrices[2]
    assert by_condition["class 1 as class 2"]["clips"] == summed[1, 2]
    assert by_condition["All as class 1"]["clips"] == summed[:, 1].sum()
    assert by_condition["stem, All as All"]["clips"] == 60 == 2 * len(stem[0][0])
    precisions = [precision_score(targets, predicted, average=None)[1] for targets, predicted in none]
    assert by_condition["entry 2"]["precision"] == pytest.approx(over_folds(precisions))
    assert "recall" not in by_condition["entry 1"]  # the list has fewer entries than classes
    assert {row["backbone"] for row in rows} == {"efficientnet_lite0"}


def test_write_published_comparison_includes_matching_classes_only(results: OutputFolder, studies: Path) -> None:
    frame = summarise_conditions(results.plan, results.session.store)
    write_published_comparison(results, frame, "mine", "T", title="Mine", folder=studies)
    numbers = pd.read_csv(results.folder / "published-numbers.csv").set_index(["backbone", "condition", "metric"])
    assert len(numbers) == 12
    assert numbers["ours"].notna().sum() == 9
    [item] = results.items
    assert any(note.startswith("Entry:") for note in item["footnotes"])
    table = pd.read_csv(results.folder / "published.csv", index_col="row", keep_default_na=False)
    ours = numbers.loc[("efficientnet_lite0", "class class 2", "recall")]
    assert table.at["efficientnet_lite0", "Recall, class class 2"].startswith(f"{100 * ours['ours']:.1f} ± ")
    assert table.at["efficientnet_lite0", "Recall, class class 2"].endswith("% / 50.0%")
    assert table.at["other", "Recall, class class 2"] == "– / 50.0%"
