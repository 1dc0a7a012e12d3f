"""Deep ensembles over seeds: the mean of the members' softmax outputs, compared with single members."""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis import conditions
from analysis.metrics.condition_summary import dataset_and_backbone, run_counts
from analysis.metrics.per_class import ScoredRun, per_class_rows, write_per_class_rows
from analysis.metrics.registry import ACCURACY_COLUMN, CHANGE_COLUMN, MACRO_F1_COLUMN, METRICS
from analysis.output.number_format import format_count, format_number, format_percent
from analysis.output.output_folder import OutputFolder
from analysis.output.tables import Column
from analysis.plots import by_condition
from analysis.plots.calibration import reliability_bins, write_calibration
from analysis.plots.confusion import ConfusionMatrix, write_confusion_matrices
from analysis.plots.learning_curves import write_learning_curves
from core.config.run import Run
from core.plan import Plan, PlannedRun
from core.store.runs import Store
from core.training import metrics

BEST_EPOCH_ACCURACY = "accuracy_best_epoch"
MAX_SUBSETS = 1000  # evaluated per ensemble size; 20 members have a million subsets
COLUMNS = (
    Column("members", "Members", format_count),
    ACCURACY_COLUMN,
    Column(BEST_EPOCH_ACCURACY, "Best epoch %", format_percent, std=f"{BEST_EPOCH_ACCURACY}_std"),
    MACRO_F1_COLUMN,
    CHANGE_COLUMN,
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
)  # metrics of an ensemble that are sums over its members
FOOTNOTES = (
    "Single: mean over folds ± standard deviation between members (each averaged over folds). Ensemble: mean of the "
    "members' softmax outputs. Results of the last epoch. Change: over the folds with at least two members. Differ: "
    "fraction of clips on which two members disagree, mean over pairs.",
    "Best epoch: epoch of each member chosen on the test fold, therefore optimistic; the ensemble averages the outputs "
    "of these epochs if all members have stored them.",
    "Macro F1: unweighted mean over the classes in the test fold. ECE with 15 bins of equal width. Failed and missing "
    "members are left out and counted; members without results of all folds do not contribute to the standard "
    "deviation.",
)
SUMS_NOTE = "Ensemble: times and parameters are sums over all members."


@dataclass(frozen=True)
class _Members:
    """Members of an ensemble at one grid point.

    Attributes
    ----------
    point
        Values of the grid columns.
    planned
        All planned runs.
    folds
        The runs of each fold.
    """

    point: Mapping[str, Any]
    planned: Sequence[PlannedRun]
    folds: Sequence[Sequence[Run]]


@dataclass(frozen=True)
class _PooledClips:
    """Probabilities (clips, classes) and targets (clips,) of a condition, pooled over folds.

    `values` are the grid values and the condition, `runs` is the number of planned runs.
    """

    values: dict[str, Any]
    probs: np.ndarray
    targets: np.ndarray
    class_names: tuple[str, ...]
    runs: int


def write_ensemble_report(results: OutputFolder, *, title: str) -> pd.DataFrame:
    """Write all tables and figures that compare single networks with their ensemble.

    Parameters
    ----------
    results
        Output folder of the analysis.
    title
        Title of the conditions "single" and "ensemble".

    Returns
    -------
    DataFrame
        The rows of the main table.
    """
    names, ensembles = _group_members(results.plan)
    leading = [*conditions.make_grid_columns(names), Column("condition", title)]
    frame = _write_table(results, ensembles, leading)
    conditions.write_metrics(results, frame, leading, notes=[*FOOTNOTES, SUMS_NOTE])
    conditions.write_requested_bars(results, frame, names, title=title)
    _write_classes(results, ensembles, leading)
    _write_members_curve(results, ensembles, names)
    pooled = _pool_ensembles(ensembles, results.session.store)
    _write_calibration(results, pooled, names)
    _write_learning_curves(results, ensembles)
    _write_confusion(results, pooled)
    return frame


def _group_members(plan: Plan) -> tuple[list[str], list[_Members]]:
    """Return the grid columns, with ``first_seed`` if it varies, and the members at each grid point."""
    groups = plan.groups(lambda planned: {"first_seed": planned.reference.seed})
    several = len({values["first_seed"] for values, _ in groups}) > 1
    names = [*plan.grid, *(["first_seed"] if several else [])]
    ensembles = []
    for values, planned in groups:
        folds: dict[int, list[Run]] = defaultdict(list)
        for member in planned:
            folds[member.run.data.fold].append(member.run)
        ensembles.append(_Members({name: values[name] for name in names}, planned, list(folds.values())))
    return names, ensembles


def _write_table(results: OutputFolder, ensembles: Sequence[_Members], leading: Sequence[Column]) -> pd.DataFrame:
    store = results.session.store
    frame = pd.DataFrame(
        [
            {**members.point, **row, **dataset_and_backbone(members.planned[0])}
            for members in ensembles
            for row in _table_rows(members.folds, store)
        ]
    )
    results.write_table(
        "table",
        frame,
        [*leading, *COLUMNS, *conditions.requested_metric_columns(results, COLUMNS)],
        caption=conditions.make_caption(results.plan),
        footnotes=FOOTNOTES,
        groups=[column.name for column in leading[:-1]],
    )
    return frame


def _write_classes(results: OutputFolder, ensembles: Sequence[_Members], leading: Sequence[Column]) -> None:
    rows = [row for each in ensembles for row in _class_rows(each.folds, results.session.store, each.point)]
    write_per_class_rows(results, rows, leading, caption=conditions.make_caption(results.plan))


def _write_members_curve(results: OutputFolder, ensembles: Sequence[_Members], names: Sequence[str]) -> None:
    """Write the figure of accuracy against the number of members."""
    rows = [{**each.point, **row} for each in ensembles for row in _curve_rows(each.folds, results.session.store)]
    if not rows:
        return
    curve, series = conditions.add_grid_label(pd.DataFrame(rows), names)
    results.write_figure(
        "figure",
        curve,
        lambda ax: by_condition.draw_ensemble_curve(curve, ax, series=series),
        caption=f"{conditions.make_caption(results.plan)}: accuracy against the number of members; mean and range over "
        f"all subsets of each size, or over {MAX_SUBSETS:,} random ones if there are more; complete folds only.",
    )


def _pool_ensembles(ensembles: Sequence[_Members], store: Store) -> list[_PooledClips]:
    return [
        _PooledClips({**members.point, "condition": condition}, *clips, runs=len(members.planned))
        for members in ensembles
        for condition, clips in _pool_clips(members.folds, store).items()
    ]


def _write_calibration(results: OutputFolder, pooled: Sequence[_PooledClips], names: Sequence[str]) -> None:
    if pooled:
        bins = [reliability_bins(each.probs, each.targets).assign(**each.values) for each in pooled]
        caption = conditions.make_caption(results.plan)
        write_calibration(results, pd.concat(bins, ignore_index=True), names, caption=caption)


def _write_confusion(results: OutputFolder, pooled: Sequence[_PooledClips]) -> None:
    matrices = [
        ConfusionMatrix(each.values, each.class_names, metrics.confusion_matrix(each.probs, each.targets), each.runs)
        for each in pooled
    ]
    write_confusion_matrices(results, matrices, caption=conditions.make_caption(results.plan))


def _write_learning_curves(results: OutputFolder, ensembles: Sequence[_Members]) -> None:
    groups = [({**members.point, "condition": "single"}, members.planned) for members in ensembles]
    write_learning_curves(results, groups, caption=conditions.make_caption(results.plan))


def _table_rows(folds: Sequence[Sequence[Run]], store: Store) -> list[dict[str, Any]]:
    """Return the rows "single" and "ensemble" of the main table."""
    finished = _finished_members(folds, store)
    outputs = [(members, *_read_logits(members, store)) for members in finished if members]
    singles = pd.DataFrame(
        [
            {"fold": run.data.fold, "seed": run.seed, **_read_metrics(run, store), **_score_member(logits, targets)}
            for members, targets, logits_of in outputs
            for run, logits in zip(members, logits_of, strict=True)
        ]
    )
    ensembles = pd.DataFrame(
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
    counts = run_counts(planned, {run.id: store.record(run) for run in planned})
    n_members = max((len(members) for members in finished), default=0)
    changes = ("delta", "delta_best_epoch")
    empty = dict.fromkeys((*METRICS, *(f"{name}_std" for name in METRICS), "disagreement", *changes), np.nan)
    unchanged = dict.fromkeys(changes, 0.0)
    return [
        {"condition": "single", "members": 1, **empty, **_average_members(singles), **unchanged} | counts,
        {"condition": "ensemble", "members": n_members, **empty, **_average_ensembles(ensembles, singles)} | counts,
    ]


def _average_members(singles: pd.DataFrame) -> dict[str, float]:
    """Return mean and standard deviation of every metric of single members.

    Parameters
    ----------
    singles
        One row per ``fold`` and ``seed`` (the member) with all `METRICS`.

    Returns
    -------
    dict
        Means over folds (members averaged within each fold); nan if a member lacks the metric. ``_std`` is the sample
        standard deviation between members, each averaged over folds; it uses members with results of all folds only.
    """
    if singles.empty:
        return {}
    measured = singles.set_index(["seed", "fold"])[list(METRICS)]
    means = measured.groupby("fold").mean().mean().where(measured.notna().all())
    by_member = measured.groupby("seed").mean()[measured.groupby("seed").size() == singles["fold"].nunique()]
    stds = by_member.std().add_suffix("_std")
    return {str(name): float(value) for name, value in [*means.items(), *stds.items()]}


def _average_ensembles(ensembles: pd.DataFrame, singles: pd.DataFrame) -> dict[str, float]:
    """Return means over folds, sums over members, and changes against single members, over folds with an ensemble."""
    if ensembles.empty:
        return {}
    by_fold = ensembles.set_index("fold")
    members = singles[singles["fold"].isin(by_fold.index)]
    members_by_fold = members.groupby("fold")
    change = (by_fold["accuracy"] - members_by_fold["accuracy"].mean()).mean()
    best_accuracy = by_fold[BEST_EPOCH_ACCURACY].mean(skipna=False)  # nan if one fold lacks it
    best_change = best_accuracy - members_by_fold[BEST_EPOCH_ACCURACY].mean().mean()
    summed = list(SUMMED_METRICS)
    sums = members_by_fold[summed].sum(min_count=1).mean().where(members[summed].notna().all())
    means = by_fold[[*AVERAGED_SCORES, "disagreement"]].mean()
    best_epoch = {BEST_EPOCH_ACCURACY: best_accuracy, "delta": change, "delta_best_epoch": best_change}
    return {str(name): float(value) for name, value in [*means.items(), *sums.items(), *best_epoch.items()]}


def _class_rows(folds: Sequence[Sequence[Run]], store: Store, point: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the table of classes, over the folds with an ensemble."""
    with_ensemble = [members for members in _finished_members(folds, store) if len(members) > 1]
    if not with_ensemble:
        return []
    singles: list[ScoredRun] = []
    ensembles: list[ScoredRun] = []
    for members in with_ensemble:
        targets, logits_of = _read_logits(members, store)
        fold = members[0].data.fold
        singles += [
            (fold, run.seed, metrics.per_class(logits, targets)) for run, logits in zip(members, logits_of, strict=True)
        ]
        ensembles.append((fold, 0, metrics.per_class(metrics.soft_vote(logits_of), targets)))
    record = store.finished(with_ensemble[0][0])
    names = record.class_names if record else ()
    return per_class_rows({**point, "condition": "single"}, singles, names) + per_class_rows(
        {**point, "condition": "ensemble"}, ensembles, names
    )


def _pool_clips(
    folds: Sequence[Sequence[Run]], store: Store
) -> dict[str, tuple[np.ndarray, np.ndarray, tuple[str, ...]]]:
    """Return probabilities (clips, classes), targets (clips,) and class names, by condition.

    The clips of all folds with an ensemble are concatenated, for "single" also those of all members.
    """
    with_ensemble = [members for members in _finished_members(folds, store) if len(members) > 1]
    if not with_ensemble:
        return {}
    record = store.finished(with_ensemble[0][0])
    class_names = record.class_names if record else ()
    outputs = [_read_logits(members, store) for members in with_ensemble]
    singles = [(metrics.softmax(logits), targets) for targets, members in outputs for logits in members]
    ensembles = [(metrics.soft_vote(members), targets) for targets, members in outputs]
    return {
        name: (
            np.concatenate([probs for probs, _ in parts]),
            np.concatenate([targets for _, targets in parts]),
            class_names,
        )
        for name, parts in {"single": singles, "ensemble": ensembles}.items()
    }


def _curve_rows(folds: Sequence[Sequence[Run]], store: Store) -> list[dict[str, Any]]:
    """Return mean and range of the accuracy over subsets of each size; each subset is averaged over folds.

    Folds with an unfinished member are left out.
    """
    complete = [_read_logits(members, store) for members in folds if all(store.finished(run) for run in members)]
    if not complete:
        return []
    outputs = [(targets, [metrics.softmax(logits) for logits in members]) for targets, members in complete]
    n_members = len(outputs[0][1])
    rows = []
    for size in range(1, n_members + 1):
        accuracies = [
            float(np.mean([_subset_accuracy(members, subset, targets) for targets, members in outputs]))
            for subset in _sample_subsets(n_members, size)
        ]
        low, high = min(accuracies), max(accuracies)
        rows.append({"members": size, "accuracy": np.mean(accuracies), "accuracy_min": low, "accuracy_max": high})
    return rows


def _finished_members(folds: Sequence[Sequence[Run]], store: Store) -> list[list[Run]]:
    return [[run for run in members if store.finished(run)] for members in folds]


def _sample_subsets(members: int, size: int) -> Iterable[Sequence[int]]:
    """Return all subsets of `size` members, or `MAX_SUBSETS` random ones if there are more; always the same ones."""
    if math.comb(members, size) <= MAX_SUBSETS:
        return itertools.combinations(range(members), size)
    rng = np.random.default_rng(size)
    return [rng.choice(members, size, replace=False).tolist() for _ in range(MAX_SUBSETS)]


def _read_metrics(run: Run, store: Store) -> dict[str, float]:
    """Return all metrics of a run's record."""
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
    """Remove the prefix ``weighted_`` from the names of scores, as tables do."""
    return {name.removeprefix("weighted_"): score for name, score in scores.items()}


def _best_epoch_accuracy(members: Sequence[Run], store: Store) -> float:
    """Return the accuracy of the ensemble of the members' best epochs; nan if a member has not stored its logits."""
    outputs = [store.predictions(run, best=True) for run in members]
    stored = [logits for _, _, logits in outputs if logits.shape[1]]
    return metrics.accuracy(metrics.soft_vote(stored), outputs[0][1]) if len(stored) == len(members) else np.nan


def _subset_accuracy(members: Sequence[np.ndarray], subset: Sequence[int], targets: np.ndarray) -> float:
    return metrics.accuracy(np.mean([members[k] for k in subset], axis=0), targets)


def _read_logits(members: Sequence[Run], store: Store) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return targets (clips,) and the logits (clips, classes) of each member for the same clips."""
    outputs = [store.predictions(run) for run in members]
    assert all(clips == outputs[0][0] for clips, _, _ in outputs)
    return outputs[0][1], [logits for _, _, logits in outputs]
