"""What Ray costs: many short runs, and a few long ones, as trials on two cores against one process on the same cores.

Each side is a process of its own that starts with nothing but the images, so that the start of Python, of Ray and of
its workers counts. Head-only runs share a frozen prefix, which each side computes. The long runs, half a minute each,
go one after the other on one core; two workers with a core each can at best take half of that, and less far where two
busy cores slow each other down. Linux only: cores are set by affinity.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HEAD_ONLY, FINE_TUNING = 40, 12
FINE_TUNING_EPOCHS = 16
CORES = sorted(os.sched_getaffinity(0))[:2]


def measure() -> list[dict[str, Any]]:
    """Time 40 head-only runs, and 12 fine-tuning runs, on the `instruments`; ratio is ours by the reference."""
    with tempfile.TemporaryDirectory() as folder:
        results = {side: Path(folder) / side for side in ("one-process", "ray")}
        for place in results.values():
            _alone(place, "images", "", threads=1, cores=CORES)
        short = _alone(results["one-process"], "head", "", threads=2, cores=CORES)
        short_ray = _alone(results["ray"], "head", "local", threads=1, cores=CORES)
        long = _alone(results["one-process"], "all", "", threads=1, cores=CORES[:1]) / 2
        long_ray = _alone(results["ray"], "all", "local", threads=1, cores=CORES)
    return [
        _row(f"{HEAD_ONLY} head-only runs, two workers, against one process on two cores", short_ray, short, 1.5),
        _row(f"{FINE_TUNING} fine-tuning runs, two workers, against half the time on one core", long_ray, long, 1.15),
    ]


def _row(what: str, ours: float, reference: float, target: float) -> dict[str, Any]:
    ratio = ours / reference
    return {
        "what": what,
        "ours_seconds": ours,
        "reference_seconds": reference,
        "ratio": ratio,
        "target": target,
        "at_most": True,
    }


def _alone(results: Path, what: str, ray: str, *, threads: int, cores: list[int]) -> float:
    """Return the seconds of one side, from the start of its process to its end."""
    begun = time.perf_counter()
    words = [sys.executable, __file__, str(results), what, ray, str(threads)]
    root = Path(__file__).resolve().parents[2]
    subprocess.run(
        words,
        check=True,
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    return time.perf_counter() - begun


def _side(results: Path, what: str, ray: str, threads: int) -> None:
    from commands.execution import execute
    from core.config import Run
    from core.datasets import load
    from core.execution import Cluster, Execution
    from core.plan import Plan, Planned, resolve
    from core.session import Session
    from core.training.rows import load_images

    made = Cluster(ray=ray)
    session = Session(Execution(results=results, device="cpu", threads=threads, cluster=made))
    dataset = load("instruments")
    base = Run().replace(frontend__n_mels=64, frontend__n_frames=64)
    base = resolve(base, dataset, dataset.fingerprint(session.store.cache))
    if what == "images":
        load_images(base, dataset, session)
        return
    count, first = HEAD_ONLY, base.replace(model__freeze="block4")
    if what == "all":
        count, first = FINE_TUNING, base.replace(training__epochs=FINE_TUNING_EPOCHS)
    runs = [first.replace(seed=seed) for seed in range(count)]
    plan = Plan("bench", tuple(Planned("run", run, runs[0]) for run in runs), {base.data.content: dataset})
    executed = execute(plan, session)
    assert (executed.trained, executed.failed) == (count, 0)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _side(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        for row in measure():
            sys.stdout.write(f"{row}\n")
