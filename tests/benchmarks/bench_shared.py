"""Commands that share a machine: two or three at once, and one beside a busy process, against one alone.

Each command trains EfficientNet-Lite0 on the embedded data set for one epoch in a process of its own and builds its own
images. Two commands on the same cores cannot take less than twice the time of one.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

from tests.benchmarks.comparison import COMMAND, Row, compare, run_process, time_in_turn

SPINNING = {"GOMP_SPINCOUNT": "30000000000", "KMP_BLOCKTIME": "200"}  # OpenMP's own defaults


def measure() -> Iterator[Row]:
    """Yield a row per comparison."""
    numbers = count()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as pool:

        def train(commands: int = 1, **environment: str) -> None:
            words = [*COMMAND, "freeze", "--block", "none", "--epochs", "1", "--device", "cpu"]
            lines = [[*words, "--results", str(Path(folder) / str(next(numbers)))] for _ in range(commands)]
            list(pool.map(lambda line: run_process(line, **environment), lines))

        def train_beside_neighbour() -> None:
            with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as neighbour:
                train()
                neighbour.kill()

        sides = (train, lambda: train(**SPINNING), lambda: train(2), lambda: train(3), train_beside_neighbour)
        alone, spinning, two, three, beside = time_in_turn(*sides)
    yield compare("one command / one whose threads spin", alone, spinning, 1.02, at_most=True)
    yield compare("two commands at once / one alone", two, alone, 2.2, at_most=True)
    yield compare("three commands at once / one alone", three, alone, 3.3, at_most=True)
    yield compare("one command beside a busy process / one alone", beside, alone, 2.0, at_most=True)
