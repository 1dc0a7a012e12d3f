"""Confusion matrices: margins, drawing, and files."""

import numpy as np
import pandas as pd
import pytest
from finished_runs import finish, plan_of

from analysis.output import style
from analysis.output.output_folder import OutputFolder
from analysis.plots.confusion import add_margins, draw_confusion_matrix, write_confusion_by_condition
from core.config.run import Run
from core.training import metrics


@pytest.fixture
def ax():
    return style.new_figure()[1]


def ticks(ax):
    return [label.get_text() for label in ax.get_xticklabels()]


def test_confusion_matrix_has_shares_and_counts(ax):
    assert draw_confusion_matrix([[3, 1], [0, 0]], ["cat", "dog"], ax) is ax
    np.testing.assert_allclose(ax.images[0].get_array().filled(-1), [[0.75, 0.25], [-1, -1]])
    assert [text.get_text() for text in ax.texts] == [
        "3",
        "1",
        "4\n75 %",
        "0",
        "0",
        "0",
        "3\n100 %",
        "1\n0 %",
        "4\n75 %",
    ]
    assert ticks(ax) == ["cat", "dog", "All"]


def test_confusion_matrix_of_many_classes_has_no_numbers(ax):
    draw_confusion_matrix(np.diag(np.arange(21)), [f"class {k}" for k in range(21)], ax)
    assert not ax.texts
    assert [image.get_array().shape for image in ax.images] == [(21, 21), (21, 1), (1, 21), (1, 1)]


def test_confusion_matrix_shortens_and_escapes_names(ax):
    draw_confusion_matrix(np.eye(2), ["$x$", "a name that is much longer"], ax)
    assert ticks(ax) == [r"\$x\$", "a name that is mu…", "All"]


def test_confusion_matrix_of_a_class_named_all_names_its_sums_otherwise(ax):
    draw_confusion_matrix(np.eye(2), ["All", "x"], ax)
    assert ticks(ax) == ["All", "x", "All classes"]


def test_add_margins_has_recall_and_precision():
    rng = np.random.default_rng(0)
    targets, logits = rng.integers(0, 4, 200), rng.normal(size=(200, 4))
    clips, shares = add_margins(metrics.confusion_matrix(logits, targets))
    by_class = metrics.per_class(logits, targets)
    np.testing.assert_allclose(shares[:-1, -1], by_class.recall)
    np.testing.assert_allclose(shares[-1, :-1], by_class.precision)
    assert shares[-1, -1] == pytest.approx(metrics.accuracy(logits, targets))
    assert clips[:-1, -1].tolist() == by_class.support.tolist()
    assert clips[-1, -1] == 200


@pytest.fixture
def results(session, tmp_path):
    """Return the output folder of two conditions, two folds and two seeds with one missing run."""
    keys = [(1, 0), (1, 1), (2, 0), (2, 1)]
    base = [Run(seed=seed).replace(data__fold=fold) for fold, seed in keys]
    frozen = [run.replace(model__freeze="stem") for run in base]
    rng = np.random.default_rng(0)
    for run in [*base, *frozen[:-1]]:
        finish(session.store, run, rng.normal(size=(30, 3)), np.arange(30) % 3)
    return OutputFolder(plan_of({"none": base, "stem": frozen}), session, tmp_path / "freeze")


def test_confusion_by_condition_sums_folds_and_seeds(results):
    write_confusion_by_condition(results, results.plan.groups(), caption="Freeze")
    assert [file.name for file in results.files] == [
        "confusion.png",
        "confusion.pdf",
        "confusion.svg",
        "confusion.csv",
        "confusion.tex",
    ]
    frame = pd.read_csv(results.folder / "confusion.csv")
    assert list(frame) == ["condition", "target", "predicted", "clips", "share", "runs"]
    store = results.session.store
    for condition, part in frame.groupby("condition"):
        runs = [p.run for p in results.plan.planned if p.condition == condition][:3]  # the last pair lacks a run
        total = sum(np.array(record.confusion) for run in runs if (record := store.finished(run)))
        cells = part[(part["target"] != "All") & (part["predicted"] != "All")]
        assert cells["clips"].tolist() == total.ravel().tolist()
    assert results.items[0]["caption"].endswith("condition has finished (3 of 4 runs of a condition).")


def test_confusion_of_many_conditions_are_all_drawn(results):
    first = results.plan.planned[0].run
    figures = []
    results.write_figure = lambda name, data, draw, **more: figures.append((name, data["condition"].nunique()))
    groups = plan_of({f"{k}": [first] for k in range(14)}).groups()
    write_confusion_by_condition(results, groups, caption="Compare")
    assert figures == [("confusion-1", 6), ("confusion-2", 6), ("confusion-3", 2)]


def test_confusion_by_condition_of_many_classes_writes_one_figure_each(results):
    for planned in results.plan.planned:
        finish(results.session.store, planned.run, np.eye(13), np.arange(13))
    write_confusion_by_condition(results, results.plan.groups(), caption="Freeze")
    assert [item["name"] for item in results.items] == ["confusion-none", "confusion-stem"]
