"""Progress display on standard error: bars on a terminal, plain lines elsewhere."""

import io
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from rich import progress as bars
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from core.errors import printable

Progress = Callable[[int, int, str], None]  # steps done, number of steps, name of the task
LINE_SECONDS = 10.0  # seconds between two plain lines about the same task
NOTEBOOK_SECONDS = 0.5  # between two updates of the line of a task in a notebook
SLOW_SECONDS = 2.0  # seconds after which `show_if_slow` shows a task


def no_progress(done: int, total: int, what: str) -> None:
    """Show nothing."""


def show_if_slow(progress: Progress) -> Progress:
    """Return a progress function that shows a task only once it has taken `SLOW_SECONDS` seconds."""
    begun, shown = time.monotonic(), False

    def report(done: int, total: int, what: str) -> None:
        nonlocal shown
        if shown or (done < total and time.monotonic() - begun >= SLOW_SECONDS):
            shown = True
            progress(done, total, what)

    return report


def format_duration(seconds: float) -> str:
    """Return a rough duration: 8 s, 45 s, 4 min, 2 h 10 min, 3 days."""
    if seconds < 10:
        return f"{max(1, round(seconds))} s"
    if seconds < 90:
        return f"{5 * round(seconds / 5)} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60 // 10 * 10} min"
    return f"{round(minutes / 60 / 24)} days"


class Reporter:
    """Displays the progress of several named tasks.

    Parameters
    ----------
    console
        Console to write to; standard error by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        clocks = (TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[detail]}"))
        self._bars = bars.Progress(*columns, *clocks, console=self.console, transient=True)
        self._tasks: dict[str, Any] = {}
        self._last: dict[str, float] = {}
        self._noted: set[str] = set()

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:  # stopping a display that never started would print a line break
            self._bars.stop()

    def note(self, text: str) -> None:
        """Write one line."""
        self.console.print(printable(text), markup=False)

    def note_once(self, text: str) -> None:
        """Write one line, unless this method has written it before."""
        if text not in self._noted:
            self._noted.add(text)
            self.note(text)

    def __call__(self, done: int, total: int, what: str, detail: str = "", *, unit: str = "") -> None:
        """Show that `done` of `total` steps of the task `what` are done; the last step ends the task.

        `unit` is the name of a step on lines of text, such as "epoch".
        """
        if self.console.is_terminal:
            self._draw(done, total, what, detail)
        elif done >= total or time.monotonic() - self._last.get(what, -LINE_SECONDS) >= LINE_SECONDS:
            self._last[what] = time.monotonic()
            count = f"{unit} {done}/{total}".strip()
            self.note(f"{what}: {', '.join(filter(None, [count, detail]))}")
        if done >= total:
            self._last.pop(what, None)

    def _draw(self, done: int, total: int, what: str, detail: str) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total, detail=detail)
        self._bars.update(self._tasks[what], completed=done, total=total, detail=detail)
        if done >= total:
            self._bars.remove_task(self._tasks.pop(what))

    def drop(self, what: str) -> None:
        """Remove the line of a task from the progress display before the task is complete."""
        self._last.pop(what, None)
        if what in self._tasks:
            self._bars.remove_task(self._tasks.pop(what))


class NotebookReporter(Reporter):
    """Displays progress in a notebook: notes as lines of a cell's output, and below them one line that is rewritten."""

    def __init__(self) -> None:
        super().__init__(Console(file=io.StringIO()))  # is no terminal; this class writes to `sys.stdout`
        self._shown = ""
        self._times: dict[str, float] = {}

    def note(self, text: str) -> None:
        """Write one line."""
        self._rewrite("")
        print(printable(text), flush=True)  # noqa: T201

    def __call__(self, done: int, total: int, what: str, detail: str = "", *, unit: str = "") -> None:
        """Show that `done` of `total` steps of the task `what` are done; the last step removes the line."""
        now = time.monotonic()
        if done >= total:
            self.drop(what)
        elif now - self._times.get(what, -NOTEBOOK_SECONDS) >= NOTEBOOK_SECONDS:
            self._times[what] = now
            self._rewrite(printable(f"{what}: {done}/{total}{'  ' + detail if detail else ''}"))

    def drop(self, what: str) -> None:
        """Remove the line of a task."""
        self._times.pop(what, None)
        if self._shown.startswith(f"{what}: "):
            self._rewrite("")

    def _rewrite(self, line: str) -> None:
        if line != self._shown:
            print(f"\r{line.ljust(len(self._shown))}\r{line}", end="", flush=True)  # noqa: T201
            self._shown = line


class NullReporter(Reporter):
    """Shows nothing: for tests and for Ray workers."""

    def note(self, text: str) -> None:
        """Write nothing."""

    def __call__(self, done: int, total: int, what: str, detail: str = "", *, unit: str = "") -> None:
        """Show nothing."""


def make_reporter() -> Reporter:
    """Return the reporter that suits this process: a `NotebookReporter` in Jupyter, otherwise a `Reporter`."""
    return NotebookReporter() if Console().is_jupyter else Reporter()
