"""Trainings that share a machine: two and three commands at once, and one beside a busy neighbour, against one alone.

Each command is a process of its own that trains EfficientNet-Lite0 on the embedded notes for one epoch, images and all,
as a user would start it. Two commands on the same cores cannot take less than twice the time of one.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.comparison import REPEATS, row

ROOT = Path(__file__).parent.parent.parent
SPINNING = {"GOMP_SPINCOUNT": "30000000000", "KMP_BLOCKTIME": "200"}  # what OpenMP does unasked


def measure() -> Iterator[dict[str, Any]]:
    """Yield a row per comparison; a row with ``at_most`` wants a ratio no larger than its target."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder)
        _together(1, results / "warm")  # reads everything from the disk once
        kinds = {"alone": (1, {}), "alone, spinning": (1, SPINNING), "two at once": (2, {}), "three at once": (3, {})}
        seconds: dict[str, list[float]] = {name: [] for name in (*kinds, "beside a neighbour")}
        for k in range(REPEATS):  # in turn, so that all meet the same load
            for name, (count, environment) in kinds.items():
                seconds[name].append(_together(count, results / f"{name}-{k}", environment))
            with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as neighbour:
                seconds["beside a neighbour"].append(_together(1, results / f"neighbour-{k}"))
                neighbour.kill()
    targets = {"alone, spinning": 1.02, "two at once": 2.2, "three at once": 3.3, "beside a neighbour": 2.0}
    for name, target in targets.items():
        one, other, what = seconds[name], seconds["alone"], f"{name} / one alone"
        if name == "alone, spinning":  # what not spinning costs on a machine of one's own
            one, other, what = other, one, "one command / one that spins"
        yield row(what, one, other, target, at_most=True)


def _together(count: int, results: Path, environment: dict[str, str] | None = None) -> float:
    """Start `count` commands at once, each with a results folder of its own; return the seconds until the last ends."""
    words = [sys.executable, "run_ablation.py", "freeze", "--block", "none", "--epochs", "1", "--device", "cpu"]
    start = time.perf_counter()
    processes = [
        subprocess.Popen(
            [*words, "--results", str(results / str(k))],
            cwd=ROOT,
            env=os.environ | (environment or {}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for k in range(count)
    ]
    for process in processes:
        assert process.wait() == 0
    return time.perf_counter() - start
