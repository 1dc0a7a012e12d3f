"""Several trials on one GPU: runs as Ray's trials, a quarter of the GPU each, against one process that trains them all.

The start of both is in the times, so the runs are long enough that it does not decide: a minute one by one.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from commands.cli.run_plan import execute
from core import datasets
from core.config.execution import ExecutionOptions, RayOptions
from core.config.run import Run
from core.plan import Plan, PlannedRun, resolve
from core.session import Session
from tests.benchmarks.comparison import REPEATS, row

ROOT = Path(__file__).parent.parent.parent


def measure() -> Iterator[dict[str, Any]]:
    """Yield one row, none without a GPU."""
    if not torch.cuda.is_available():
        print("  there is no GPU here: nothing of this was measured")  # noqa: T201
        return
    with tempfile.TemporaryDirectory() as results:
        quarter = RayOptions(ray="local", gpus_per_trial=0.25, cpus_per_trial=1)
        yield trials(Path(results), ray=quarter, device="cuda")


def trials(
    results: Path, *, ray: RayOptions, device: str, runs: int = 8, epochs: int = 40, repeats: int = REPEATS
) -> dict[str, Any]:
    """Time runs as trials of Ray that share a device, and one after the other in one process."""
    sides: dict[str, list[float]] = {"one by one": [], "together": []}
    for k in range(repeats):
        for name, found in sides.items():
            share = (
                (ray.ray, str(ray.gpus_per_trial or ""), str(ray.cpus_per_trial or ""))
                if name == "together"
                else ("",) * 3
            )
            words = [sys.executable, "-m", __spec__.name, str(results / f"{name}-{k}"), device, str(runs), str(epochs)]
            start = time.perf_counter()
            subprocess.run([*words, *share], check=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
            found.append(time.perf_counter() - start)
    what = f"{runs} runs of EfficientNet-Lite0: one by one / as trials that share {device}, the start of both counted"
    return row(what, sides["one by one"], sides["together"], 1.3)


def _side(results: str, device: str, runs: str, epochs: str, ray: str, gpus: str, cpus: str) -> None:
    """Train the runs of one side, in a process of its own."""
    share = {"gpus_per_trial": float(gpus) if gpus else None, "cpus_per_trial": float(cpus) if cpus else None}
    session = Session(ExecutionOptions(results=Path(results), device=device, cluster=RayOptions(ray=ray, **share)))
    dataset = datasets.load_dataset("instruments")
    base = Run().replace(
        frontend__n_mels=64, frontend__n_frames=64, training__epochs=int(epochs), training__precision="bf16"
    )
    base = resolve(base, dataset, dataset.compute_fingerprint(session.store.cache))
    planned = tuple(PlannedRun("run", base.replace(seed=seed), base) for seed in range(int(runs)))
    executed = execute(Plan("bench", planned, {base.data.content: dataset}), session)
    assert (executed.trained, executed.failed) == (int(runs), 0)


if __name__ == "__main__":
    _side(*sys.argv[1:])
