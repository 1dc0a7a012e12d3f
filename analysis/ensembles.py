"""Deep ensembles over seeds: the average of the members' softmax outputs against one member alone."""

import itertools
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis import conditions, figures
from analysis.calibration import reliability, write_calibration
from analysis.conditions import ACCURACY, CHANGE, MACRO_F1
from analysis.confusion import Matrix, write_matrices
from analysis.formats import count, number, percent
from analysis.learning import write_learning_curves
from analysis.results import Results
from analysis.tables import Column
from core.config import Run
from core.store import Store
from core.training import metrics

COLUMNS = (
    Column("members", "Members", count),
    ACCURACY,
    MACRO_F1,
    CHANGE,
    Column("nll", "NLL", number, best="min"),
    Column("brier", "Brier", number, best="min"),
    Column("ece", "ECE", number, best="min"),
    Column("disagreement", "Differ %", percent),
)
SCORES = ("accuracy", "macro_f1", "nll", "brier", "ece")
FOOTNOTES = (
    "Single: mean over folds ± standard deviation between the members' means over folds. Ensemble: the average of the "
    "members' softmax outputs. Both of the last epoch. Change: over the folds that have two members or more. Differ: "
    "share of clips on which two members disagree, mean over pairs.",
    "Macro F1: over the classes that the test fold has. ECE with 15 bins of equal width. A member that failed or is "
    "missing is left out, and counted; one that lacks a fold is no part of the deviation.",
)


def compare_ensemble(results: Results, *, title: str) -> pd.DataFrame:
    """Write the table of single network and ensemble, and the figures.

    Those are accuracy against the number of members, calibration, learning curves and confusion matrices.
    """
    store = results.session.store
    rows: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    reliabilities: list[pd.DataFrame] = []
    matrices: list[Matrix] = []
    groups = results.plan.groups(lambda planned: {"first_seed": planned.reference.seed})
    several = len({point["first_seed"] for point, _ in groups}) > 1
    names = [*results.plan.grid, *(["first_seed"] if several else [])]
    for values, planned in groups:
        point = {name: values[name] for name in names}
        where = conditions.named(planned[0])
        folds: dict[int, list[Run]] = defaultdict(list)
        for member in planned:
            folds[member.run.data.fold].append(member.run)
        runs = list(folds.values())
        rows += [point | row | where for row in _rows(runs, store)]
        curves += [point | row | where for row in _curve(runs, store)]
        for condition, (probs, targets, class_names) in _pooled(runs, store).items():
            named = point | {"condition": condition}
            reliabilities.append(reliability(probs, targets).assign(**named))
            matrices.append(Matrix(named, class_names, metrics.confusion_matrix(probs, targets), len(planned)))
    frame = pd.DataFrame(rows)
    results.table(
        "table",
        frame,
        [*conditions.grid_titles(names), Column("condition", title), *COLUMNS],
        caption=conditions.caption(results.plan),
        footnotes=FOOTNOTES,
        groups=names,
    )
    curve = pd.DataFrame(curves)
    if len(curve):
        curve, series = conditions.name_points(curve, names)
        results.figure(
            "figure",
            curve,
            lambda ax: figures.ensemble_curve(curve, ax, series=series),
            caption=f"{conditions.caption(results.plan)}: accuracy against the number of members; mean of all subsets "
            "of that size and their range.",
        )
    if reliabilities:
        calibration = pd.concat(reliabilities, ignore_index=True)
        write_calibration(results, calibration, names, caption=conditions.caption(results.plan))
    single = [({name: values[name] for name in names} | {"condition": "single"}, planned) for values, planned in groups]
    write_learning_curves(results, single, caption=conditions.caption(results.plan))
    write_matrices(results, matrices, caption=conditions.caption(results.plan))
    return frame


def _rows(folds: Sequence[Sequence[Run]], store: Store) -> list[dict[str, Any]]:
    """Return the row of a single network and the row of the ensemble."""
    done = [[run for run in members if store.finished(run)] for members in folds]
    outputs = [(members, *_outputs(members, store)) for members in done if members]
    alone = pd.DataFrame(
        [
            {"fold": run.data.fold, "seed": run.seed, **_single(logits, targets)}
            for members, targets, logits_of in outputs
            for run, logits in zip(members, logits_of, strict=True)
        ]
    )
    together = pd.DataFrame(
        [
            {"fold": members[0].data.fold, **_together(logits_of, targets)}
            for members, targets, logits_of in outputs
            if len(members) > 1
        ]
    )
    planned = [run for members in folds for run in members]
    counts = conditions.counts(planned, {run.id: store.record(run) for run in planned})
    best = [record.metrics.accuracy_best_epoch for members in done for run in members if (record := store.record(run))]
    most = max((len(members) for members in done), default=0)
    empty = dict.fromkeys((*SCORES, "accuracy_std", "disagreement", "delta"), np.nan)
    return [
        {"condition": "single", "members": 1, **empty, **_single_scores(alone), "delta": 0.0}
        | {"accuracy_best_epoch": np.mean(best) if best else np.nan}
        | counts,
        {"condition": "ensemble", "members": most, **empty, **_ensemble_scores(together, alone)} | counts,
    ]


def _single_scores(alone: pd.DataFrame) -> dict[str, float]:
    """Return what one network scores, and how much that depends on which of the members it is.

    Parameters
    ----------
    alone
        One row for each ``fold`` and ``seed`` (the member), with the `SCORES`.

    Returns
    -------
    scores
        Means over folds, each the mean of its members. ``accuracy_std`` is the deviation (of a sample) between the
        members' means over folds, for which only members count that have every fold: how folds differ is no part of it.
    """
    if alone.empty:
        return {}
    scores = alone.groupby("fold")[list(SCORES)].mean().mean().to_dict()
    whole = alone.pivot(index="seed", columns="fold", values="accuracy").dropna()
    return {str(name): float(score) for name, score in scores.items()} | {"accuracy_std": whole.mean(axis=1).std()}


def _ensemble_scores(together: pd.DataFrame, alone: pd.DataFrame) -> dict[str, float]:
    """Return means over folds, and the change against single members over the folds that have an ensemble."""
    if together.empty:
        return {}
    by_fold = together.set_index("fold")
    change = by_fold["accuracy"] - alone.groupby("fold")["accuracy"].mean()
    return {name: float(by_fold[name].mean()) for name in (*SCORES, "disagreement")} | {"delta": float(change.mean())}


def _pooled(folds: Sequence[Sequence[Run]], store: Store) -> dict[str, tuple[np.ndarray, np.ndarray, tuple[str, ...]]]:
    """Return probabilities (clips, classes), targets (clips,) and class names of single networks and of the ensemble.

    Clips of all folds that have an ensemble stand below each other, and for single networks those of all members.
    """
    done = [[run for run in members if store.finished(run)] for members in folds]
    several = [members for members in done if len(members) > 1]
    if not several:
        return {}
    record = store.finished(several[0][0])
    class_names = record.class_names if record else ()
    outputs = [_outputs(members, store) for members in several]
    alone = [(metrics.softmax(logits), targets) for targets, members in outputs for logits in members]
    together = [(metrics.soft_vote(members), targets) for targets, members in outputs]
    return {
        name: (np.concatenate([probs for probs, _ in parts]), np.concatenate([of for _, of in parts]), class_names)
        for name, parts in {"single": alone, "ensemble": together}.items()
    }


def _curve(folds: Sequence[Sequence[Run]], store: Store) -> list[dict[str, Any]]:
    """Return accuracy over all subsets of each size, averaged over the folds subset by subset."""
    done = [_outputs(members, store) for members in folds if all(store.finished(run) for run in members)]
    if not done:
        return []
    probs = [[metrics.softmax(logits) for logits in members] for _, members in done]
    rows = []
    for size in range(1, len(probs[0]) + 1):
        accuracies = [
            float(
                np.mean(
                    [_accuracy(members, subset, targets) for members, (targets, _) in zip(probs, done, strict=True)]
                )
            )
            for subset in itertools.combinations(range(len(probs[0])), size)
        ]
        low, high = min(accuracies), max(accuracies)
        rows.append({"members": size, "accuracy": np.mean(accuracies), "accuracy_min": low, "accuracy_max": high})
    return rows


def _single(logits: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    return metrics.summary(logits, targets) | {"macro_f1": _macro_f1(logits, targets)}


def _together(members: Sequence[np.ndarray], targets: np.ndarray) -> dict[str, float]:
    return metrics.ensemble_summary(members, targets) | {"macro_f1": _macro_f1(metrics.soft_vote(members), targets)}


def _macro_f1(scores: np.ndarray, targets: np.ndarray) -> float:
    """Mean F1 over the classes of the test fold, which are the same for one network and for several."""
    by_class = metrics.per_class(scores, targets)
    return float(by_class.f1[by_class.support > 0].mean())


def _accuracy(members: Sequence[np.ndarray], subset: Sequence[int], targets: np.ndarray) -> float:
    return metrics.accuracy(np.mean([members[k] for k in subset], axis=0), targets)


def _outputs(members: Sequence[Run], store: Store) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return targets (clips,) and every member's logits (clips, classes), over the same clips."""
    read = [store.predictions(run) for run in members]
    assert all(clips == read[0][0] for clips, _, _ in read)
    return read[0][1], [logits for _, _, logits in read]
