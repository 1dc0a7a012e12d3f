"""Deep ensembles over seeds: the average of the members' softmax outputs against one member alone."""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis import conditions
from analysis.conditions import ACCURACY, CHANGE, MACRO_F1
from analysis.metrics.condition_summary import dataset_and_backbone, run_counts
from analysis.metrics.per_class import ScoredRun, per_class_rows, write_per_class_rows
from analysis.metrics.registry import METRICS
from analysis.output.folder import OutputFolder
from analysis.output.number_format import format_count, format_number, format_percent
from analysis.output.tables import Column
from analysis.plots import by_condition
from analysis.plots.calibration import reliability_bins, write_calibration
from analysis.plots.confusion import ConfusionMatrix, write_confusion_matrices
from analysis.plots.learning_curves import write_learning_curves
from core.config.run import Run
from core.store.runs import Store
from core.training import metrics

BEST_EPOCH_ACCURACY = "accuracy_best_epoch"
MAX_SUBSETS = 1000  # of members of one number that are looked at; of 20 members there are a million in all
COLUMNS = (
    Column("members", "Members", format_count),
    ACCURACY,
    Column(BEST_EPOCH_ACCURACY, "Best epoch %", format_percent, std=f"{BEST_EPOCH_ACCURACY}_std"),
    MACRO_F1,
    CHANGE,
    Column("nll", "NLL", format_number, best="min"),
    Column("brier", "Brier", format_number, best="min"),
    Column("ece", "ECE", format_number, best="min"),
    Column("disagreement", "Differ %", format_percent),
)
AVERAGED_SCORES = ("accuracy", "macro_f1", "balanced_accuracy", "precision", "recall", "f1", "nll", "brier", "ece")
SUMMED_METRICS = (
    "time_to_converge",
    "prediction_ms",
    "seconds",
    "trainable_parameters",
    "parameters",
)  # over the members
FOOTNOTES = (
    "Single: mean over folds ± standard deviation between the members' means over folds. Ensemble: the average of the "
    "members' softmax outputs. Both of the last epoch. Change: over the folds that have two members or more. Differ: "
    "share of clips on which two members disagree, mean over pairs.",
    "Best epoch: each member's own, chosen on the test fold itself, which flatters; the ensemble averages the outputs "
    "of these epochs, where every member has kept them.",
    "Macro F1: over the classes that the test fold has. ECE with 15 bins of equal width. A member that failed or is "
    "missing is left out, and counted; one that lacks a fold is no part of the deviation.",
)
SUMS_NOTE = "Ensemble: times and parameters are those of all members together."


def write_ensemble_report(results: OutputFolder, *, title: str) -> pd.DataFrame:
    """Write the table of single network and ensemble, and the figures.

    Those are accuracy against the number of members, calibration, learning curves, confusion matrices and bars of the
    metrics that are asked for; further tables have every metric and every class.
    """
    store = results.session.store
    rows: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    reliabilities: list[pd.DataFrame] = []
    matrices: list[ConfusionMatrix] = []
    by_class: list[dict[str, Any]] = []
    groups = results.plan.groups(lambda planned: {"first_seed": planned.reference.seed})
    several = len({point["first_seed"] for point, _ in groups}) > 1
    names = [*results.plan.grid, *(["first_seed"] if several else [])]
    for values, planned in groups:
        point = {name: values[name] for name in names}
        where = dataset_and_backbone(planned[0])
        folds: dict[int, list[Run]] = defaultdict(list)
        for member in planned:
            folds[member.run.data.fold].append(member.run)
        runs = list(folds.values())
        rows += [point | row | where for row in _table_rows(runs, store)]
        curves += [point | row | where for row in _curve_rows(runs, store)]
        for condition, (probs, targets, class_names) in _pool_clips(runs, store).items():
            whose = point | {"condition": condition}
            reliabilities.append(reliability_bins(probs, targets).assign(**whose))
            matrices.append(ConfusionMatrix(whose, class_names, metrics.confusion_matrix(probs, targets), len(planned)))
        by_class += _class_rows(runs, store, point)
    frame = pd.DataFrame(rows)
    leading = [*conditions.make_grid_columns(names), Column("condition", title)]
    results.write_table(
        "table",
        frame,
        [*leading, *COLUMNS, *conditions.requested_metric_columns(results, COLUMNS)],
        caption=conditions.make_caption(results.plan),
        footnotes=FOOTNOTES,
        groups=names,
    )
    conditions.write_metrics(results, frame, leading, notes=[*FOOTNOTES, SUMS_NOTE])
    write_per_class_rows(results, by_class, leading, caption=conditions.make_caption(results.plan))
    conditions.write_requested_bars(results, frame, names, title=title)
    curve = pd.DataFrame(curves)
    if len(curve):
        curve, series = conditions.add_grid_label(curve, names)
        results.write_figure(
            "figure",
            curve,
            lambda ax: by_condition.draw_ensemble_curve(curve, ax, series=series),
            caption=f"{conditions.make_caption(results.plan)}: accuracy against the number of members; "
            f"mean and range over all subsets of each size, or over {MAX_SUBSETS:,} random ones if there are more.",
        )
    if reliabilities:
        calibration = pd.concat(reliabilities, ignore_index=True)
        write_calibration(results, calibration, names, caption=conditions.make_caption(results.plan))
    single = [({name: values[name] for name in names} | {"condition": "single"}, planned) for values, planned in groups]
    write_learning_curves(results, single, caption=conditions.make_caption(results.plan))
    write_confusion_matrices(results, matrices, caption=conditions.make_caption(results.plan))
    return frame


def _table_rows(folds: Sequence[Sequence[Run]], store: Store) -> list[dict[str, Any]]:
    """Return the row of a single network and the row of the ensemble."""
    done = [[run for run in members if store.finished(run)] for members in folds]
    outputs = [(members, *_read_logits(members, store)) for members in done if members]
    alone = pd.DataFrame(
        [
            {"fold": run.data.fold, "seed": run.seed, **_read_metrics(run, store), **_score_member(logits, targets)}
            for members, targets, logits_of in outputs
            for run, logits in zip(members, logits_of, strict=True)
        ]
    )
    together = pd.DataFrame(
        [
            {
                "fold": members[0].data.fold,
                **_score_ensemble(logits_of, targets),
                BEST_EPOCH_ACCURACY: _best_epoch_accuracy(members, store),
            }
            for members, targets, logits_of in outputs
            if len(members) > 1
        ]
    )
    planned = [run for members in folds for run in members]
    counted = run_counts(planned, {run.id: store.record(run) for run in planned})
    most = max((len(members) for members in done), default=0)
    changes = ("delta", "delta_best_epoch")
    empty = dict.fromkeys((*METRICS, *(f"{name}_std" for name in METRICS), "disagreement", *changes), np.nan)
    unchanged = dict.fromkeys(changes, 0.0)
    return [
        {"condition": "single", "members": 1, **empty, **_average_members(alone), **unchanged} | counted,
        {"condition": "ensemble", "members": most, **empty, **_average_ensembles(together, alone)} | counted,
    ]


def _average_members(alone: pd.DataFrame) -> dict[str, float]:
    """Return what one network scores, and how much that depends on which of the members it is.

    Parameters
    ----------
    alone
        One row for each ``fold`` and ``seed`` (the member), with the `METRICS`.

    Returns
    -------
    scores
        Means over folds, each the mean of its members; of a measure that a member lacks nan. ``_std`` is the deviation
        (of a sample) between the members' means over folds, for which only members count that have every fold: how
        folds differ is no part of it.
    """
    if alone.empty:
        return {}
    measured = alone.set_index(["seed", "fold"])[list(METRICS)]
    means = measured.groupby("fold").mean().mean().where(measured.notna().all())
    by_member = measured.groupby("seed").mean()[measured.groupby("seed").size() == alone["fold"].nunique()]
    stds = by_member.std().add_suffix("_std")
    return {str(name): float(value) for name, value in [*means.items(), *stds.items()]}


def _average_ensembles(together: pd.DataFrame, alone: pd.DataFrame) -> dict[str, float]:
    """Return means over folds, and the change against single members over the folds that have an ensemble."""
    if together.empty:
        return {}
    by_fold = together.set_index("fold")
    change = (by_fold["accuracy"] - alone.groupby("fold")["accuracy"].mean()).mean()
    best = by_fold[BEST_EPOCH_ACCURACY].mean(skipna=False)  # unknown where one fold's is
    best_change = best - alone[alone["fold"].isin(by_fold.index)].groupby("fold")[BEST_EPOCH_ACCURACY].mean().mean()
    members = alone[alone["fold"].isin(by_fold.index)]
    sums = (
        members.groupby("fold")[list(SUMMED_METRICS)]
        .sum(min_count=1)
        .mean()
        .where(members[list(SUMMED_METRICS)].notna().all())
    )
    means = by_fold[[*AVERAGED_SCORES, "disagreement"]].mean()
    of_best = {BEST_EPOCH_ACCURACY: best, "delta": change, "delta_best_epoch": best_change}
    return {str(name): float(value) for name, value in [*means.items(), *sums.items(), *of_best.items()]}


def _class_rows(folds: Sequence[Sequence[Run]], store: Store, point: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of classes: of single networks, and of the ensemble of each fold that has one."""
    done = [[run for run in members if store.finished(run)] for members in folds]
    several = [members for members in done if len(members) > 1]
    if not several:
        return []
    alone: list[ScoredRun] = []
    together: list[ScoredRun] = []
    for members in several:
        targets, logits_of = _read_logits(members, store)
        fold = members[0].data.fold
        alone += [
            (fold, run.seed, metrics.per_class(logits, targets)) for run, logits in zip(members, logits_of, strict=True)
        ]
        together.append((fold, 0, metrics.per_class(metrics.soft_vote(logits_of), targets)))
    record = store.finished(several[0][0])
    names = record.class_names if record else ()
    return per_class_rows({**point, "condition": "single"}, alone, names) + per_class_rows(
        {**point, "condition": "ensemble"}, together, names
    )


def _pool_clips(
    folds: Sequence[Sequence[Run]], store: Store
) -> dict[str, tuple[np.ndarray, np.ndarray, tuple[str, ...]]]:
    """Return probabilities (clips, classes), targets (clips,) and class names of single networks and of the ensemble.

    Clips of all folds that have an ensemble stand below each other, and for single networks those of all members.
    """
    done = [[run for run in members if store.finished(run)] for members in folds]
    several = [members for members in done if len(members) > 1]
    if not several:
        return {}
    record = store.finished(several[0][0])
    class_names = record.class_names if record else ()
    outputs = [_read_logits(members, store) for members in several]
    alone = [(metrics.softmax(logits), targets) for targets, members in outputs for logits in members]
    together = [(metrics.soft_vote(members), targets) for targets, members in outputs]
    return {
        name: (np.concatenate([probs for probs, _ in parts]), np.concatenate([of for _, of in parts]), class_names)
        for name, parts in {"single": alone, "ensemble": together}.items()
    }


def _curve_rows(folds: Sequence[Sequence[Run]], store: Store) -> list[dict[str, Any]]:
    """Return accuracy over the `_sample_subsets` of each size, averaged over the folds subset by subset."""
    done = [_read_logits(members, store) for members in folds if all(store.finished(run) for run in members)]
    if not done:
        return []
    probs = [[metrics.softmax(logits) for logits in members] for _, members in done]
    rows = []
    for size in range(1, len(probs[0]) + 1):
        accuracies = [
            float(
                np.mean(
                    [
                        _subset_accuracy(members, subset, targets)
                        for members, (targets, _) in zip(probs, done, strict=True)
                    ]
                )
            )
            for subset in _sample_subsets(len(probs[0]), size)
        ]
        low, high = min(accuracies), max(accuracies)
        rows.append({"members": size, "accuracy": np.mean(accuracies), "accuracy_min": low, "accuracy_max": high})
    return rows


def _sample_subsets(members: int, size: int) -> Iterable[Sequence[int]]:
    """Return all subsets of `size` members, or `MAX_SUBSETS` random ones if there are more; always the same ones."""
    if math.comb(members, size) <= MAX_SUBSETS:
        return itertools.combinations(range(members), size)
    rng = np.random.default_rng(size)
    return [rng.choice(members, size, replace=False).tolist() for _ in range(MAX_SUBSETS)]


def _read_metrics(run: Run, store: Store) -> dict[str, float]:
    """Return what a run's record says: what its outputs do not, such as its times."""
    record = store.finished(run)
    assert record
    return {name: measure.read(record) for name, measure in METRICS.items()}


def _score_member(logits: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    return _rename_weighted(metrics.summarise(logits, targets)) | {
        "macro_f1": metrics.per_class(logits, targets).macro_f1
    }


def _score_ensemble(members: Sequence[np.ndarray], targets: np.ndarray) -> dict[str, float]:
    scores = _rename_weighted(metrics.summarise_ensemble(members, targets))
    return scores | {"macro_f1": metrics.per_class(metrics.soft_vote(members), targets).macro_f1}


def _rename_weighted(scores: Mapping[str, float]) -> dict[str, float]:
    """Call weighted scores as tables do."""
    return {name.removeprefix("weighted_"): score for name, score in scores.items()}


def _best_epoch_accuracy(members: Sequence[Run], store: Store) -> float:
    """Return the accuracy of the ensemble of the members' best epochs; nan where one has not kept its outputs."""
    read = [store.predictions(run, best=True) for run in members]
    kept = [logits for _, _, logits in read if logits.shape[1]]
    return metrics.accuracy(metrics.soft_vote(kept), read[0][1]) if len(kept) == len(members) else np.nan


def _subset_accuracy(members: Sequence[np.ndarray], subset: Sequence[int], targets: np.ndarray) -> float:
    return metrics.accuracy(np.mean([members[k] for k in subset], axis=0), targets)


def _read_logits(members: Sequence[Run], store: Store) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return targets (clips,) and every member's logits (clips, classes), over the same clips."""
    read = [store.predictions(run) for run in members]
    assert all(clips == read[0][0] for clips, _, _ in read)
    return read[0][1], [logits for _, _, logits in read]
