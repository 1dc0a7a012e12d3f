"""Prediction time of a network: one value for all runs of the same network.

The time of a forward pass depends on the network and the machine, not on the training. Runs of the same network
therefore have the same value. Otherwise, measurement noise would appear as a difference between conditions.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from core.inputs.input_kind import get_input_shape
from core.store.record import Record
from core.training import AUGMENTATIONS


def average_prediction_times(records: Iterable[Record | None]) -> dict[str, float]:
    """Return the milliseconds per clip of each finished run, by run id.

    Runs with the same architecture, inputs, number of classes and machine have the same value: the median over these
    runs. Runs whose test pass also rotates images or computes them from waveforms are ignored, unless all runs of the
    network do this.
    """
    measured: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        if record and record.finished:
            measured.setdefault(_network_key(record), []).append(record)
    times: dict[str, float] = {}
    for same in measured.values():
        plain = [record for record in same if _has_plain_test_pass(record)]
        known = [record.metrics.prediction_ms for record in plain or same]
        known = [value for value in known if not math.isnan(value)]
        times |= dict.fromkeys([record.id for record in same], float(np.median(known)) if known else math.nan)
    return times


def _network_key(record: Record) -> tuple[Any, ...]:
    """Return a key that is equal for runs whose forward passes do the same work on the same machine."""
    run, machine = record.run, record.environment
    network = (run.model.network, run.model.backbone_sha256, run.model.cut, run.model.head, len(record.class_names))
    computation = (run.training.channels_last, machine.precision, machine.device_name, machine.threads)
    return *network, get_input_shape(run), *computation


def _has_plain_test_pass(record: Record) -> bool:
    """Return whether the test pass of a run had stored inputs, without rotation."""
    training = record.run.training
    return not (training.live or AUGMENTATIONS[training.augment].changes_tests)
