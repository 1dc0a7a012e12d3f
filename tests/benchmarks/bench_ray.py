"""The cost of Ray: many short runs and a few long runs as trials on two cores, against one process on these cores.

Each side is a new process that finds only the images, so the start of Python, Ray and its workers is included. The long
runs take half a minute each. One after the other on one core, they are compared with two workers of one core each,
which need at least half the time. Linux only: cores are set by affinity.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.benchmarks.comparison import Row, compare, run_process, time_in_turn, time_once

HEAD_RUNS, LONG_RUNS, LONG_EPOCHS = 40, 12, 16
CORES = sorted(os.sched_getaffinity(0))[:2]


def measure() -> Iterator[Row]:
    """Yield a row for 40 runs of a head, and one for 12 fine-tuning runs (once: nine minutes)."""
    with tempfile.TemporaryDirectory() as folder:
        one, ray = (partial(_start, Path(folder) / side, ray=ray) for side, ray in (("one", ""), ("ray", "local")))
        for side in (one, ray):
            side("images", ray="", threads=1)
        sides = partial(ray, "head", threads=1), partial(one, "head", threads=2)
        what = f"{HEAD_RUNS} runs of a head: two Ray workers / one process on two cores"
        yield compare(what, *time_in_turn(*sides, warm_up=False), 1.5, at_most=True)
        by_one = time_once(partial(one, "fine-tuning", threads=1, cores=CORES[:1]))
        by_ray = time_once(partial(ray, "fine-tuning", threads=1))
        what = f"{LONG_RUNS} fine-tuning runs: two Ray workers / half the time on one core"
        yield compare(what, by_ray, by_one / 2, 1.15, at_most=True)


def _start(results: Path, work: str, *, ray: str, threads: int, cores: list[int] = CORES) -> None:
    """Delete runs and activations, and do one side's work in a new process."""
    for folder in ("runs", "cache/activations"):
        shutil.rmtree(results / folder, ignore_errors=True)
    words = [sys.executable, "-m", __name__, results, work, ray, str(threads), ",".join(map(str, cores))]
    run_process(words)


def _do_work(results: str, work: str, ray: str, threads: str, cores: str) -> None:
    os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    from commands.cli.process_setup import set_up_libraries

    set_up_libraries()
    from ablations.planning.run_plan import execute
    from core.config.execution import ExecutionOptions, RayOptions
    from core.plan import Plan, PlannedRun
    from core.session import Session
    from core.training.load_inputs import load_run_inputs
    from tests.benchmarks.bench_training import embedded_run

    cluster = RayOptions(ray=ray)
    options = ExecutionOptions(results=Path(results), device="cpu", threads=int(threads), cluster=cluster)
    session = Session(options)
    base, dataset = embedded_run(session, frontend__n_mels=64, frontend__n_frames=64)
    if work == "images":
        load_run_inputs(base, dataset, session)
        return
    n, first = HEAD_RUNS, base.replace(model__freeze="block4")
    if work == "fine-tuning":
        n, first = LONG_RUNS, base.replace(training__epochs=LONG_EPOCHS)
    planned = tuple(PlannedRun("run", first.replace(seed=seed), first) for seed in range(n))
    summary = execute(Plan("bench", planned, {base.data.content: dataset}), session)
    assert (summary.trained, summary.failed) == (n, 0)


if __name__ == "__main__":
    _do_work(*sys.argv[1:])
