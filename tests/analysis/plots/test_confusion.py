"""Confusion matrices: their margins, what is drawn, and what is left in a folder."""

import numpy as np
import pandas as pd
import pytest
from finished_runs import finish, plan_of

from analysis.output import style
from analysis.output.folder import OutputFolder
from analysis.plots.confusion import add_margins, draw_confusion_matrix, write_confusion_by_condition
from core.config.execution import ExecutionOptions
from core.config.run import Run
from core.session import Session
from core.training import metrics


@pytest.fixture
def ax():
    return style.new_figure()[1]


def ticks(ax):
    return [label.get_text() for label in ax.get_xticklabels()]


def test_confusion_shows_rows_as_shares_and_cells_as_clips(ax):
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


def test_confusion_refuses_names_that_do_not_fit(ax):
    with pytest.raises(ValueError, match=r"matrix \(2, 2\) and 3 class names do not fit"):
        draw_confusion_matrix(np.eye(2), ["a", "b", "c"], ax)


def test_a_large_matrix_has_no_numbers_and_its_margins_are_colours(ax):
    draw_confusion_matrix(np.diag(np.arange(21)), [f"class {k}" for k in range(21)], ax)
    assert not ax.texts
    assert [image.get_array().shape for image in ax.images] == [(21, 21), (21, 1), (1, 21), (1, 1)]


def test_names_are_shortened_and_are_no_mathematics(ax):
    draw_confusion_matrix(np.eye(2), ["$x$", "a name that is much longer"], ax)
    assert ticks(ax) == [r"\$x\$", "a name that is mu…", "All"]


def test_margins_are_recall_and_precision():
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
def results(tmp_path):
    """Return results of two conditions, two folds and two seeds, of which one run is missing."""
    session = Session(ExecutionOptions(results=tmp_path / "results", device="cpu", threads=1))
    keys = [(1, 0), (1, 1), (2, 0), (2, 1)]
    base = [Run(seed=seed).replace(data__fold=fold) for fold, seed in keys]
    frozen = [run.replace(model__freeze="stem") for run in base]
    rng = np.random.default_rng(0)
    for run in [*base, *frozen[:-1]]:
        finish(session.store, run, rng.normal(size=(30, 3)), np.arange(30) % 3)
    return OutputFolder(plan_of({"none": base, "stem": frozen}), session, tmp_path / "freeze")


def test_matrices_are_summed_over_folds_and_seeds_and_say_what_is_left_out(results):
    write_confusion_by_condition(results, results.plan.groups(), caption="Freeze")
    assert [file.name for file in results.files] == ["confusion.png", "confusion.pdf", "confusion.csv"]
    frame = pd.read_csv(results.folder / "confusion.csv")
    assert list(frame) == ["condition", "target", "predicted", "clips", "share"]
    store = results.session.store
    for condition, part in frame.groupby("condition"):
        runs = [p.run for p in results.plan.planned if p.condition == condition]
        whole = sum(np.array(record.confusion) for run in runs if (record := store.finished(run)))
        cells = part[(part["target"] != "All") & (part["predicted"] != "All")]
        assert cells["clips"].tolist() == whole.ravel().tolist()
    assert "1 run is left out" in results.items[0]["caption"]


def test_many_classes_have_a_figure_for_each_condition(results):
    store = results.session.store
    for planned in results.plan.planned:
        finish(store, planned.run, np.eye(13), np.arange(13))
    write_confusion_by_condition(results, results.plan.groups(), caption="Freeze")
    assert [item["name"] for item in results.items] == ["confusion-none", "confusion-stem"]
