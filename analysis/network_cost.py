"""Computational cost of networks: multiply-adds and latency."""

import statistics
import time

import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from analysis.metrics.registry import ACCURACY_COLUMN, BEST_EPOCH_COLUMN, CHANGE_COLUMN, MACRO_F1_COLUMN
from analysis.output.number_format import format_magnitude, format_number
from analysis.output.output_folder import OutputFolder
from analysis.output.tables import Column
from core.config.run import Run
from core.inputs.input_of_run import get_input_shape
from core.models.build_network import build_network

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


def add_costs(frame: pd.DataFrame, results: OutputFolder) -> pd.DataFrame:
    """Return `frame` with the columns ``multiply_adds`` and ``latency_ms`` of one clip on this session's device."""
    runs = {planned.run.id: planned.run for planned in results.plan.planned}
    costs = [_measure_cost(runs[ids[0]], results) for ids in frame["run_ids"]]
    return frame.assign(multiply_adds=[adds for adds, _ in costs], latency_ms=[ms for _, ms in costs])


def _measure_cost(run: Run, results: OutputFolder) -> tuple[float, float]:
    device = results.session.device
    n_classes = len(results.plan.datasets[run.data.content].class_names)
    backbone = build_network(run.replace(model__weights="random"), n_classes).to(device).eval()
    image = torch.zeros(1, *get_input_shape(run), device=device)
    return count_multiply_adds(backbone, image), measure_latency(backbone, image)


def count_multiply_adds(network: nn.Module, image: torch.Tensor) -> float:
    """Return the multiply-adds of all convolutions and matrix products of a forward pass."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(image)
    return counter.get_total_flops() / 2  # torch counts a multiply-add as two operations


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
