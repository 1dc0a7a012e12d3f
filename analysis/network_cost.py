"""What a condition's network costs: multiply-adds and the time for one clip."""

import statistics
import time

import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from analysis.conditions import ACCURACY, BEST_EPOCH, CHANGE, MACRO_F1
from analysis.output.folder import OutputFolder
from analysis.output.number_format import format_magnitude, format_number
from analysis.output.tables import Column
from core.config.run import Run
from core.inputs.input_of_run import get_input_shape
from core.models.build_network import build_network

COLUMNS = (
    ACCURACY,
    BEST_EPOCH,
    MACRO_F1,
    CHANGE,
    Column("parameters", "Parameters", format_magnitude, best="min"),
    Column("multiply_adds", "Mult.-adds", format_magnitude, best="min"),
    Column("latency_ms", "ms per clip", format_number, best="min"),
)
TIMED_PASSES = 20


def add_costs(frame: pd.DataFrame, results: OutputFolder) -> pd.DataFrame:
    """Add ``multiply_adds`` of one clip's image and ``latency_ms``, its median time on this session's device."""
    first = {planned.run.id: planned.run for planned in results.plan.planned}
    costs = [_measure_cost(first[ids[0]], results) for ids in frame["run_ids"]]
    return frame.assign(multiply_adds=[adds for adds, _ in costs], latency_ms=[ms for _, ms in costs])


def _measure_cost(run: Run, results: OutputFolder) -> tuple[float, float]:
    device = results.session.device
    n_classes = len(results.plan.datasets[run.data.content].class_names)
    backbone = build_network(run.replace(model__weights="random"), n_classes).to(device).eval()
    image = torch.zeros(1, *get_input_shape(run), device=device)
    return count_multiply_adds(backbone, image), measure_latency(backbone, image)


def count_multiply_adds(network: nn.Module, image: torch.Tensor) -> float:
    """Count the multiply-adds of convolutions and matrix products; torch counts each as two operations."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(image)
    return counter.get_total_flops() / 2


@torch.inference_mode()
def measure_latency(network: nn.Module, image: torch.Tensor) -> float:
    """Return the median time of a forward pass in milliseconds."""
    times = []
    for _ in range(TIMED_PASSES + 3):  # the first ones warm up
        start = time.perf_counter()
        network(image)
        if image.device.type == "cuda":
            torch.cuda.synchronize(image.device)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[3:])
