"""Several trials on one GPU: Ray trials with a quarter of the GPU each, against one process that trains all runs.

The start of both sides is included, so the runs must be long enough: a minute one by one.
"""

import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

import torch

from ablations.planning.run_plan import execute
from core.config.execution import ExecutionOptions, RayOptions
from core.plan import Plan, PlannedRun
from core.session import Session
from tests.benchmarks.bench_gpu import NO_GPU
from tests.benchmarks.bench_training import embedded_run
from tests.benchmarks.comparison import REPEATS, Row, compare, run_process, time_in_turn


def measure() -> Iterator[Row]:
    """Yield one row; none without a GPU."""
    if not torch.cuda.is_available():
        print(NO_GPU)
        return
    with tempfile.TemporaryDirectory() as results:
        yield trials(Path(results), share={"gpus_per_trial": 0.25, "cpus_per_trial": 1}, device="cuda")


def trials(
    results: Path,
    *,
    share: dict[str, float],
    device: str,
    runs: int = 8,
    epochs: int = 40,
    repeats: int = REPEATS,
) -> Row:
    """Compare runs one after the other in one process with the same runs as Ray trials that share a device.

    Parameters
    ----------
    results
        Folder; every repetition trains in a new folder below it.
    share
        Resources of a trial: options of `RayOptions`.
    """
    numbers = count()

    def train(ray: str) -> None:
        words = [results / str(next(numbers)), device, runs, epochs, ray]
        words += [f"{name}={value}" for name, value in share.items() if ray]
        run_process([sys.executable, "-m", __name__, *map(str, words)])

    times = time_in_turn(partial(train, ""), partial(train, "local"), repeats=repeats, warm_up=False)
    what = f"{runs} runs of EfficientNet-Lite0, with start: one by one / as trials that share {device}"
    return compare(what, *times, 1.3)


def _train_runs(results: str, device: str, runs: str, epochs: str, ray: str, *share: str) -> None:
    """Train the runs of one side in this process."""
    resources = {name: float(value) for name, value in (words.split("=") for words in share)}
    cluster = RayOptions(ray=ray, **resources)
    session = Session(ExecutionOptions(results=Path(results), device=device, cluster=cluster))
    size = {"frontend__n_mels": 64, "frontend__n_frames": 64}
    base, dataset = embedded_run(session, **size, training__epochs=int(epochs), training__precision="bf16")
    planned = tuple(PlannedRun("run", base.replace(seed=seed), base) for seed in range(int(runs)))
    summary = execute(Plan("bench", planned, {base.data.content: dataset}), session)
    assert (summary.trained, summary.failed) == (int(runs), 0)


if __name__ == "__main__":
    _train_runs(*sys.argv[1:])
