"""Simulations of statistics: one module per subject, whose ``measure()`` returns rows for `bench_statistics`."""

from tests.benchmarks.comparison import Row


def rate_row(what: str, rate: float, target: float = 0.07) -> Row:
    """Return the row of a rate (0 to 1) that must not exceed `target`."""
    return {"what": what, "ratio": rate, "target": target, "at_most": True}
