"""Runs on the report page: data sets, environments, scores, learning curves, confusion matrices and failures."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from analysis.output.number_format import (
    MINUS,
    format_magnitude,
    format_number,
    format_percent,
    format_ranges,
    format_seconds,
)
from analysis.output.tables import MISSING
from analysis.report.table_model import Cell, Table, make_table
from core.config.run import Model, Run
from core.errors import UserError
from core.store.run_store import FAILED, RUNNING, Record, Store

MAX_TABLE_CLASSES = 12  # larger confusion matrices are drawn instead of printed
MAX_DRAWN_CLASSES = 100  # of even larger ones, only the largest confusions are listed
MAX_CURVE_POINTS = 200
LEFT, RIGHT, TOP, BOTTOM = 38, 312, 26, 158  # plot area of a learning curve, in an SVG image of 320 x 190
STYLES = ("train", "validation", "test")


@dataclass(frozen=True)
class Line:
    """One line of a learning curve."""

    name: str
    points: str  # of an SVG polyline


@dataclass(frozen=True)
class Curve:
    """A learning curve."""

    title: str
    lines: list[Line]
    x_ticks: list[tuple[float, str]]  # position and label
    y_ticks: list[tuple[float, str]]
    description: str  # the curve in words, for screen readers


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix: rows are targets, columns are predictions."""

    names: list[str]
    cells: list[tuple[int, int, int, int]]  # row, column, clips, and tenths of the clips of the row
    largest: list[str]  # largest confusions in words

    @property
    def fits_table(self) -> bool:
        """Whether it is small enough for a table of numbers."""
        return len(self.names) <= MAX_TABLE_CLASSES

    @property
    def fits_picture(self) -> bool:
        """Whether it is small enough for a picture, and too large for a table."""
        return MAX_TABLE_CLASSES < len(self.names) <= MAX_DRAWN_CLASSES


@dataclass(frozen=True)
class RunDetail:
    """A finished run with all its details."""

    id: str  # id of its element on the page
    run: str  # id of the run
    title: str
    facts: dict[str, str]
    curves: list[Curve]
    confusion: Confusion | None
    classes: Table | None
    config: str
    analyses: list[tuple[str, str]]  # id and name of each analysis that uses the run


def read_records(store: Store) -> tuple[dict[str, Record], dict[str, str]]:
    """Return the intact records by run id, sorted by settings; and the problems of the damaged ones by run id."""

    def sort_key(record: Record) -> tuple[Any, ...]:
        run, model = record.run, record.run.model
        network = (model.backbone, model.weights, model.cut, model.fuse, model.freeze)
        return run.data.name, *network, run.data.fold, run.seed, record.id

    return {record.id: record for record in sorted(store.records(), key=sort_key)}, store.damaged_runs()


def make_dataset_table(records: Iterable[Record], *, limit: int) -> Table:
    """Return a table with one row for each data set: its size, and the runs on it."""
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        groups[record.run.data.name, record.run.data.content].append(record)
    header = ("Data", "Content", "Classes", "Clips", "Folds tested", "Seeds", "Backbones", "Epochs", "Runs")
    rows = []
    for (name, content), part in groups.items():
        runs = [record.run for record in part]
        done = [record for record in part if record.finished]
        classes = sorted({len(record.class_names) for record in done})
        clips = sorted({record.clips.total for record in done})
        backbones = sorted({f"{run.model.backbone} ({run.model.weights})" for run in runs})
        numbers = [
            format_ranges(values)
            for values in (
                classes,
                clips,
                (run.data.fold for run in runs),
                (run.seed for run in runs),
                (run.training.epochs for run in runs),
            )
        ]
        texts = [text or MISSING for text in numbers]
        rows.append([name, content[:12], *texts[:4], ", ".join(backbones), texts[4], str(len(part))])
    return make_table(header, rows, limit=limit)


def make_environment_table(records: Iterable[Record], *, limit: int) -> Table:
    """Return a table with one row for each combination of machine and library versions."""
    groups: dict[tuple[Any, ...], list[Record]] = defaultdict(list)
    for record in records:
        groups[record.environment, tuple(sorted(record.versions.items()))].append(record)
    parts = [(part[0].environment, part[0].versions, len(part)) for part in groups.values()]
    names = list(dict.fromkeys(name for _, versions, _ in parts for name in versions))
    rows = []
    for machine, versions, count in parts:
        device = f"{machine.device or MISSING} {machine.device_name}".strip()
        computed = (str(machine.threads or MISSING), machine.precision or MISSING)
        rows.append([str(count), device, *computed, *(versions.get(n, "") for n in names)])
    return make_table(("Runs", "Device", "Threads", "Precision", *(n.capitalize() for n in names)), rows, limit=limit)


def make_run_table(records: Iterable[Record], targets: Mapping[str, str], *, limit: int) -> Table:
    """Return a table of all runs; `targets` maps run ids to the elements of their details."""
    header = ("Run", "Data", "Fold", "Seed", "Backbone", "Weights", "Changed", "Accuracy %", "Best epoch %")
    rows: list[list[str | Cell]] = []
    for record in records:
        data, model, scores = record.run.data, record.run.model, record.metrics
        rows.append(
            [
                Cell(record.id, target=targets.get(record.id, "")),
                data.name,
                str(data.fold),
                str(record.run.seed),
                model.backbone,
                model.weights,
                describe_surgery(model),
                *map(_format_percent, (scores.accuracy, scores.accuracy_best_epoch, record.macro_f1)),
                Cell(format_seconds(record.seconds.total), record.seconds.total) if record.seconds.total else MISSING,
                record.status,
            ]
        )
    return make_table((*header, "Macro F1 %", "Time", "Status"), rows, limit=limit)


def make_unfinished_table(records: Iterable[Record], *, limit: int) -> Table:
    """Return a table of failed and unfinished runs, with reasons."""
    reasons = {RUNNING: "Training now, or interrupted: the same command resumes from the last epoch."}
    rows = [
        [
            record.id,
            describe_run(record.run),
            record.status,
            record.reason or reasons.get(record.status, "No reason was recorded."),
        ]
        for record in records
        if record.status in (FAILED, RUNNING)
    ]
    return make_table(("Run", "Settings", "Status", "Reason"), rows, limit=limit)


def describe_surgery(model: Model) -> str:
    """Return in words how an ablation changed a network; "nothing" if it did not."""
    words = []
    if model.freeze != "none":
        words.append(f"frozen through {model.freeze}")
    if model.fuse != "all":
        words.append(f"starting weights through {model.fuse}")
    if model.cut != "none":
        words.append(f"cut after {model.cut}")
    return ", ".join(words) or "nothing"


def describe_run(run: Run) -> str:
    """Return network, data, fold and seed of a run in words."""
    model, data = run.model, run.data
    surgery = "" if describe_surgery(model) == "nothing" else f", {describe_surgery(model)}"
    return f"{model.backbone} ({model.weights}{surgery}) on {data.display_name}, fold {data.fold}, seed {run.seed}"


def make_run_detail(record: Record, store: Store, *, id: str, analyses: list[tuple[str, str]]) -> RunDetail:
    """Return the details of a finished run."""
    scores, clips, seconds = record.metrics, record.clips, record.seconds
    facts = {
        "Accuracy": f"{format_percent(scores.accuracy)} % (last epoch)",
        "Best epoch on the test fold": f"{format_percent(scores.accuracy_best_epoch)} % (epoch {scores.best_epoch})",
        "Macro F1": f"{format_percent(record.macro_f1)} %",
        "NLL, Brier, ECE": ", ".join(map(format_number, (scores.nll, scores.brier, scores.ece)))
        + ("" if math.isnan(scores.ece_calibrated) else f" ({format_number(scores.ece_calibrated)} if calibrated)")
        if record.run.training.has_probabilities
        else "not defined: the hinge loss gives no probabilities",
        "Clips": ", ".join(f"{count} {name}" for name, count in asdict(clips).items() if count),
        "Clips left out": str(len(record.bad_clips) or "none"),
        "Parameters": f"{format_magnitude(record.trainable_parameters)} trained "
        f"of {format_magnitude(record.parameters)}",
        "Time": ", ".join(f"{name} {format_seconds(value)}" for name, value in asdict(seconds).items()),
    }
    return RunDetail(
        id=id,
        run=record.id,
        title=describe_run(record.run),
        facts=facts,
        curves=_make_curves(store, record),
        confusion=make_confusion(record.confusion, record.class_names),
        classes=_make_class_table(record),
        config=json.dumps(record.run.to_dict(), indent=1),
        analyses=analyses,
    )


def make_confusion(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> Confusion:
    """Return a confusion matrix for the page, from counts of clips with shape (classes, classes)."""
    cells, errors = [], []
    for row, counts in enumerate(matrix):
        total = max(1, sum(counts))
        for column, clips in enumerate(counts):
            if clips or len(names) <= MAX_TABLE_CLASSES:
                cells.append((row, column, clips, round(10 * clips / total)))
            if clips and row != column:
                errors.append((clips, -row, f"{clips} of {total} {names[row]} predicted as {names[column]}"))
    return Confusion(list(names), cells, [text for *_, text in sorted(errors, reverse=True)[:8]])


def make_curve(history: pd.DataFrame, metric: str, *, styles: Sequence[str] = STYLES) -> Curve | None:
    """Return the learning curve of a metric, ``accuracy`` or ``loss``; None if the history does not have it."""
    scale = 100.0 if metric == "accuracy" else 1.0
    lines: dict[str, list[tuple[int, float]]] = {}
    for style in styles:
        if f"{style}_{metric}" in history:
            values = zip(history["epoch"], scale * history[f"{style}_{metric}"], strict=True)
            lines[style] = [(int(epoch), value) for epoch, value in values if math.isfinite(value)]
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return None
    first, last = int(history["epoch"].min()), int(history["epoch"].max())
    top = 100.0 if metric == "accuracy" else max(1e-9, *(value for points in lines.values() for _, value in points))

    def x(epoch: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * (epoch - first) / max(1, last - first), 1)

    def y(value: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * value / top, 1)

    svg_lines = [
        Line(name, " ".join(f"{x(epoch)},{y(value)}" for epoch, value in _thin_points(points)))
        for name, points in lines.items()
    ]
    unit = " %" if metric == "accuracy" else ""
    changes = [f"{name} {points[0][1]:.3g}{unit} to {points[-1][1]:.3g}{unit}" for name, points in lines.items()]
    return Curve(
        title="Accuracy (%)" if metric == "accuracy" else "Loss",
        lines=svg_lines,
        x_ticks=[(x(epoch), str(epoch)) for epoch in sorted({first, (first + last) // 2, last})],
        y_ticks=[(y(part * top), f"{part * top:.3g}".replace("-", MINUS)) for part in (0, 0.5, 1)],
        description=f"{metric.capitalize()} from epoch {first} to {last}: {', '.join(changes)}.",
    )


def _make_curves(store: Store, record: Record) -> list[Curve]:
    """Return the learning curves of a run; the losses only if all parts have the cross-entropy."""
    has_one_loss = record.run.training.has_probabilities
    try:
        history = store.history(record.id)
        curves = (
            make_curve(history, "accuracy"),
            make_curve(history, "loss", styles=STYLES if has_one_loss else STYLES[:1]),
        )
        return [curve for curve in curves if curve]
    except (UserError, ValueError, TypeError, KeyError):
        return []


def _thin_points(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return about `MAX_CURVE_POINTS` evenly spaced points, always with the last one."""
    step = math.ceil(len(points) / MAX_CURVE_POINTS)
    return [*points[:-1][::step], points[-1]]


def _make_class_table(record: Record) -> Table:
    scores = record.per_class
    columns = zip(record.class_names, scores.precision, scores.recall, scores.f1, scores.support, strict=True)
    rows = [[name, *map(_format_percent, values), str(clips)] for name, *values, clips in columns]
    return make_table(("Class", "Precision %", "Recall %", "F1 %", "Clips"), rows, limit=len(rows))


def _format_percent(value: float) -> str:
    return format_percent(value) if math.isfinite(value) else MISSING
