"""Limits of axes: axes of accuracy do not enlarge small differences, and axes of counts start at 1."""

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

MIN_SPAN = 20.0  # smallest range of an axis of accuracy, in percentage points
TOP_MARGIN = 2.0  # percentage points above 100 %, so that markers at 100 % are not cut


def limit_accuracy_axis(ax: Axes, *, whole: bool = False) -> None:
    """Set the range of the vertical axis of accuracy: at least `MIN_SPAN` points, or 0 to 100 % if `whole` is True."""
    low, high = widen_range(*ax.get_ylim())
    ax.set_ylim((0, 100) if whole else (low, min(high, 100 + TOP_MARGIN)))
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))


def widen_range(low: float, high: float) -> tuple[float, float]:
    """Return a range in percent that contains `low` to `high`, spans at least `MIN_SPAN` and starts at 0 or above."""
    missing = max(0.0, MIN_SPAN - (high - low))
    low = min(max(0.0, low - missing / 2), 100 - MIN_SPAN)
    return low, max(high, low + MIN_SPAN)


def limit_count_axis(ax: Axes, last: int) -> None:
    """Limit the horizontal axis to the integers from 1 to `last`, with a tick at 1."""
    margin = max(0.3, 0.02 * last)
    ax.set_xlim(1 - margin, last + margin)
    ticks = [tick for tick in MaxNLocator(6, integer=True).tick_values(1, last) if 1 < tick <= last]
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1
    ax.set_xticks([1, *(tick for tick in ticks if tick - 1 >= step / 2)])
