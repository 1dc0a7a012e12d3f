"""What all benchmarks share: works timed in turn, and the row that compares their seconds."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

Work = Callable[[], Any]
REPEATS = 3


def timed(work: Work) -> float:
    """Return the seconds that a work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turn(*works: Work, repeats: int = REPEATS, warm: bool = True) -> tuple[list[float], ...]:
    """Return the seconds of each work, done in turn, so that all meet the same load; a first round warms up."""
    rounds = [[timed(work) for work in works] for _ in range(warm + repeats)][warm:]
    return tuple(list(each) for each in zip(*rounds, strict=True))


def row(
    what: str, one: float | Sequence[float], other: float | Sequence[float], target: float, *, at_most: bool = False
) -> dict[str, Any]:
    """Compare seconds with those that they are over, each a figure or one of each repetition.

    Parameters
    ----------
    what
        What was measured, and of what over what.
    one, other
        The ratio is of the first over the second: the median of those of all repetitions. Where one is a figure, it
        stands beside each of the other.
    target
        The least ratio that is wanted, or the most where `at_most`.
    """
    ones, others = ([each] if isinstance(each, (int, float)) else list(each) for each in (one, other))
    ones, others = ones * (len(others) if len(ones) == 1 else 1), others * (len(ones) if len(others) == 1 else 1)
    ratios = sorted(a / b for a, b in zip(ones, others, strict=True))
    middle = statistics.median(ratios)
    spread = f" (min / median / max {ratios[0]:.2f} / {middle:.2f} / {ratios[-1]:.2f})" if len(ratios) > 1 else ""
    seconds = {"seconds": statistics.median(ones), "over_seconds": statistics.median(others)}
    return {"what": what + spread, "ratio": middle, "target": target, "at_most": at_most, **seconds}
