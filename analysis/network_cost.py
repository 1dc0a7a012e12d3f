"""Computational cost of networks: multiply-adds and latency."""

import contextlib
import json
import statistics
import time
from dataclasses import asdict, dataclass, fields

import msgspec
import pandas as pd
import torch
from torch import nn

from analysis.metrics.registry import ACCURACY_COLUMN, BEST_EPOCH_COLUMN, CHANGE_COLUMN, MACRO_F1_COLUMN
from analysis.output.number_format import format_magnitude, format_number
from analysis.output.output_folder import OutputFolder
from analysis.output.tables import Column
from core.cache.entries import cache_key
from core.config.run import Run
from core.inputs.input_kind import get_input_shape
from core.models.build_network import build_network
from core.models.multiply_adds import count_multiply_adds
from core.session import Session
from core.system.atomic_files import explain_write_errors, read_json, write_text
from core.training.frozen_prefix import numerics_key_fields

COLUMNS = (
    ACCURACY_COLUMN,
    BEST_EPOCH_COLUMN,
    MACRO_F1_COLUMN,
    CHANGE_COLUMN,
    Column("parameters", "Parameters", format_magnitude, best="min"),
    Column("multiply_adds", "Mult.-adds", format_magnitude, best="min"),
    Column("latency_ms", "ms per clip", format_number, best="min"),
)
WARM_UP_PASSES, TIMED_PASSES = 3, 20
COSTS_VERSION = 1  # of the stored costs; increase it when the measurement changes


@dataclass(frozen=True)
class Cost:
    """Cost of a network for one clip."""

    multiply_adds: float
    latency_ms: float


def add_costs(frame: pd.DataFrame, results: OutputFolder) -> pd.DataFrame:
    """Return `frame` with the columns ``multiply_adds`` and ``latency_ms`` of one clip on this session's device."""
    runs = {planned.run.id: planned.run for planned in results.plan.planned}
    costs = [load_or_measure_cost(runs[ids[0]], results) for ids in frame["run_ids"]]
    return frame.assign(**{field.name: [getattr(cost, field.name) for cost in costs] for field in fields(Cost)})


def load_or_measure_cost(run: Run, results: OutputFolder) -> Cost:
    """Return the cost of the network of a run; it is measured once per device and stored in ``cache/costs``.

    A table that is written again therefore shows the same latency. The network has random weights.
    """
    session = results.session
    n_classes = len(results.plan.datasets[run.data.content].class_names)
    run = run.replace(model__weights="random", model__weights_sha256="", seed=0)
    shape = get_input_shape(run)
    key_values = {"version": COSTS_VERSION, "model": run.to_dict()["model"], "classes": n_classes, "input": shape}
    key_values |= numerics_key_fields(session.device, channels_last=False, threads=session.threads)
    path = session.store.cache / "costs" / f"{cache_key(key_values)}.json"
    with contextlib.suppress(OSError, ValueError, msgspec.ValidationError):  # missing or damaged cache file
        return msgspec.convert(read_json(path), Cost)
    network = build_network(run, n_classes).to(session.device).eval()
    image = torch.zeros(1, *shape, device=session.device)
    cost = Cost(count_multiply_adds(network, image), measure_latency(network, image))
    path.parent.mkdir(parents=True, exist_ok=True)
    with explain_write_errors(path):
        write_text(path, json.dumps(asdict(cost)))
    return cost


def describe_latency(session: Session) -> str:
    """Return the footnote of the column ``latency_ms``."""
    is_gpu = session.device.type == "cuda"
    device = torch.cuda.get_device_name(session.device) if is_gpu else f"a CPU with {session.threads} threads"
    return (
        f"ms per clip: median of {TIMED_PASSES} forward passes with one clip on {device}, measured once and stored in "
        "cache/costs; delete this folder to measure again."
    )


@torch.inference_mode()
def measure_latency(network: nn.Module, image: torch.Tensor) -> float:
    """Return the median time of a forward pass in milliseconds."""
    times = []
    for _ in range(WARM_UP_PASSES + TIMED_PASSES):
        start = time.perf_counter()
        network(image)
        if image.device.type == "cuda":
            torch.cuda.synchronize(image.device)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[WARM_UP_PASSES:])
