"""Holds back the first trials of a sweep until every process that will train has started.

Tune gives a waiting trial to whichever process is free, and where another process was being started for that trial, it
stops that one. While a process takes seconds to start and a trial less, the later processes would be stopped again and
again, and the first would train alone.
"""

import asyncio
from contextlib import suppress
from typing import Any

from core.registry import Lazy

ray = Lazy("ray")

TIMEOUT = 20.0  # seconds that the first to come waits for the others


class Gate:
    """Opens once so many have come, or some time after the first, and stays open.

    Parameters
    ----------
    places
        How many processes will train at a time.
    """

    def __init__(self, places: int) -> None:
        self.places, self.come = places, 0
        self.opened = asyncio.Event()

    async def enter(self) -> None:
        """Wait until the gate opens."""
        self.come += 1
        if self.come >= self.places:
            self.opened.set()
        with suppress(TimeoutError):
            await asyncio.wait_for(self.opened.wait(), TIMEOUT)
        self.opened.set()


def make_gate(places: int) -> Any:
    """Set up a gate on the cluster; None where nobody would have to wait."""
    return ray.remote(num_cpus=0)(Gate).remote(places) if places > 1 else None


def enter(gate: Any) -> None:
    """Wait at a gate; one that is gone, or never came to be, holds nobody back."""
    with suppress(ray.exceptions.RayError):
        ray.get(gate.enter.remote(), timeout=2 * TIMEOUT)
