"""Prediction times: one per network, whatever its training; and times without the part of a frozen prefix."""

import dataclasses
import math

import pytest

from analysis.metrics.prediction_time import average_prediction_times
from analysis.metrics.registry import METRICS
from core.config.run import Run
from core.store.record import FINISHED, Environment, Metrics, Record

RUN = Run().replace(model__freeze="block5", frontend__image=(64, 64))


def record_of(run: Run, ms: float, *, threads: int = 2) -> Record:
    environment = Environment("cpu", "x86_64", threads, "fp32")
    metrics = Metrics(prediction_ms=ms)
    return Record(id=run.id, run=run, status=FINISHED, environment=environment, metrics=metrics, class_names=("a", "b"))


def test_average_prediction_times_is_one_per_network() -> None:
    """Folds, seeds, augmentation, weights and freezing do not change the forward pass; the other options do."""
    same = [
        record_of(RUN, 1.0),
        record_of(RUN.replace(seed=1, model__weights="random", model__freeze="none"), 2.0),
        record_of(RUN.replace(training__augment="rotate", data__fold=2), 6.0),
    ]
    rotated = record_of(RUN.replace(training__augment="rotate-tests"), 99.0)  # its test pass also rotates images
    others = [
        record_of(RUN.replace(model__backbone="resnet18"), 11.0),
        record_of(RUN.replace(model__head="64"), 12.0),
        record_of(RUN.replace(model__cut="block2"), 13.0),
        record_of(RUN.replace(frontend__image=(32, 32)), 14.0),
        record_of(RUN.replace(seed=5), 15.0, threads=1),
    ]
    times = average_prediction_times([*same, rotated, *others, None])
    assert {times[record.id] for record in (*same, rotated)} == {2.0}
    assert [times[record.id] for record in others] == [11.0, 12.0, 13.0, 14.0, 15.0]


def test_average_prediction_times_without_other_passes_uses_what_there_is() -> None:
    rotated = record_of(RUN.replace(training__augment="rotate-tests"), 9.0)
    unknown = record_of(RUN.replace(model__head="64"), math.nan)
    times = average_prediction_times([rotated, unknown])
    assert times[rotated.id] == 9.0
    assert math.isnan(times[unknown.id])


@pytest.mark.parametrize(
    ("reused", "prefix_ms", "known"), [(True, 3.0, True), (True, math.nan, False), (False, 0, True)]
)
def test_time_to_converge_needs_the_time_of_a_cached_prefix(reused: bool, prefix_ms: float, known: bool) -> None:
    """Older versions did not count the prefix if its outputs were cached."""
    record = record_of(RUN, 1.0)
    metrics = Metrics(time_to_converge=7.0, prefix_ms=prefix_ms)
    seconds = METRICS["time_to_converge"].read(dataclasses.replace(record, metrics=metrics, prefix_reused=reused))
    assert seconds == 7.0 if known else math.isnan(seconds)
