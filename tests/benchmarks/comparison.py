"""Helpers of all benchmarks: time functions in turn, compare their times, and run code in other processes."""

import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Function = Callable[[], Any]
Row = dict[str, Any]
REPEATS = 3
ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, str(ROOT / "run_ablation.py"))


def time_once(function: Function) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def time_in_turn(*functions: Function, repeats: int = REPEATS, warm_up: bool = True) -> tuple[list[float], ...]:
    """Return the seconds of every call of each function.

    The functions are called in turn, so that all meet the same load. The calls of a first round are not timed.
    """
    rounds = [[time_once(function) for function in functions] for _ in range(warm_up + repeats)][warm_up:]
    return tuple(list(seconds) for seconds in zip(*rounds, strict=True))


def compare(
    what: str,
    numerator: float | Sequence[float],
    denominator: float | Sequence[float],
    target: float,
    *,
    at_most: bool = False,
) -> Row:
    """Return the row of a comparison: the median ratio of two times, and its target.

    Parameters
    ----------
    what
        Description: what is divided by what.
    numerator, denominator
        Seconds of each repetition. A single number is used for every repetition.
    target
        The least wanted ratio, or the largest if `at_most`.
    """
    upper, lower = ([each] if isinstance(each, int | float) else list(each) for each in (numerator, denominator))
    upper, lower = upper * (len(lower) if len(upper) == 1 else 1), lower * (len(upper) if len(lower) == 1 else 1)
    ratios = sorted(a / b for a, b in zip(upper, lower, strict=True))
    median = statistics.median(ratios)
    spread = f" (min / median / max {ratios[0]:.2f} / {median:.2f} / {ratios[-1]:.2f})" if len(ratios) > 1 else ""
    seconds = {"seconds": statistics.median(upper), "over_seconds": statistics.median(lower)}
    return {"what": what + spread, "ratio": median, "target": target, "at_most": at_most, **seconds}


def run_process(words: Sequence[str | Path], **environment: str) -> None:
    """Run a program in the project's folder until it ends.

    Raises
    ------
    subprocess.CalledProcessError
        If its exit status is not 0.
    """
    env = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    subprocess.run([*map(str, words)], check=True, cwd=ROOT, env=env, capture_output=True)


# --- A worker process that times work by name ---


@contextmanager
def worker_process(module: str, *arguments: str, without: Sequence[str] = ()) -> Iterator[Callable[[str], float]]:
    """Start ``python -m module``, which calls `serve_times`; yield a function from a name to its seconds.

    Parameters
    ----------
    module, arguments
        Module and command line of the process.
    without
        Environment variables that it does not inherit.
    """
    env = {name: value for name, value in os.environ.items() if name not in without} | {"PYTHONPATH": str(ROOT)}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-m", module, *arguments], cwd=ROOT, env=env, **pipes) as process:
        assert process.stdin and process.stdout

        def time_of(name: str) -> float:
            print(name, file=process.stdin, flush=True)
            return float(process.stdout.readline())

        yield time_of
        process.stdin.close()


def serve_times(prepare: Callable[[str], Function], after: Callable[[Any], object] = lambda result: None) -> None:
    """In a worker process: read names from stdin, call `prepare(name)()`, and print the seconds of the call.

    Parameters
    ----------
    prepare
        Called once per name; its time does not count.
    after
        Called with each result; its time does not count.
    """
    functions: dict[str, Function] = {}
    for name in map(str.strip, sys.stdin):
        if name not in functions:
            functions.clear()  # two networks might not fit into memory
            functions[name] = prepare(name)
        start = time.perf_counter()
        result = functions[name]()
        seconds = time.perf_counter() - start
        after(result)
        print(seconds, flush=True)


# --- One function in a new process, with its peak memory (Linux) ---


@dataclass(frozen=True)
class Measurement:
    """Result, seconds and peak memory of a function, without the memory in use before the call."""

    result: Any
    seconds: float
    peak_mb: float


def measure_alone(prepare: Callable[..., Function], *arguments: Any, seconds: float = 0.0) -> Measurement:
    """Measure `prepare(*arguments)()` in a new process.

    Parameters
    ----------
    prepare, arguments
        Called first in the new process, without being measured.
    seconds
        Repeat the call until it took this long in all; the shortest call counts.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (prepare, arguments, seconds))


def _measure(prepare: Callable[..., Function], arguments: Sequence[Any], enough: float) -> Measurement:
    function = prepare(*arguments)
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    before, seconds = _memory_mb("VmRSS"), list[float]()
    while not seconds or sum(seconds) < enough:
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
    return Measurement(result, min(seconds), _memory_mb("VmHWM") - before)


def _memory_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))
