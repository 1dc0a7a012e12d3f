"""Every number that a run leaves and a condition has a mean of: how it is read, called and written, in one place.

A new one is a line in `MEASURES`; tables, bars (`--metric`) and published numbers then know it by its name.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

from analysis.output.number_format import average, magnitude, milliseconds, number, percent, seconds
from analysis.output.tables import Column
from core.errors import unknown
from core.store.record import Record


@dataclass(frozen=True)
class Measure:
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
    format: Callable[..., str] = percent
    best: Literal["max", "min"] | None = "max"
    scale: float = 100.0

    @property
    def is_share(self) -> bool:
        """Whether it is a fraction, drawn in percent of a whole axis."""
        return self.format is percent


def _scored(name: str) -> Callable[[Record], float]:
    """Read a metric of the record."""
    get = attrgetter(name)
    return lambda record: float(get(record.metrics))


def _share(title: str, axis: str, name: str) -> Measure:
    return Measure(title, f"{axis} (%)", _scored(name))


def _count(title: str, axis: str, get: Callable[[Record], float]) -> Measure:
    return Measure(title, f"{axis} (millions)", lambda record: get(record) or math.nan, magnitude, None, 1e-6)


def _best_epoch(record: Record) -> float:
    return record.metrics.validation_epoch or record.metrics.best_epoch or math.nan


MEASURES = {
    "accuracy": _share("Accuracy %", "Accuracy", "accuracy"),
    "accuracy_best_epoch": _share("Best epoch %", "Accuracy of the best epoch", "accuracy_best_epoch"),
    "balanced_accuracy": _share("Balanced %", "Balanced accuracy", "balanced_accuracy"),
    "macro_f1": Measure("Macro F1 %", "Macro F1 (%)", attrgetter("macro_f1")),
    "precision": _share("Precision %", "Weighted precision", "weighted_precision"),
    "recall": _share("Recall %", "Weighted recall", "weighted_recall"),
    "f1": _share("F1 %", "Weighted F1", "weighted_f1"),
    "training_accuracy": _share("Training %", "Training accuracy", "training_accuracy"),
    "validation_accuracy": _share("Validation %", "Validation accuracy", "validation_accuracy"),
    "nll": Measure("NLL", "Negative log likelihood (nats)", _scored("nll"), number, "min", 1.0),
    "brier": Measure("Brier", "Brier score", _scored("brier"), number, "min", 1.0),
    "ece": Measure("ECE", "Expected calibration error", _scored("ece"), number, "min", 1.0),
    "epochs": Measure("Epochs", "Epochs", lambda record: record.epochs or math.nan, average, None, 1.0),
    "best_epoch": Measure("Best epoch", "Best epoch", _best_epoch, average, None, 1.0),
    "time_to_converge": Measure(
        "To converge", "Time to converge (s)", _scored("time_to_converge"), seconds, "min", 1.0
    ),
    "prediction_ms": Measure(
        "Prediction ms", "Prediction time (ms)", _scored("prediction_ms"), milliseconds, "min", 1.0
    ),
    "seconds": Measure("Time", "Training and evaluation (s)", attrgetter("seconds.epochs"), seconds, "min", 1.0),
    "trainable_parameters": Measure(
        "Trainable", "Trainable parameters (millions)", attrgetter("trainable_parameters"), magnitude, None, 1e-6
    ),
    "parameters": _count("Parameters", "Parameters", attrgetter("parameters")),
    "parameters_with_statistics": _count(
        "With statistics", "Parameters with moving statistics", attrgetter("parameters_with_statistics")
    ),
}
NOTES = (
    "Balanced: mean recall of the classes. Precision, recall and F1: of the classes, weighted by their clips; the "
    "recall is then the accuracy. Macro F1: over the classes that the test fold has. Training: over the batches of the "
    "last epoch as they were trained on, augmented and with dropout.",
    "Best epoch: the best on the validation clips or, without such, on the test fold. To converge: seconds of training "
    "until the end of that epoch, without evaluation and what is prepared once. Prediction: milliseconds for a clip of "
    "the test fold as an epoch ends with it, many at a time, from the stored input to the logits, a frozen prefix "
    "included. – : not recorded.",
)


def check_measures(names: Iterable[str]) -> None:
    """Refuse a name that is no measure's.

    Raises
    ------
    UserError
        With the nearest name.
    """
    for name in names:
        if name not in MEASURES:
            raise unknown("metric", name, MEASURES)


def column(name: str, *, spread: bool = True) -> Column:
    """Return the column of a table that shows a measure, with its deviation."""
    measure = MEASURES[name]
    return Column(name, measure.title, measure.format, best=measure.best, std=f"{name}_std" * spread)
