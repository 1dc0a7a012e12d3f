"""Every number that a run leaves and a condition has a mean of: how it is read, called and written, in one place.

A new one is a line in `METRICS`; tables, bars (`--metric`) and published numbers then know it by its name.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

from analysis.output.number_format import (
    format_average,
    format_magnitude,
    format_milliseconds,
    format_number,
    format_percent,
    format_seconds,
)
from analysis.output.tables import Column
from core.errors import unknown_name_error
from core.store.record import Record


@dataclass(frozen=True)
class Metric:
    """One number of a run.

    Attributes
    ----------
    title
        Of a table's column.
    axis
        What the axis of a figure says, with the unit.
    read
        Takes it from a finished run's record; nan where the record lacks it.
    format
        How it is written.
    best
        Whether more or less of it is better, where one is.
    scale
        What the axis multiplies it by.
    """

    title: str
    axis: str
    read: Callable[[Record], float]
    format: Callable[..., str] = format_percent
    best: Literal["max", "min"] | None = "max"
    scale: float = 100.0

    @property
    def is_share(self) -> bool:
        """Whether it is a fraction, drawn in percent of a whole axis."""
        return self.format is format_percent


def _metric_reader(name: str) -> Callable[[Record], float]:
    """Read a metric of the record."""
    get = attrgetter(name)
    return lambda record: float(get(record.metrics))


def _fraction_metric(title: str, axis: str, name: str) -> Metric:
    return Metric(title, f"{axis} (%)", _metric_reader(name))


def _count_metric(title: str, axis: str, get: Callable[[Record], float]) -> Metric:
    return Metric(title, f"{axis} (millions)", lambda record: get(record) or math.nan, format_magnitude, None, 1e-6)


def _read_best_epoch(record: Record) -> float:
    return record.metrics.validation_epoch or record.metrics.best_epoch or math.nan


METRICS = {
    "accuracy": _fraction_metric("Accuracy %", "Accuracy", "accuracy"),
    "accuracy_best_epoch": _fraction_metric("Best epoch %", "Accuracy of the best epoch", "accuracy_best_epoch"),
    "balanced_accuracy": _fraction_metric("Balanced %", "Balanced accuracy", "balanced_accuracy"),
    "macro_f1": Metric("Macro F1 %", "Macro F1 (%)", attrgetter("macro_f1")),
    "precision": _fraction_metric("Precision %", "Weighted precision", "weighted_precision"),
    "recall": _fraction_metric("Recall %", "Weighted recall", "weighted_recall"),
    "f1": _fraction_metric("F1 %", "Weighted F1", "weighted_f1"),
    "training_accuracy": _fraction_metric("Training %", "Training accuracy", "training_accuracy"),
    "validation_accuracy": _fraction_metric("Validation %", "Validation accuracy", "validation_accuracy"),
    "nll": Metric("NLL", "Negative log likelihood (nats)", _metric_reader("nll"), format_number, "min", 1.0),
    "brier": Metric("Brier", "Brier score", _metric_reader("brier"), format_number, "min", 1.0),
    "ece": Metric("ECE", "Expected calibration error", _metric_reader("ece"), format_number, "min", 1.0),
    "epochs": Metric("Epochs", "Epochs", lambda record: record.epochs or math.nan, format_average, None, 1.0),
    "best_epoch": Metric("Best epoch", "Best epoch", _read_best_epoch, format_average, None, 1.0),
    "time_to_converge": Metric(
        "To converge", "Time to converge (s)", _metric_reader("time_to_converge"), format_seconds, "min", 1.0
    ),
    "prediction_ms": Metric(
        "Prediction ms", "Prediction time (ms)", _metric_reader("prediction_ms"), format_milliseconds, "min", 1.0
    ),
    "seconds": Metric("Time", "Training and evaluation (s)", attrgetter("seconds.epochs"), format_seconds, "min", 1.0),
    "trainable_parameters": Metric(
        "Trainable", "Trainable parameters (millions)", attrgetter("trainable_parameters"), format_magnitude, None, 1e-6
    ),
    "parameters": _count_metric("Parameters", "Parameters", attrgetter("parameters")),
    "parameters_with_statistics": _count_metric(
        "With statistics", "Parameters with moving statistics", attrgetter("parameters_with_statistics")
    ),
}
METRIC_NOTES = (
    "Balanced: mean recall of the classes. Precision, recall and F1: of the classes, weighted by their clips; the "
    "recall is then the accuracy. Macro F1: over the classes that the test fold has. Training: over the batches of the "
    "last epoch as they were trained on, augmented and with dropout.",
    "Best epoch: the best on the validation clips or, without such, on the test fold. To converge: seconds of training "
    "until the end of that epoch, without evaluation and what is prepared once. Prediction: milliseconds for a clip of "
    "the test fold as an epoch ends with it, many at a time, from the stored input to the logits, a frozen prefix "
    "included. – : not recorded.",
)


def check_metrics(names: Iterable[str]) -> None:
    """Refuse a name that is no measure's.

    Raises
    ------
    UserError
        With the nearest name.
    """
    for name in names:
        if name not in METRICS:
            raise unknown_name_error("metric", name, METRICS)


def metric_column(name: str, *, spread: bool = True) -> Column:
    """Return the column of a table that shows a measure, with its deviation."""
    measure = METRICS[name]
    return Column(name, measure.title, measure.format, best=measure.best, std=f"{name}_std" * spread)
