"""Registry of metrics: how each metric is read from a run's record, titled and formatted.

To add a metric, add an entry to `METRICS`. Tables, bars (``--metric``) and published numbers find it by name.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Literal

from analysis.output.number_format import (
    format_average,
    format_magnitude,
    format_milliseconds,
    format_number,
    format_percent,
    format_points,
    format_seconds,
)
from analysis.output.tables import Column
from core.errors import UserError, unknown_name_error
from core.store.record import Record


@dataclass(frozen=True)
class Metric:
    """A metric of a run.

    Attributes
    ----------
    title
        Heading of its table column.
    axis
        Axis label with unit.
    read
        Function that returns the value from the record of a finished run; nan if the record lacks it.
    format
        Function that formats a value.
    best
        Whether the largest or the smallest value is best; None if neither is.
    scale
        Factor that converts a value to the unit of `axis`.
    note
        Remark for the captions of figures, or "".
    """

    title: str
    axis: str
    read: Callable[[Record], float]
    format: Callable[..., str] = format_percent
    best: Literal["max", "min"] | None = "max"
    scale: float = 100.0
    note: str = ""

    @property
    def is_fraction(self) -> bool:
        """Whether the values are fractions, drawn on an axis from 0 to 100 %."""
        return self.format is format_percent

    @property
    def is_score(self) -> bool:
        """Whether the values are means over clips that depend on the training set, unlike times and counts."""
        return self.is_fraction or self.format is format_number


def _metric_reader(name: str) -> Callable[[Record], float]:
    """Return a function that reads a metric from a record."""
    get = attrgetter(name)
    return lambda record: float(get(record.metrics))


def _probability_reader(name: str) -> Callable[[Record], float]:
    """Return a function that reads a metric of probabilities; nan for a loss that gives none."""
    read = _metric_reader(name)
    return lambda record: read(record) if record.run.training.has_probabilities else math.nan


def _fraction_metric(title: str, axis: str, name: str) -> Metric:
    return Metric(title, f"{axis} (%)", _metric_reader(name))


def _count_metric(title: str, axis: str, get: Callable[[Record], float]) -> Metric:
    return Metric(title, f"{axis} (millions)", lambda record: get(record) or math.nan, format_magnitude, None, 1e-6)


def _read_best_epoch(record: Record) -> float:
    return record.metrics.validation_epoch or record.metrics.best_epoch or math.nan


def _read_time_to_converge(record: Record) -> float:
    """Read the time to converge; nan if the time of the frozen prefix is missing, as in records of older versions."""
    scores = record.metrics
    return math.nan if record.prefix_reused and math.isnan(scores.prefix_ms) else scores.time_to_converge


METRICS = {
    "accuracy": _fraction_metric("Accuracy %", "Accuracy", "accuracy"),
    "accuracy_best_epoch": _fraction_metric("Best epoch %", "Accuracy of the best epoch", "accuracy_best_epoch"),
    "balanced_accuracy": _fraction_metric("Balanced %", "Balanced accuracy", "balanced_accuracy"),
    "macro_f1": Metric("Macro F1 %", "Macro F1 (%)", attrgetter("macro_f1")),
    "precision": _fraction_metric("Precision %", "Weighted precision", "weighted_precision"),
    "recall": _fraction_metric("Recall %", "Weighted recall", "weighted_recall"),
    "f1": _fraction_metric("F1 %", "Weighted F1", "weighted_f1"),
    "holdout_accuracy": Metric(
        "Held-out %",
        "Held-out accuracy (%)",
        lambda record: math.nan,  # not in records; `analysis.metrics.holdout_accuracy` computes it
        note="all runs have the same held-out clips",
    ),
    "training_accuracy": _fraction_metric("Training %", "Training accuracy", "training_accuracy"),
    "validation_accuracy": _fraction_metric("Validation %", "Validation accuracy", "validation_accuracy"),
    "nll": Metric("NLL", "Negative log likelihood (nats)", _probability_reader("nll"), format_number, "min", 1.0),
    "brier": Metric("Brier", "Brier score", _probability_reader("brier"), format_number, "min", 1.0),
    "ece": Metric("ECE", "Expected calibration error", _probability_reader("ece"), format_number, "min", 1.0),
    "ece_calibrated": Metric(
        "ECE if calibrated",
        "Expected calibration error if calibrated",
        _probability_reader("ece_calibrated"),
        format_number,
        None,
        1.0,
    ),
    "epochs": Metric("Epochs", "Epochs", lambda record: record.epochs or math.nan, format_average, None, 1.0),
    "best_epoch": Metric("Best epoch", "Best epoch", _read_best_epoch, format_average, None, 1.0),
    "time_to_converge": Metric(
        "To converge",
        "Time to converge (s)",
        _read_time_to_converge,
        format_seconds,
        "min",
        1.0,
        "a frozen prefix counts in every epoch, also if its outputs are computed only once",
    ),
    "prediction_ms": Metric(
        "Prediction ms",
        "Prediction time (ms)",
        _metric_reader("prediction_ms"),
        format_milliseconds,
        "min",
        1.0,
        "median over all runs of a network",
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
METRICS_WITHOUT_TEST_CLIPS = (  # not computed on test clips, if there are validation clips; a search may show them
    "training_accuracy",
    "validation_accuracy",
    "epochs",
    "best_epoch",
    "time_to_converge",
    "prediction_ms",
    "seconds",
    "trainable_parameters",
    "parameters",
    "parameters_with_statistics",
)
POOLED_METRICS = ("ece", "ece_calibrated")  # over the clips of all folds (`analysis.metrics.calibration_error`)
METRIC_NOTES = (
    "Balanced: mean recall of the classes. Precision, recall and F1: means over classes weighted by number of clips; "
    "weighted recall equals accuracy. Macro F1: unweighted mean over the classes in the test fold. Training: accuracy "
    "over the training batches of the last epoch, with augmentation and dropout.",
    "Best epoch: epoch with the highest accuracy on the validation clips or, without validation clips, on the test "
    "fold. To converge: training time until the end of that epoch, without evaluation and preparation; a frozen prefix "
    "counts in every epoch, also if its outputs are computed only once. Prediction: time per clip for evaluating the "
    "test fold in batches, from stored input to logits, including a frozen prefix; median over all runs of a network. "
    "– : not recorded, or (NLL, Brier, ECE) not defined, because the hinge loss gives no probabilities.",
)
CALIBRATION_NOTE = (
    "ECE: expected calibration error with 15 bins of equal width. With a finite number of clips it is above 0 for any "
    "network. ECE if calibrated: its expected value if all confidences were exactly right, by simulation."
)
POOLED_CALIBRATION_NOTE = f"{CALIBRATION_NOTE} Both are over the clips of all folds, and means over seeds."


def check_metrics(names: Iterable[str]) -> None:
    """Check that all names are metrics.

    Raises
    ------
    UserError
        If a name is unknown; the message suggests the nearest one.
    """
    for name in names:
        if name not in METRICS:
            raise unknown_name_error("metric", name, METRICS)


def check_requested_metrics(names: Iterable[str]) -> None:
    """Check the metrics of ``--metric``.

    Raises
    ------
    UserError
        If a metric is unknown or needs the held-out clips.
    """
    check_metrics(names)
    if "holdout_accuracy" in names:
        raise UserError("--metric holdout_accuracy: held-out clips are scored by predict --run ID --holdout")


def metric_column(name: str, *, spread: bool = True) -> Column:
    """Return the table column of a metric, with its standard deviation if `spread` is True."""
    metric = METRICS[name]
    return Column(name, metric.title, metric.format, best=metric.best, std=f"{name}_std" * spread)


ACCURACY_COLUMN, MACRO_F1_COLUMN = metric_column("accuracy"), metric_column("macro_f1", spread=False)
BEST_EPOCH_COLUMN = replace(metric_column("accuracy_best_epoch", spread=False), best=None)
CHANGE_COLUMN = Column("delta", "Change", format_points)
