"""What a run has left behind, as `run.json` says it: typed, complete, and refused where it is anything else.

A new metric is one more field of `Metrics`; records written before there was one have nan.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from core.config.run import Run
from core.errors import UserError

FINISHED, FAILED, RUNNING = "finished", "failed", "running"
STOPPED = "stopped"  # a scheduler ended it early; an ordinary command trains it to its end
MISSING = "missing"  # there is no record to believe
OUTCOME = (  # what a finished run's record must say
    "metrics", "per_class", "confusion", "class_names", "parameters", "trainable_parameters", "clips", "seconds",
)  # fmt: skip
NAN = math.nan


@dataclass(frozen=True)
class Environment:
    """Where a run was trained."""

    device: str = ""
    device_name: str = ""
    threads: int = 0  # 0: not recorded
    precision: str = ""  # that was computed in, which a CPU may decide; "": not recorded


@dataclass(frozen=True)
class Clips:
    """How many clips a run was trained, validated and tested on."""

    train: int = 0
    validation: int = 0
    test: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.train + self.validation + self.test


@dataclass(frozen=True)
class Seconds:
    """How long a run took, over all sessions that it was trained in."""

    preparation: float = 0.0  # images, weights and a frozen prefix, where they were not in the cache
    training: float = 0.0
    evaluation: float = 0.0

    @property
    def epochs(self) -> float:
        """Training and evaluation, which a run takes whatever the cache holds."""
        return self.training + self.evaluation

    @property
    def total(self) -> float:
        """All of it."""
        return self.preparation + self.epochs


@dataclass(frozen=True)
class Metrics:
    """What a run scored on its test fold: fractions, 0 to 1, but for `nll` (nats), `brier` (0 to 2), epochs and times.

    All are of the last epoch but for those that say another. A run that was stopped early has `epoch` and the two
    scores of the validation clips alone.

    Attributes
    ----------
    training_accuracy
        Over the batches of the last epoch, as they were trained on: augmented, with dropout, by a network that changes.
    time_to_converge
        Seconds of training until the end of the epoch that is best on the validation clips, or, without such clips, of
        the best on the test fold. Evaluation and what is prepared once are no part of it.
    prediction_ms
        Milliseconds for one clip in a test pass, from the stored input to the logits, in batches: the median over the
        epochs. A frozen prefix that was computed once counts with the time that it took then.
    """

    accuracy: float = NAN
    macro_f1: float = NAN  # over the classes that are there or are predicted; see `PerClass.macro_f1`
    balanced_accuracy: float = NAN
    weighted_precision: float = NAN
    weighted_recall: float = NAN
    weighted_f1: float = NAN
    nll: float = NAN
    brier: float = NAN
    ece: float = NAN
    accuracy_best_epoch: float = NAN  # the highest of any epoch on the test fold, which flatters
    best_epoch: int = 0
    accuracy_validation_epoch: float = NAN  # at the best epoch on the validation clips
    validation_epoch: int = 0
    epochs: int = 0
    epoch: int = 0
    training_accuracy: float = NAN
    validation_accuracy: float = NAN
    validation_loss: float = NAN
    time_to_converge: float = NAN
    prediction_ms: float = NAN


@dataclass(frozen=True)
class PerClass:
    """Scores of every class, 0 to 1, and how many test clips it has."""

    precision: tuple[float, ...] = ()
    recall: tuple[float, ...] = ()
    f1: tuple[float, ...] = ()
    support: tuple[int, ...] = ()

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes of the test fold: the same classes whatever a network predicts."""
        there = [f1 for f1, clips in zip(self.f1, self.support, strict=True) if clips]
        return float(np.mean(there)) if there else NAN


@dataclass(frozen=True, kw_only=True)
class Record:
    """A run, how it ended, and, where it is finished, its outcome.

    Attributes
    ----------
    id, run
        The run.
    status, reason
        How it ended, and why it did not finish.
    environment, versions
        Where it was trained, and with which versions of what decides numbers.
    confusion
        Test clips (classes, classes) by target (row) and prediction.
    bad_clips
        Path and reason of each clip that was left out.
    ended_by
        What ended training: ``epochs`` or a stopping rule; "" where it was not recorded.
    prefix_reused
        Whether activations of a frozen prefix were computed once for all epochs.
    files, sha256
        Bytes of each file that belongs to it, and the digest of its content; older records lack the latter.
    """

    id: str
    run: Run
    status: str
    reason: str = ""
    environment: Environment = Environment()
    versions: Mapping[str, str] = field(default_factory=dict)
    metrics: Metrics = Metrics()
    per_class: PerClass = PerClass()
    confusion: tuple[tuple[int, ...], ...] = ()
    class_names: tuple[str, ...] = ()
    parameters: int = 0
    trainable_parameters: int = 0
    parameters_with_statistics: int = 0  # 0 where they were not recorded
    clips: Clips = Clips()
    bad_clips: tuple[tuple[str, str], ...] = ()
    ended_by: str = ""
    prefix_reused: bool = False
    seconds: Seconds = Seconds()
    files: Mapping[str, int] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether it has an outcome."""
        return self.status == FINISHED

    @property
    def epochs(self) -> int:
        """How many it was trained for; 0 where it did not get to a score."""
        return self.metrics.epochs or self.metrics.epoch

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes of the test fold."""
        return self.per_class.macro_f1


def read_record(values: Any) -> Record:
    """Read what `run.json` holds.

    Raises
    ------
    ValueError
        Saying what is missing or wrong.
    """
    if not isinstance(values, dict) or not isinstance(values.get("config"), dict):
        raise ValueError("it is no record of a run")
    try:
        run = Run.from_dict(values["config"])
        record = msgspec.convert({**values, "run": run.to_dict()}, Record)
    except (UserError, msgspec.ValidationError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if problem := _problem(record, values):
        raise ValueError(problem)
    return dataclasses.replace(record, run=run)  # as it was written: a whole number of seconds stays one, and the id


def _problem(record: Record, values: Mapping[str, Any]) -> str:
    """Say what keeps a record of the right types from being whole, "" where nothing does."""
    if record.status not in (FINISHED, FAILED, RUNNING, STOPPED):
        return f"it has the unknown status '{record.status}'"
    scores = record.metrics
    if record.status == STOPPED and math.isnan(scores.validation_accuracy + scores.validation_loss):
        return "it lacks the validation scores that it was stopped by"
    if not record.finished:
        return ""
    if lacking := [name for name in OUTCOME if name not in values]:
        return f"it lacks {', '.join(lacking)}"
    if not 0 <= scores.accuracy <= 1:
        return "it lacks the accuracy"
    by_class = record.per_class
    columns = (by_class.precision, by_class.recall, by_class.f1, by_class.support, record.confusion, *record.confusion)
    if {len(column) for column in columns} != {len(record.class_names)}:
        return "its scores are not of its classes"
    return ""
