"""Coverage of intervals, error rates and power of tests, by simulation with fixed random seeds.

Each module in ``simulations`` is one subject; a new module there adds its rows.
"""

import importlib
import pkgutil
from collections.abc import Iterator

from tests.benchmarks import simulations
from tests.benchmarks.comparison import Row


def measure() -> Iterator[Row]:
    """Yield the rows of all simulations; each has its lower or upper limit as the target."""
    for module in pkgutil.iter_modules(simulations.__path__, f"{simulations.__name__}."):
        yield from importlib.import_module(module.name).measure()
