"""What Ray costs: many short runs, and a few long ones, as trials on two cores against one process on the same cores.

Each side is a process of its own that starts with nothing but the images, so that the start of Python, of Ray and of
its workers counts. Head-only runs share a frozen prefix, which each side computes. The long runs, half a minute each,
go one after the other on one core; two workers with a core each can at best take half of that, and less far where two
busy cores slow each other down. Linux only: cores are set by affinity.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks.comparison import in_turn, row, timed

HEAD_ONLY, FINE_TUNING = 40, 12
FINE_TUNING_EPOCHS = 16
CORES = sorted(os.sched_getaffinity(0))[:2]


def measure() -> Iterator[dict[str, Any]]:
    """Yield what 40 head-only runs take, and 12 fine-tuning runs (once: nine minutes), on the `instruments`."""
    with tempfile.TemporaryDirectory() as folder:
        results = {side: Path(folder) / side for side in ("one process", "ray")}
        for place in results.values():
            _alone(place, "images", "", threads=1, cores=CORES)
        by_ray, by_one = in_turn(
            partial(_alone, results["ray"], "head", "local", threads=1, cores=CORES),
            partial(_alone, results["one process"], "head", "", threads=2, cores=CORES),
            warm=False,
        )
        what = f"{HEAD_ONLY} head-only runs, two workers, against one process on two cores"
        yield row(what, by_ray, by_one, 1.5, at_most=True)
        by_one = timed(partial(_alone, results["one process"], "all", "", threads=1, cores=CORES[:1]))
        by_ray = timed(partial(_alone, results["ray"], "all", "local", threads=1, cores=CORES))
        what = f"{FINE_TUNING} fine-tuning runs, two workers, against half the time on one core"
        yield row(what, by_ray, by_one / 2, 1.15, at_most=True)


def _alone(results: Path, what: str, ray: str, *, threads: int, cores: list[int]) -> None:
    """Do one side's work anew, from the start of its process to its end."""
    for made in ("runs", "cache/activations"):
        shutil.rmtree(results / made, ignore_errors=True)
    words = [sys.executable, __file__, str(results), what, ray, str(threads)]
    root = Path(__file__).resolve().parents[2]
    subprocess.run(
        words,
        check=True,
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )


def _side(results: Path, what: str, ray: str, threads: int) -> None:
    from commands.cli.process_setup import set_up_libraries

    set_up_libraries()
    from commands.cli.run_plan import execute
    from core.config.execution import ExecutionOptions, RayOptions
    from core.config.run import Run
    from core.datasets import load_dataset
    from core.plan import Plan, PlannedRun, resolve
    from core.session import Session
    from core.training.run_inputs import load_run_inputs

    made = RayOptions(ray=ray)
    session = Session(ExecutionOptions(results=results, device="cpu", threads=threads, cluster=made))
    dataset = load_dataset("instruments")
    base = Run().replace(frontend__n_mels=64, frontend__n_frames=64)
    base = resolve(base, dataset, dataset.compute_fingerprint(session.store.cache))
    if what == "images":
        load_run_inputs(base, dataset, session)
        return
    count, first = HEAD_ONLY, base.replace(model__freeze="block4")
    if what == "all":
        count, first = FINE_TUNING, base.replace(training__epochs=FINE_TUNING_EPOCHS)
    runs = [first.replace(seed=seed) for seed in range(count)]
    plan = Plan("bench", tuple(PlannedRun("run", run, runs[0]) for run in runs), {base.data.content: dataset})
    executed = execute(plan, session)
    assert (executed.trained, executed.failed) == (count, 0)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _side(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        for row in measure():
            sys.stdout.write(f"{row}\n")
