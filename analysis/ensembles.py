"""Deep ensembles over seeds: the mean of the members' softmax outputs, compared with single members."""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis import condition_report
from analysis.metrics.calibration_error import Outputs, pooled_calibration
from analysis.metrics.condition_summary import dataset_and_backbone, run_counts
from analysis.metrics.per_class import ScoredRun, per_class_rows, write_per_class_rows
from analysis.metrics.registry import (
    ACCURACY_COLUMN,
    CHANGE_COLUMN,
    MACRO_F1_COLUMN,
    METRICS,
    POOLED_CALIBRATION_NOTE,
    POOLED_METRICS,
    metric_column,
)
from analysis.metrics.shared_runs import MEMBERS
from analysis.output.number_format import format_count, format_p_value, format_percent, format_points
from analysis.output.output_folder import OutputFolder
from analysis.output.tables import Column, FullTable
from analysis.plots import by_condition
from analysis.plots.calibration import reliability_bins, write_calibration
from analysis.plots.confusion import ConfusionMatrix, write_confusion_matrices
from analysis.plots.learning_curves import write_learning_curves
from analysis.statistics.hypothesis_tests import OVERLAP_NOTE, FoldSizes, compare_pairs, holm
from analysis.statistics.sentences import describe_ensembles
from core.config.run import Run
from core.plan import Plan, PlannedRun
from core.store.run_store import Store
from core.training import metrics

MIN_MEMBERS = 2  # smallest number of finished members in a fold whose outputs are averaged
MAX_SUBSETS = 1000  # largest number of subsets per ensemble size; 20 members have a million subsets
BEST_EPOCH_ACCURACY = "accuracy_best_epoch"
AVERAGED_SCORES = ("accuracy", "macro_f1", "balanced_accuracy", "precision", "recall", "f1", "nll", "brier")
PROBABILITY_SCORES = ("nll", "brier", *POOLED_METRICS)
SUMMED_METRICS = (
    "time_to_converge",
    "prediction_ms",
    "seconds",
    "trainable_parameters",
    "parameters",
)  # metrics of an ensemble that are sums over its members
TEST_COLUMNS = ("low", "high", "p")
CHANGES = ("delta", "delta_best_epoch")
COLUMNS = (
    Column("members", "Members", format_count),
    Column("folds", "Folds", format_count),
    ACCURACY_COLUMN,
    Column(BEST_EPOCH_ACCURACY, "Best epoch %", format_percent, std=f"{BEST_EPOCH_ACCURACY}_std"),
    MACRO_F1_COLUMN,
    CHANGE_COLUMN,
    Column("low", "From", format_points),
    Column("high", "To", format_points),
    Column("p_holm", "p (Holm)", format_p_value),
    *(metric_column(name, spread=False) for name in PROBABILITY_SCORES),
    Column("disagreement", "Differ %", format_percent),
)
NARROW_COLUMNS = (
    COLUMNS[0],
    ACCURACY_COLUMN,
    Column("delta", "Change", format_points, bounds=("low", "high")),
    Column("p_holm", "p", format_p_value),
)
FOOTNOTES = (
    "Single: mean over folds ± standard deviation between members (each averaged over folds). Ensemble: mean of the "
    "members' softmax outputs. Both over the same folds; results of the last epoch. Differ: fraction of clips on which "
    "two members disagree, mean over pairs.",
    "Change: accuracy of the ensemble minus mean accuracy of its members, with 95 % interval and p-value of "
    "the paired corrected t test over folds, Holm-corrected over the ensembles of this table. A single fold has no "
    f"interval and no p-value, and nothing is bold. {OVERLAP_NOTE}",
    "Best epoch: epoch of each member chosen on the test fold, therefore optimistic; the ensemble averages the outputs "
    "of these epochs if all members have stored them.",
    "Macro F1: unweighted mean over the classes in the test fold. Members without results of all folds do not "
    "contribute to the standard deviation.",
)
HINGE_NOTE = "NLL, Brier and ECE are not defined for networks trained with hinge loss, which gives no probabilities."
SUMS_NOTE = "Ensemble: times and parameters are sums over all members."
CURVE_CAPTION = (
    "accuracy against the number of members; line and band: mean and range over all subsets of each size, or over "
    f"{MAX_SUBSETS:,} random ones if there are more; complete folds only. The band is no confidence interval: subsets "
    "share members, and at the largest size there is only one, so the band of every ensemble becomes narrower."
)


@dataclass(frozen=True)
class _Fold:
    """Finished members of an ensemble in one fold, with their outputs.

    Attributes
    ----------
    members
        The runs, at least one.
    planned
        Number of planned members.
    targets
        Class numbers, shape (clips,).
    logits
        Logits of each member for the same clips, shape (clips, classes).
    class_names
        Names of the classes.
    """

    members: Sequence[Run]
    planned: int
    targets: np.ndarray
    logits: Sequence[np.ndarray]
    class_names: tuple[str, ...]

    @property
    def number(self) -> int:
        """Number of the fold."""
        return self.members[0].data.fold

    @property
    def is_complete(self) -> bool:
        """Whether all planned members have finished."""
        return len(self.members) == self.planned


@dataclass(frozen=True)
class _Ensemble:
    """An ensemble at one grid point.

    Attributes
    ----------
    point
        Values of the grid columns.
    planned
        All planned runs, in the order of the plan.
    folds
        The folds with a finished member.
    """

    point: Mapping[str, Any]
    planned: Sequence[PlannedRun]
    folds: Sequence[_Fold]

    @property
    def voting_folds(self) -> list[_Fold]:
        """The folds with at least two finished members, whose outputs can be averaged."""
        return [fold for fold in self.folds if len(fold.members) >= MIN_MEMBERS]

    @property
    def compared_folds(self) -> Sequence[_Fold]:
        """The folds over which single members and ensemble are scored: `voting_folds`, or all folds if it is empty."""
        return self.voting_folds or self.folds

    @property
    def has_probabilities(self) -> bool:
        """Whether the softmax outputs of all members are probabilities; they are not for hinge loss."""
        return all(each.run.training.has_probabilities for each in self.planned)

    def describe_missing(self) -> str:
        """Return a footnote that names folds with unfinished members, and folds that are left out; "" if none is."""
        planned: dict[int, int] = defaultdict(int)
        for each in self.planned:
            planned[each.run.data.fold] += 1
        finished = {fold.number: len(fold.members) for fold in self.folds}
        lacking = {number: finished.get(number, 0) for number in planned if finished.get(number, 0) < planned[number]}
        if not lacking or not self.folds:
            return ""
        name = f" ({', '.join(map(str, self.point.values()))})" if self.point else ""
        counts = "; ".join(f"fold {number} has {count} of {planned[number]}" for number, count in lacking.items())
        left_out = [str(number) for number, count in lacking.items() if count < MIN_MEMBERS]
        if left_out and self.voting_folds:
            counts += f". An ensemble needs {MIN_MEMBERS}: fold {', '.join(left_out)} left out of both rows"
        return f"Missing members{name}: {counts}."


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
    store, caption = results.session.store, condition_report.make_caption(results.plan)
    names, ensembles = _read_ensembles(results.plan, store)
    leading = [*condition_report.make_grid_columns(names), Column("condition", title)]
    frame = pd.DataFrame(
        [
            {**each.point, **row, **dataset_and_backbone(each.planned[0])}
            for each in ensembles
            for row in _table_rows(each, store)
        ]
    )
    frame["p_holm"] = holm(frame["p"].tolist())
    have_probabilities = [each.has_probabilities for each in ensembles]
    columns = [column for column in COLUMNS if any(have_probabilities) or column.name not in PROBABILITY_SCORES]
    if frame["folds"].max() <= 1:
        columns = [replace(column, best=None) for column in columns]
    missing = list(filter(None, (each.describe_missing() for each in ensembles)))
    notes = [
        *FOOTNOTES,
        *([POOLED_CALIBRATION_NOTE] if any(have_probabilities) else []),
        *([] if all(have_probabilities) else [HINGE_NOTE]),
        *missing,
    ]
    requested = condition_report.requested_metric_columns(results, COLUMNS)
    in_full_table = [column for column in columns if column.name in results.session.execution.metric]
    metric_columns = [column for column in in_full_table if column.name != "accuracy"]
    narrow = [replace(column, best=None) if frame["folds"].max() <= 1 else column for column in NARROW_COLUMNS]
    results.write_table(
        "table",
        frame,
        [*leading, *narrow, *metric_columns, *requested],
        caption=caption,
        footnotes=[*FOOTNOTES[:2], *missing, *([] if all(have_probabilities) else [HINGE_NOTE])],
        groups=names,
        full=FullTable([*leading, *columns, *requested], notes),
    )
    condition_report.write_metrics(results, frame, leading, notes=[*notes, SUMS_NOTE])
    condition_report.write_requested_bars(results, frame, names, title=title)
    class_rows = [row for each in ensembles for row in _class_rows(each)]
    write_per_class_rows(results, class_rows, leading, caption=caption)
    _write_members_curve(results, ensembles, names, caption=caption)
    bins, matrices = _pool_clips(ensembles)
    if bins:
        scores = frame[[*names, "condition", *POOLED_METRICS]]
        write_calibration(results, pd.concat(bins, ignore_index=True).merge(scores), names, caption=caption)
    singles = [({**each.point, "condition": "single"}, each.planned) for each in ensembles]
    write_learning_curves(results, singles, caption=caption)
    write_confusion_matrices(results, matrices, caption=caption)
    results.sentences += describe_ensembles(frame, grid=names)
    return frame


def _write_members_curve(
    results: OutputFolder, ensembles: Sequence[_Ensemble], names: Sequence[str], *, caption: str
) -> None:
    """Write the figure of accuracy against the number of members."""
    rows = [{**each.point, **row} for each in ensembles for row in _curve_rows(each)]
    if not rows:
        return
    curve, series = condition_report.add_grid_label(pd.DataFrame(rows), names)
    results.write_figure(
        "figure",
        curve,
        by_condition.draw_ensemble_curve,
        caption=f"{caption}: {CURVE_CAPTION}",
        options={"series": series},
    )


def _class_rows(ensemble: _Ensemble) -> list[dict[str, Any]]:
    """Return the rows of the table of classes, averaged over the folds with an ensemble."""
    folds = ensemble.voting_folds
    if not folds:
        return []
    singles: list[ScoredRun] = []
    ensembles: list[ScoredRun] = []
    for fold in folds:
        singles += [
            (run.data.fold, run.seed, metrics.per_class(logits, fold.targets))
            for run, logits in zip(fold.members, fold.logits, strict=True)
        ]
        scores = metrics.per_class(metrics.soft_vote(fold.logits), fold.targets)
        ensembles.append((fold.number, 0, scores))
    names = folds[0].class_names
    return per_class_rows({**ensemble.point, "condition": "single"}, singles, names) + per_class_rows(
        {**ensemble.point, "condition": "ensemble"}, ensembles, names
    )


def _pool_clips(ensembles: Iterable[_Ensemble]) -> tuple[list[pd.DataFrame], list[ConfusionMatrix]]:
    """Return reliability bins and confusion matrix of each grid point and condition, over the folds with an ensemble.

    The clips of all folds are pooled; for "single", also those of all members. There are no bins for outputs that are
    no probabilities.
    """
    bins, matrices = [], []
    for ensemble in ensembles:
        folds = ensemble.voting_folds
        if not folds:
            continue
        singles = [(metrics.softmax(logits), fold.targets) for fold in folds for logits in fold.logits]
        averages = [(metrics.soft_vote(fold.logits), fold.targets) for fold in folds]
        for condition, outputs in {"single": singles, "ensemble": averages}.items():
            values = {**ensemble.point, "condition": condition}
            probs, targets = (np.concatenate(arrays) for arrays in zip(*outputs, strict=True))
            if ensemble.has_probabilities:
                bins.append(reliability_bins(probs, targets).assign(**values))
            clips = metrics.confusion_matrix(probs, targets)
            matrices.append(ConfusionMatrix(values, folds[0].class_names, clips, len(ensemble.planned)))
    return bins, matrices


def _read_ensembles(plan: Plan, store: Store) -> tuple[list[str], list[_Ensemble]]:
    """Return the grid columns, with ``first_seed`` if it varies, and the ensemble at each grid point."""
    groups = plan.groups(lambda planned: {"first_seed": planned.reference.seed})
    several = len({values["first_seed"] for values, _ in groups}) > 1
    names = [*plan.grid, *(["first_seed"] if several else [])]
    ensembles = []
    for values, planned in groups:
        by_fold: dict[int, list[Run]] = defaultdict(list)
        for member in planned:
            by_fold[member.run.data.fold].append(member.run)
        folds = [fold for members in by_fold.values() if (fold := _read_fold(members, store))]
        ensembles.append(_Ensemble({name: values[name] for name in names}, planned, folds))
    return names, ensembles


def _read_fold(runs: Sequence[Run], store: Store) -> _Fold | None:
    """Read the outputs of the finished members of a fold; None if there are none."""
    finished = [(run, record) for run in runs if (record := store.finished(run))]
    if not finished:
        return None
    outputs = [store.predictions(run) for run, _ in finished]
    clips, targets, _ = outputs[0]
    assert all(other == clips for other, _, _ in outputs)
    return _Fold(
        members=[run for run, _ in finished],
        planned=len(runs),
        targets=targets,
        logits=[logits for _, _, logits in outputs],
        class_names=finished[0][1].class_names,
    )


def _table_rows(ensemble: _Ensemble, store: Store) -> list[dict[str, Any]]:
    """Return the rows "single" and "ensemble" of the main table, over `_Ensemble.compared_folds`.

    Columns
    -------
    condition, members, folds, compared
        Name of the row, number of members (the largest of all folds), and numbers of compared folds and runs.
    all `METRICS`, with ``_std``
        Single: means over folds, members averaged within each fold; ``_std`` is the standard deviation between members.
        Ensemble: means over folds, sums over members of `SUMMED_METRICS`. nan for `PROBABILITY_SCORES` if the outputs
        are no probabilities.
    ece, ece_calibrated
        `analysis.metrics.calibration_error.pooled_calibration`; single: mean over members.
    disagreement
        Fraction of clips on which two members disagree.
    delta, delta_best_epoch
        Accuracy of the ensemble minus mean accuracy of its members.
    low, high, p
        95 % interval of ``delta`` over folds, and p-value (`analysis.statistics.hypothesis_tests.compare_pairs`).
    """
    folds = ensemble.compared_folds
    singles = pd.DataFrame(
        [
            {
                "fold": run.data.fold,
                "seed": run.seed,
                **_read_metrics(run, store),
                **_score_member(logits, fold.targets),
            }
            for fold in folds
            for run, logits in zip(fold.members, fold.logits, strict=True)
        ]
    )
    ensembles = pd.DataFrame(
        [
            {
                "fold": fold.number,
                **_score_ensemble(fold.logits, fold.targets),
                BEST_EPOCH_ACCURACY: _best_epoch_accuracy(fold.members, store),
            }
            for fold in ensemble.voting_folds
        ]
    )
    runs = [each.run for each in ensemble.planned]
    counts = run_counts(runs, {run.id: store.record(run) for run in runs})
    counts |= {"folds": len(folds), "compared": sum(len(fold.members) for fold in folds)}
    n_members = max((len(fold.members) for fold in ensemble.folds), default=0)
    names = (*METRICS, *(f"{name}_std" for name in METRICS), "disagreement", *CHANGES, *TEST_COLUMNS)
    empty = dict.fromkeys(names, np.nan)
    single = _average_members(singles) | _pool_members(folds) | dict.fromkeys(CHANGES, 0.0)
    single |= dict.fromkeys((f"{name}_std" for name in POOLED_METRICS), np.nan)
    rows = [
        {"condition": "single", "members": 1, "over": MEMBERS} | empty | single | counts,
        {"condition": "ensemble", "members": n_members} | empty | _average_ensembles(ensembles, singles) | counts,
    ]
    if len(ensembles):
        rows[1] |= _pool_ensembles(folds) | _test_change(ensembles, singles, folds, store)
    if not ensemble.has_probabilities:
        rows = [row | dict.fromkeys(PROBABILITY_SCORES, np.nan) for row in rows]
    return rows


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
    """Return means over folds, sums over members, and changes against single members of the same folds."""
    if ensembles.empty:
        return {}
    by_fold = ensembles.set_index("fold")
    members_by_fold = singles.groupby("fold")
    change = (by_fold["accuracy"] - members_by_fold["accuracy"].mean()).mean()
    best_accuracy = by_fold[BEST_EPOCH_ACCURACY].mean(skipna=False)  # nan if one fold lacks it
    best_change = best_accuracy - members_by_fold[BEST_EPOCH_ACCURACY].mean().mean()
    summed = list(SUMMED_METRICS)
    sums = members_by_fold[summed].sum(min_count=1).mean().where(singles[summed].notna().all())
    means = by_fold[[*AVERAGED_SCORES, "disagreement"]].mean()
    best_epoch = {BEST_EPOCH_ACCURACY: best_accuracy, "delta": change, "delta_best_epoch": best_change}
    return {str(name): float(value) for name, value in [*means.items(), *sums.items(), *best_epoch.items()]}


def _test_change(
    ensembles: pd.DataFrame, singles: pd.DataFrame, folds: Sequence[_Fold], store: Store
) -> dict[str, float]:
    """Return interval and p-value of the accuracy difference between ensemble and mean member, paired by fold."""
    index = pd.MultiIndex.from_product([ensembles["fold"], [0]])  # the second level is the seed, here a single one
    mean_member = singles.groupby("fold")["accuracy"].mean()[ensembles["fold"]]
    records = (record for fold in folds for run in fold.members if (record := store.finished(run)))
    sides = (pd.Series(side.to_numpy(), index) for side in (ensembles["accuracy"], mean_member))
    test = compare_pairs(*sides, sizes=FoldSizes.from_records(records))
    return {"low": test.low, "high": test.high, "p": test.p}


def _pool_members(folds: Sequence[_Fold]) -> dict[str, float]:
    """Return the calibration of single members: each over its clips of all folds, mean over members."""
    outputs: dict[int, list[Outputs]] = defaultdict(list)
    for fold in folds:
        for run, logits in zip(fold.members, fold.logits, strict=True):
            outputs[run.seed].append((metrics.softmax(logits), fold.targets))
    return pooled_calibration(outputs.values())


def _pool_ensembles(folds: Sequence[_Fold]) -> dict[str, float]:
    """Return the calibration of the ensemble over the clips of all folds."""
    return pooled_calibration([[(metrics.soft_vote(fold.logits), fold.targets) for fold in folds]])


def _read_metrics(run: Run, store: Store) -> dict[str, float]:
    """Return all metrics of a run's record."""
    record = store.finished(run)
    assert record
    return {name: measure.read(record) for name, measure in METRICS.items()}


def _score_member(logits: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Return the scores of one network, by metric."""
    return _rename_weighted(metrics.summarise(logits, targets)) | {
        "macro_f1": metrics.per_class(logits, targets).macro_f1
    }


def _score_ensemble(members: Sequence[np.ndarray], targets: np.ndarray) -> dict[str, float]:
    """Return the scores of the averaged softmax outputs of the members, from their logits, by metric."""
    scores = _rename_weighted(metrics.summarise_ensemble(members, targets))
    return scores | {"macro_f1": metrics.per_class(metrics.soft_vote(members), targets).macro_f1}


def _rename_weighted(scores: Mapping[str, float]) -> dict[str, float]:
    """Remove the prefix ``weighted_`` from the names of scores, as tables do."""
    return {name.removeprefix("weighted_"): score for name, score in scores.items()}


def _best_epoch_accuracy(members: Sequence[Run], store: Store) -> float:
    """Return the accuracy of an ensemble of the best epoch of each member; nan if a member did not store its logits."""
    outputs = [store.predictions(run, best=True) for run in members]
    stored = [logits for _, _, logits in outputs if logits.shape[1]]
    return metrics.accuracy(metrics.soft_vote(stored), outputs[0][1]) if len(stored) == len(members) else np.nan


def _curve_rows(ensemble: _Ensemble) -> list[dict[str, Any]]:
    """Return mean and range of the accuracy over subsets of each size; each subset is averaged over folds.

    Folds with an unfinished member are left out.
    """
    outputs = [
        (fold.targets, [metrics.softmax(logits) for logits in fold.logits])
        for fold in ensemble.folds
        if fold.is_complete
    ]
    if not outputs:
        return []
    n_members = len(outputs[0][1])
    rows = []
    for size in range(1, n_members + 1):
        accuracies = [
            np.mean([_subset_accuracy(members, subset, targets) for targets, members in outputs])
            for subset in _sample_subsets(n_members, size)
        ]
        low, high = min(accuracies), max(accuracies)
        rows.append({"members": size, "accuracy": np.mean(accuracies), "accuracy_min": low, "accuracy_max": high})
    return rows


def _sample_subsets(members: int, size: int) -> Iterable[Sequence[int]]:
    """Return all subsets of `size` members, or `MAX_SUBSETS` random ones if there are more; the seed is fixed."""
    if math.comb(members, size) <= MAX_SUBSETS:
        return itertools.combinations(range(members), size)
    rng = np.random.default_rng(size)
    return [rng.choice(members, size, replace=False).tolist() for _ in range(MAX_SUBSETS)]


def _subset_accuracy(members: Sequence[np.ndarray], subset: Sequence[int], targets: np.ndarray) -> float:
    return metrics.accuracy(np.mean([members[k] for k in subset], axis=0), targets)
