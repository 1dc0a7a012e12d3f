"""The record of a run: the content of ``run.json``, and its encoding and decoding.

To add a metric, add a field to `Metrics`. Its value is nan in records without it.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from core.config.options import from_dict, list_field_problems
from core.config.run import GROUPS, Run
from core.errors import UserError, first_line

RECORD = "run.json"
FINISHED, FAILED, RUNNING = "finished", "failed", "running"
STOPPED = "stopped"  # a scheduler stopped the run early; a command without a scheduler trains it to its end
MISSING = "missing"  # there is no intact record
REQUIRED_IF_FINISHED = (
    "metrics", "per_class", "confusion", "class_names", "parameters", "trainable_parameters", "clips", "seconds",
)  # fmt: skip
NAN = math.nan
DIGEST_START = ',\n "digest": "'


class DamagedRecord(Exception):
    """The record of a run is missing or damaged; the message gives the reason."""


class IncompatibleRecord(ValueError):
    """A record has a valid checksum, but was written by another version or by hand; the message gives the reason."""


@dataclass(frozen=True)
class Environment:
    """Device, threads and precision that a run was trained with."""

    device: str = ""
    device_name: str = ""
    threads: int = 0  # 0: not recorded
    precision: str = ""  # precision that was used (a CPU uses fp32 for tf32 and fp16); "": not recorded


@dataclass(frozen=True)
class Clips:
    """Number of training, validation and test clips of a run."""

    train: int = 0
    validation: int = 0
    test: int = 0

    @property
    def total(self) -> int:
        """Number of all clips."""
        return self.train + self.validation + self.test


@dataclass(frozen=True)
class Seconds:
    """Duration of a run in seconds, summed over all processes that trained it."""

    preparation: float = 0.0  # inputs, weights and frozen prefix, if they were not in the cache
    training: float = 0.0
    evaluation: float = 0.0

    @property
    def epochs(self) -> float:
        """Seconds of training and evaluation, which do not depend on the cache."""
        return self.training + self.evaluation

    @property
    def total(self) -> float:
        """Seconds of preparation, training and evaluation."""
        return self.preparation + self.epochs


@dataclass(frozen=True)
class Metrics:
    """Metrics on the test fold, after the last epoch unless the name says otherwise.

    They are fractions from 0 to 1, except for `nll` (nats), `brier` (0 to 2), epochs and times. A run that a scheduler
    stopped early has only `epoch`, `validation_accuracy` and `validation_loss`.

    Attributes
    ----------
    training_accuracy
        Mean over the training batches of the last epoch, measured during training (with augmentation and dropout).
    time_to_converge
        Seconds of training until the end of the best epoch on the validation clips, or on the test fold if there are no
        validation clips. Evaluation and preparation are not included. A frozen prefix counts in every epoch, as in
        `prefix_ms`, even if it was computed only once.
    prediction_ms
        Milliseconds per clip of a batched test pass, from stored input to logits: the median over epochs. A frozen
        prefix that was computed once counts with the time of its computation.
    prefix_ms
        Milliseconds per clip of a frozen prefix that was computed once; 0 without one.
    """

    accuracy: float = NAN
    macro_f1: float = NAN  # over classes in the test fold or predicted; see also `PerClass.macro_f1`
    balanced_accuracy: float = NAN
    weighted_precision: float = NAN
    weighted_recall: float = NAN
    weighted_f1: float = NAN
    nll: float = NAN
    brier: float = NAN
    ece: float = NAN
    ece_calibrated: float = NAN  # expected value of `ece` for a perfectly calibrated network
    accuracy_best_epoch: float = NAN  # maximum over epochs on the test fold, so it is optimistic
    best_epoch: int = 0
    accuracy_validation_epoch: float = NAN  # after the best epoch on the validation clips
    validation_epoch: int = 0
    epochs: int = 0
    epoch: int = 0
    training_accuracy: float = NAN
    validation_accuracy: float = NAN
    validation_loss: float = NAN
    time_to_converge: float = NAN
    prediction_ms: float = NAN
    prefix_ms: float = NAN


@dataclass(frozen=True)
class PerClass:
    """Precision, recall and F1 of each class (0 to 1), and its number of test clips (support)."""

    precision: tuple[float, ...] = ()
    recall: tuple[float, ...] = ()
    f1: tuple[float, ...] = ()
    support: tuple[int, ...] = ()

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that occur in the test fold."""
        present = [f1 for f1, clips in zip(self.f1, self.support, strict=True) if clips]
        return float(np.mean(present)) if present else NAN


@dataclass(frozen=True, kw_only=True)
class Record:
    """A run, how it ended, and its results if it has finished.

    Attributes
    ----------
    id, run
        The run and its id.
    status, reason
        State of the run, and the reason why it did not finish.
    environment, versions
        Device of training, and versions of the libraries that affect results.
    confusion
        Number of test clips (classes, classes) by target (row) and prediction (column).
    bad_clips
        Path and reason of each clip that was left out.
    ended_by
        What ended training: ``epochs`` or a stopping rule; "" if it was not recorded.
    parameters_with_statistics
        Number of parameters and batch norm statistics; 0 if it was not recorded.
    prefix_reused
        Whether activations of a frozen prefix were computed once for all epochs.
    files, sha256
        Size in bytes and checksum of each file of the run; records of older versions have no checksums.
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
    parameters_with_statistics: int = 0
    clips: Clips = Clips()
    bad_clips: tuple[tuple[str, str], ...] = ()
    ended_by: str = ""
    prefix_reused: bool = False
    seconds: Seconds = Seconds()
    files: Mapping[str, int] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether the run has finished."""
        return self.status == FINISHED

    @property
    def epochs(self) -> int:
        """Number of trained epochs; 0 if the run ended before its first evaluation."""
        return self.metrics.epochs or self.metrics.epoch

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes of the test fold."""
        return self.per_class.macro_f1


def encode_record(values: Mapping[str, Any]) -> bytes:
    """Return the content of ``run.json``: the values as JSON, followed by the SHA-256 of the bytes before it."""
    body = json.dumps(values, indent=1).removesuffix("\n}").encode()
    return body + f'{DIGEST_START}{hashlib.sha256(body).hexdigest()}"\n}}'.encode()


def decode_record(content: bytes) -> Record:
    """Decode and check the content of ``run.json``.

    Raises
    ------
    ValueError
        If the content is incomplete or invalid; the message gives the reason.
    IncompatibleRecord
        If the content is not that of a record of this version, although its checksum is valid.
    """
    try:
        values = _parse(content)
        if not isinstance(values, dict) or not isinstance(values.get("config"), dict):
            raise ValueError("it is not the record of a run")
        if not (_has_right_digest(content) or values.get("digest") == _digest_before_version_2(values)):
            raise ValueError("its checksum does not match its content")
    except (TypeError, AttributeError, OverflowError) as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError("nested too deep") from None
    try:
        record = msgspec.convert({**values, "run": {}}, Record)
        run = _read_run(values["config"])
    except (UserError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise IncompatibleRecord(first_line(error)) from None
    if problem := _find_problem(record, values):
        raise IncompatibleRecord(problem)
    if run.id != record.id:
        raise IncompatibleRecord(f"its configuration is not that of run {record.id}")
    return dataclasses.replace(record, run=run)


def _parse(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)
    except msgspec.DecodeError:  # msgspec refuses NaN and lone surrogates, which json reads
        return json.loads(content.decode())


def _has_right_digest(content: bytes) -> bool:
    body, separator, end = content.rpartition(DIGEST_START.encode())
    return bool(separator) and end == f'{hashlib.sha256(body).hexdigest()}"\n}}'.encode()


def _digest_before_version_2(values: Mapping[str, Any]) -> str:
    """Return the digest in records of version 1, which is computed from the values and not from the bytes."""
    rest = {key: value for key, value in values.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


_groups: dict[tuple[str, str], Any] = {}  # groups by name and content, because most runs of a store share most groups


def _read_run(config: Mapping[str, Any]) -> Run:
    """Build a run. Unknown keys of newer versions are ignored; a key that changes the run also changes its id."""
    parts = {f.name: config[f.name] for f in dataclasses.fields(Run) if f.name in config}
    for name in GROUPS.keys() & parts:
        key = name, repr(parts[name])
        if key not in _groups:
            _groups[key] = _read_group(name, parts[name])
        parts[name] = _groups[key]
    run: Run = from_dict(Run, parts, "run")
    if type(run.seed) is not int:
        raise ValueError(f"run.seed: expected a whole number, got {run.seed!r}")
    return run


def _read_group(name: str, values: Mapping[str, Any]) -> Any:
    """Build a group of options and check the types of its values, without converting any: the id depends on them."""
    cls = GROUPS[name]
    known = {f.name: values[f.name] for f in dataclasses.fields(cls) if f.name in values}
    group = from_dict(cls, known, f"run.{name}")
    try:
        msgspec.convert(dataclasses.asdict(group), cls)
    except msgspec.ValidationError as error:
        raise ValueError(f"run.{name}: {error}") from None
    for f in dataclasses.fields(group):
        value = getattr(group, f.name)
        if f.metadata and isinstance(value, int | float) and (problems := list_field_problems(f, value)):
            raise ValueError(f"run.{name}.{f.name}: {problems[0]}")
    return group


def _find_problem(record: Record, values: Mapping[str, Any]) -> str:
    """Return the reason why a record with valid types is incomplete, "" if it is complete."""
    if record.status not in (FINISHED, FAILED, RUNNING, STOPPED):
        return f"it has the unknown status '{record.status}'"
    scores = record.metrics
    if record.status == STOPPED and math.isnan(scores.validation_accuracy + scores.validation_loss):
        return "it lacks the validation scores of a stopped run"
    if not record.finished:
        return ""
    for name, value in vars(record.seconds).items():
        if not 0 <= value < math.inf:
            return f"seconds.{name} is {value}"
    for name, value in vars(scores).items():
        if math.isinf(value):
            return f"metrics.{name} is {value}"
    if lacking := [name for name in REQUIRED_IF_FINISHED if name not in values]:
        return f"it lacks {', '.join(lacking)}"
    if not 0 <= scores.accuracy <= 1:
        return "it lacks the accuracy"
    by_class = record.per_class
    for name in ("precision", "recall", "f1"):
        if not all(0 <= value <= 1 for value in getattr(by_class, name)):
            return f"per_class.{name} has a value that is not from 0 to 1"
    columns = (by_class.precision, by_class.recall, by_class.f1, by_class.support, record.confusion, *record.confusion)
    if {len(column) for column in columns} != {len(record.class_names)}:
        return "the number of its scores is not the number of its classes"
    return ""
